"""Parquet in every form people write it gives the same cohort; what cannot be used is refused in one sentence."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lungct_hf.known_sets import schema_1_classes

from .conftest import draw, load, refused

LABELS = schema_1_classes().names


def encoded(person: int, s: int) -> bytes:
    buffer = io.BytesIO()
    draw(person, s).save(buffer, "PNG")
    return buffer.getvalue()


def columns(image: str = "struct") -> dict[str, list[Any]]:
    rows = [(c, p, s) for c in range(3) for p in range(3) for s in range(2)]
    pictures: list[Any] = [encoded(100 * c + p, s) for c, p, s in rows]
    if image == "struct":
        pictures = [
            {"bytes": picture, "path": f"{LABELS[c]} ({10 * p + s}).png"}
            for picture, (c, p, s) in zip(pictures, rows, strict=True)
        ]
    return {"image": pictures, "label": [LABELS[c] for c, _, _ in rows], "patient": [10 * c + p for c, p, _ in rows]}


def test_parquet_as_datasets_writes_it(tmp_path: Path) -> None:
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["malignant", "Bengin", "normal"]),
            "patient": datasets.Value("int64"),
        }
    )
    table = columns()
    table["label"] = [2 - LABELS.index(label) for label in table["label"]]
    datasets.Dataset.from_dict(table, features=features).to_parquet(tmp_path / "slices.parquet")
    cohort = load(tmp_path / "slices.parquet")
    assert (cohort.kind, cohort.source, cohort.grouping) == ("parquet", "slices.parquet", "column:patient")
    assert cohort.counts() == {"normal": 6, "benign": 6, "malignant": 6}
    assert cohort.ids[0] == "normal (0).png" and cohort.groups[0] == "0"
    assert cohort.sha256[0] == hashlib.sha256(encoded(0, 0)).hexdigest()
    assert np.array_equal(np.asarray(cohort.read(17)), np.asarray(draw(202, 1).convert("RGB")))


def test_a_table_replaced_under_the_same_name_and_time_is_read_anew(tmp_path: Path) -> None:
    """Nothing stands between a user's file and a published figure."""
    file, pictures = tmp_path / "slices.parquet", [encoded(person, 0) for person in range(6)]
    found = []
    for labels in (["well", "sick"] * 3, ["sick", "well"] * 3):
        rows = {"image": pictures, "label": labels, "patient_id": [f"p{number}" for number in range(6)]}
        pq.write_table(pa.table(rows), file, compression="none", use_dictionary=False)
        os.utime(file, (315532800, 315532800))
        cohort = load(file)
        assert [cohort.classes[label] for label in cohort.labels.tolist()] == labels
        found.append((file.stat().st_size, cohort.fingerprint()))
    assert found[0][0] == found[1][0] and found[0][1] != found[1][1]


def test_parquet_of_raw_bytes_with_split_files(tmp_path: Path) -> None:
    table = columns("bytes")
    for name, rows in (("train-00000-of-00002", slice(0, 9)), ("test", slice(9, None))):
        part = {key: values[rows] for key, values in table.items() if key != "patient"}
        (tmp_path / "d" / "data").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(part), tmp_path / "d" / "data" / f"{name}.parquet")
    cohort = load(tmp_path / "d")
    assert cohort.grouping == "linked" and len(set(cohort.groups)) == 9
    assert cohort.ids.tolist()[8:10] == ["train/8", "test/0"] or cohort.ids.tolist()[8:10] == ["test/8", "train/0"]
    assert np.sum(cohort.given_splits == "train") == 9


def test_parquet_of_paths_beside_the_pictures(tmp_path: Path) -> None:
    table = columns("bytes")
    for i, picture in enumerate(table["image"]):
        (tmp_path / f"p{i}.png").write_bytes(picture)
    table["image"] = [f"p{i}.png" for i in range(18)]
    pq.write_table(pa.table(table), tmp_path / "index.parquet")
    cohort = load(tmp_path / "index.parquet")
    assert cohort.ids[3] == "p3.png" and cohort.read(3).size == (48, 48)
    table["image"][3], table["image"][4] = str(tmp_path / "p3.png"), "../elsewhere/p4.png"
    pq.write_table(pa.table(table), tmp_path / "index.parquet")
    refused(tmp_path / "index.parquet", "1 bad files", '"p4.png": the file does not exist')
    table["image"][4] = None
    pq.write_table(pa.table(table), tmp_path / "index.parquet")
    refused(tmp_path / "index.parquet", "1 bad files", '"rows/4": its row has no image')
    table["image"][4] = "p4.png"
    pq.write_table(pa.table(table), tmp_path / "index.parquet")
    cohort = load(tmp_path / "index.parquet")
    assert cohort.ids[3] == "p3.png", "an absolute path is used but not shown"


def test_unpublishable_or_repeated_paths_are_not_ids(tmp_path: Path) -> None:
    table = columns()
    for i, picture in enumerate(table["image"]):
        picture["path"] = f"/home/somebody/{i}.png"
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    assert load(tmp_path / "t.parquet").ids[3] == "3.png"
    for picture in table["image"]:
        picture["path"] = "same.png"
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    assert load(tmp_path / "t.parquet").ids[3] == "rows/3"


def test_bad_rows_of_a_table(tmp_path: Path) -> None:
    table = columns("bytes")
    table["image"][0], table["image"][1], table["label"][2] = None, b"junk", None
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    refused(tmp_path / "t.parquet", "3 bad files", "no image bytes", "it has no label", "neither an image")
    with pytest.warns(UserWarning, match="Left out 3"):
        cohort = load(tmp_path / "t.parquet", on_bad_file="skip")
    assert cohort.sha256.tolist() == [hashlib.sha256(table["image"][i]).hexdigest() for i in range(3, 18)]
    drawn = [draw(100 * c + p, s) for c in range(3) for p in range(3) for s in range(2)][3:]
    for i, picture in enumerate(drawn):
        assert np.array_equal(np.asarray(cohort.read(i).convert("L")), np.asarray(picture))


def test_unusable_parquet(tmp_path: Path) -> None:
    file, table = tmp_path / "t.parquet", columns("bytes")

    def written(**changes: Any) -> Path:
        pq.write_table(pa.table({key: v for key, v in {**table, **changes}.items() if v is not None}), file)
        return file

    refused(written(label=[0] * 18), "only one class (0)")
    refused(written(label=[0, 1] * 9), "plain numbers without names", "ClassLabel", "--classes")
    refused(written(label=["x"] * 18), "only one class (x)")
    refused(written(label=None), "no label column", "image, patient")
    refused(written(image=None), "no image column", "label, patient")
    refused(written(image=list(range(18))), "image column")
    refused(written(patient=[None, *range(17)]), '"patient" is empty for 1 of 18')
    refused(written(), 'no group column "who"', group_column="who")
    refused(written(image=[], label=[], patient=[]), "no")
    file.write_bytes(b"PAR1 not really PAR1")
    refused(file, "not a readable parquet file")
