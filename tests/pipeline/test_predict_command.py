"""`lungct predict` as people run it: every source, every format, bad files, wrong calls."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from helpers import run
from lungct_hf import LungCT
from lungct_hf.classes import Classes
from lungct_hf.known_sets import schema_1_classes
from lungct_hf.pipeline.output import write_rows
from lungct_hf.runtime.prediction import columns
from lungct_hf.slices.window import LUNG_WINDOW
from predict_runs import Predict, predict_command
from small_model import TWENTY, TWO, WIDE, drawn_slices, write_model, write_model_for

COLUMNS = columns(schema_1_classes())


def read_csv(text: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for row in csv.DictReader(io.StringIO(text)):
        typed: dict[str, object] = {name: value or None for name, value in row.items()}
        typed |= {name: float(value) for name, value in row.items() if name.startswith("p_") and value}
        typed["position"] = float(row["position"]) if row["position"] else None
        typed |= {"frame": int(row["frame"]) if row["frame"] else None, "forced": row["forced"] == "true"}
        rows.append(typed)
    return rows


def test_a_folder_of_everything_gives_what_the_library_gives(predict: Predict, folder: Path, model_dir: Path) -> None:
    done = predict(folder, "--format", "json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    expected = [one.to_json() for one in LungCT.from_pretrained(model_dir).predict(folder)]
    assert [(row["file"], row["frame"]) for row in rows] == [(row["file"], row["frame"]) for row in expected]
    for row, other in zip(rows, expected, strict=True):
        for name, value in other.items():
            assert row[name] == (pytest.approx(value, abs=1e-6) if isinstance(value, float) else value), name
    fates = {Path(row["file"]).name: row["decision"] for row in rows}
    assert fates["drawn.png"] == "refused"
    assert all(fates[name] == "error" for name in ("empty.png", "words.jpg", "cut.png", "gone.png"))
    assert sum(row["file"].endswith("pages.tif") for row in rows) == 3
    assert sum("more.zip/" in row["file"] for row in rows) == 3
    assert "4 files or slices could not be read" in done.stderr


def test_all_formats_hold_the_same_rows(predict: Predict, folder: Path, tmp_path: Path) -> None:
    for name in ("rows.csv", "rows.json", "rows.parquet", "rows.txt"):
        assert predict(folder, "--output", tmp_path / name).returncode == 0
    from_csv = read_csv((tmp_path / "rows.csv").read_text())
    from_json = json.loads((tmp_path / "rows.json").read_text())
    assert list(from_csv[0]) == list(COLUMNS) == pq.read_schema(tmp_path / "rows.parquet").names
    assert from_csv == [{name: row[name] for name in COLUMNS} for row in from_json]
    assert from_csv == pq.read_table(tmp_path / "rows.parquet").to_pylist()
    lines = (tmp_path / "rows.txt").read_text().splitlines()
    assert len(lines) == len(from_csv) + 1
    assert all(str(row["decision"]) in line for row, line in zip(from_csv, lines[1:], strict=True))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {
        f"rows.{end}{more}" for end in ("csv", "json", "parquet", "txt") for more in ("", ".manifest.json")
    }


@pytest.mark.parametrize("classes", [TWO, TWENTY], ids=["two", "twenty"])
def test_a_model_of_any_number_of_classes_fills_every_format(folder: Path, tmp_path: Path, classes: Classes) -> None:
    model = write_model(tmp_path / "model", classes=classes)
    for name in ("rows.csv", "rows.json", "rows.parquet", "rows.txt"):
        done = run(
            predict_command(model, folder / "a", folder / "words.jpg", folder / "drawn.png", "-o", tmp_path / name)
        )
        assert done.returncode == 0, done.stderr
    from_csv, from_json = (
        read_csv((tmp_path / "rows.csv").read_text()),
        json.loads((tmp_path / "rows.json").read_text()),
    )
    names = list(columns(classes))
    assert list(from_csv[0]) == names == pq.read_schema(tmp_path / "rows.parquet").names
    assert pq.read_table(tmp_path / "rows.parquet").to_pylist() == from_csv
    assert [{name: row[name] for name in names} for row in from_json] == from_csv
    for row in from_csv:
        chances = [row[f"p_{name}"] for name in classes]
        if row["decision"] in ("error", "refused"):
            assert chances == [None] * len(classes)
        else:
            assert sum(chances) == pytest.approx(1) and row["decision"] in (*classes, "abstain")
    assert {row["decision"] for row in from_csv} >= {"error", "refused"}
    lines = (tmp_path / "rows.txt").read_text().splitlines()
    assert len(lines) == 7 and max(map(len, lines)) < 200, "twenty columns would not fit a terminal"
    for row, line in zip(from_csv, lines[1:], strict=True):
        if row["decision"] not in ("error", "refused"):
            likely = sorted(classes, key=lambda name: -row[f"p_{name}"])[:2]
            assert all(f"{row[f'p_{name}']:.3f}" in line for name in likely), "the most probable ones are always there"
    manifest = json.loads((tmp_path / "rows.csv.manifest.json").read_text())
    assert manifest["run"]["classes"] == list(classes)


def test_slices_unlike_those_the_model_learned_from_are_refused(folder: Path, tmp_path: Path) -> None:
    """In files, in archives and in tables, by several readers."""
    model = write_model_for(tmp_path / "model", LUNG_WINDOW)
    contents = []
    (tmp_path / "wide").mkdir()
    for number, picture in enumerate(drawn_slices(WIDE, 3)):
        picture.save(tmp_path / "wide" / f"{number}.png")
        contents.append((tmp_path / "wide" / f"{number}.png").read_bytes())
    with zipfile.ZipFile(tmp_path / "wide.zip", "w") as archive:
        for number, content in enumerate(contents):
            archive.writestr(f"{number}.png", content)
    pq.write_table(pa.table({"image": contents}), tmp_path / "wide.parquet")
    sources = [tmp_path / "wide", tmp_path / "wide.zip", tmp_path / "wide.parquet", folder / "a" / "slice 0.png"]
    done = run(predict_command(model, *sources, "--workers", "2", "--format", "csv"))
    assert done.returncode == 0, done.stderr
    *wide, usual = read_csv(done.stdout)
    assert len(wide) == 9 and {(row["decision"], row["reason"]) for row in wide} == {("refused", "wrong-window")}
    assert usual["decision"] != "refused"


def test_long_names_of_classes_are_shortened_in_a_table_only() -> None:
    classes = ("a" * 80, "b" * 80)
    row = {"file": "x.png", "frame": 0, "decision": classes[0], "reason": None, "revision": None, "forced": False}
    row |= {f"p_{classes[0]}": 0.75, f"p_{classes[1]}": 0.25}
    shown = {}
    for form in ("table", "csv"):
        buffer = io.BytesIO()
        write_rows([row], form, buffer, classes)
        shown[form] = buffer.getvalue().decode()
    assert max(map(len, shown["table"].splitlines())) < 160 and "0.750" in shown["table"] and "0.250" in shown["table"]
    assert read_csv(shown["csv"])[0]["decision"] == classes[0]


def test_the_manifest_says_what_was_run(predict: Predict, folder: Path, tmp_path: Path) -> None:
    assert predict(folder, "-o", tmp_path / "rows.csv", "--batch-size", "5").returncode == 0
    text = (tmp_path / "rows.csv.manifest.json").read_text()
    manifest, rows = json.loads(text), read_csv((tmp_path / "rows.csv").read_text())
    assert manifest["rows"] == len(rows) == sum(manifest["decisions"].values())
    assert manifest["decisions"]["error"] == 4 and manifest["reasons"]["not-an-image"] >= 1
    assert manifest["batch_size"] == 5 and manifest["versions"]["onnxruntime"]
    assert manifest["command"][:3] == ["lungct", "predict", "mixed"]
    assert str(tmp_path) not in text and str(folder.parent) not in text


def test_patterns_files_and_what_is_named_twice(predict: Predict, folder: Path) -> None:
    done = predict("a/*.png", "a/slice 1.png", "b", "--format", "csv", cwd=folder)
    assert done.returncode == 0, done.stderr
    names = [row["file"] for row in read_csv(done.stdout)]
    assert names == [f"{below}/slice {number}.png" for below in "ab" for number in range(4)]
    everything = predict("**", "--format", "csv", cwd=folder)
    assert len(read_csv(everything.stdout)) == len(read_csv(predict(".", "--format", "csv", cwd=folder).stdout))


def test_force_answers_and_marks(predict: Predict, folder: Path) -> None:
    row = read_csv(predict(folder / "drawn.png", "--force", "--format", "csv").stdout)[0]
    assert row["forced"] and row["reason"] and row["p_normal"] is not None
    plain = read_csv(predict(folder / "drawn.png", "--format", "csv").stdout)[0]
    assert plain["decision"] == "refused" and not plain["forced"] and plain["p_normal"] is None


def test_cam_pictures(predict: Predict, folder: Path, tmp_path: Path) -> None:
    done = predict(folder / "a", folder / "b", folder / "drawn.png", "--cam", tmp_path / "cam", "--format", "csv")
    assert done.returncode == 0, done.stderr
    pictures = sorted((tmp_path / "cam").iterdir())
    answered = [row for row in read_csv(done.stdout) if row["p_normal"] is not None]
    assert len(pictures) == len(answered) == 8  # two folders hold files of the same names
    with Image.open(pictures[0]) as picture:
        assert picture.size == (64, 64) and picture.mode == "RGB"
        red, _, blue = picture.split()
        assert red.tobytes() != blue.tobytes()


def test_a_run_does_not_read_what_it_writes(predict: Predict, folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(folder / "a", data)
    arguments = (".", "-o", "rows.csv", "--cam", "maps")
    assert predict(*arguments, cwd=data).returncode == 0
    (data / "rows.csv.journal").write_text("of another run")
    again = predict(".", "-o", "more.csv", "--cam", "maps", cwd=data)
    assert again.returncode == 0 and (data / "maps").is_dir()
    assert read_csv((data / "more.csv").read_text()) == read_csv((data / "rows.csv").read_text())
    assert len(read_csv((data / "rows.csv").read_text())) == 4


def test_names_decide_nothing_and_rows_of_archives_name_them(predict: Predict, folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "a" / "slice 0.png", tmp_path / "picture.zip")
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.write(folder / "a" / "slice 1.png", "../up.png")
    long = tmp_path / f"{'肺' * 70}.png"
    shutil.copy(folder / "a" / "slice 2.png", long)
    done = predict(tmp_path / "picture.zip", tmp_path / "bad.zip", long, "--cam", tmp_path / "cam", "--format", "csv")
    assert done.returncode == 0, done.stderr
    first, second, third = read_csv(done.stdout)
    assert first["p_normal"] is not None and third["p_normal"] is not None
    assert (second["file"], second["reason"]) == (f"{tmp_path}/bad.zip/../up.png", "unsupported")
    assert len(list((tmp_path / "cam").iterdir())) == 2


def test_only_files_are_written_to(predict: Predict, folder: Path, tmp_path: Path) -> None:
    pipe, kept, link = tmp_path / "pipe", tmp_path / "kept.csv", tmp_path / "link.csv"
    os.mkfifo(pipe)
    done = predict(folder / "drawn.png", "-o", pipe, "--format", "csv")
    assert done.returncode == 2 and "device or a pipe" in done.stderr and pipe.is_fifo()
    kept.touch()
    link.symlink_to(kept)
    assert predict(folder / "drawn.png", "-o", link).returncode == 0
    assert link.is_symlink() and len(read_csv(kept.read_text())) == 1


def test_a_study_has_its_slices_and_one_case(predict: Predict, folder: Path, tmp_path: Path, model_dir: Path) -> None:
    done = predict(folder / "a", folder / "more.zip", "--study", "-o", tmp_path / "cases.json")
    assert done.returncode == 0, done.stderr
    first, second = json.loads((tmp_path / "cases.json").read_text())
    assert len(first["slices"]) == 4 and len(second["slices"]) == 3
    study = LungCT.from_pretrained(model_dir).predict_study(folder / "a").to_json()
    assert first["decision"] == study["decision"] and first["used"] == study["used"] == 4
    assert first["p_benign"] == pytest.approx(study["p_benign"], abs=1e-6)
    flat = read_csv(predict(folder / "a", folder / "more.zip", "--study", "--format", "csv").stdout)
    assert [row["frame"] is None for row in flat] == [False] * 4 + [True] + [False] * 3 + [True]
    assert flat[4]["p_benign"] == first["p_benign"] and flat[4]["file"] == str(folder / "a")


def test_tables(predict: Predict, folder: Path, tmp_path: Path) -> None:
    pictures = [(folder / "a" / f"slice {number}.png").read_bytes() for number in range(4)]
    plain = pa.table({"image": [*pictures, None, b"junk"], "other": list(range(6))})
    pq.write_table(plain, tmp_path / "plain.parquet", row_group_size=2)
    structs = [{"bytes": content, "path": f"/home/me/{number}.png"} for number, content in enumerate(pictures)]
    pq.write_table(pa.table({"image": structs}), tmp_path / "structs.parquet")
    done = predict(tmp_path / "plain.parquet", tmp_path / "structs.parquet", "--format", "csv")
    assert done.returncode == 0, done.stderr
    rows = read_csv(done.stdout)
    direct = read_csv(predict(folder / "a", "--format", "csv").stdout)
    for part in (rows[:4], rows[6:]):
        assert [row["decision"] for row in part] == [row["decision"] for row in direct]
        assert [row["p_benign"] for row in part] == pytest.approx([row["p_benign"] for row in direct], abs=1e-6)
    assert [row["decision"] for row in rows[4:6]] == ["error", "error"]
    assert rows[7]["file"] == f"{tmp_path}/structs.parquet/1/1.png"
    both = predict(tmp_path, "--format", "csv")  # a folder of tables
    assert read_csv(both.stdout) == rows
    pq.write_table(pa.table({"number": [1]}), tmp_path / "none.parquet")
    wrong = predict(tmp_path / "none.parquet")
    assert wrong.returncode == 1 and "no column of pictures (it has: number)" in wrong.stderr


def test_shards_are_disjoint_and_whole(predict: Predict, folder: Path) -> None:
    parts = [predict(folder, "--format", "csv", "--shard", f"{index}/3") for index in range(3)]
    found = [(row["file"], row["frame"]) for part in parts for row in read_csv(part.stdout)]
    whole = [(row["file"], row["frame"]) for row in read_csv(predict(folder, "--format", "csv").stdout)]
    assert len(set(found)) == len(found) and sorted(found) == sorted(whole)


def test_an_empty_folder_is_a_row(predict: Predict, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    done = predict(tmp_path / "nothing", "--format", "csv")
    assert done.returncode == 0
    assert [(row["decision"], row["reason"]) for row in read_csv(done.stdout)] == [("error", "not-an-image")]


def test_wrong_calls(predict: Predict, folder: Path, tmp_path: Path) -> None:
    for arguments, code, words in (
        ([tmp_path / "none.png"], 2, "There is no file or folder"),
        ([tmp_path / "*.png"], 2, "No file fits the pattern"),
        ([folder, "--format", "xml"], 2, "table, csv, json, parquet"),
        ([folder, "--format", "parquet"], 2, "--output FILE.parquet"),
        ([folder, "--output", tmp_path], 2, "is a folder"),
        ([folder, "--shard", "3/3"], 2, "I from 0 to N-1"),
        ([folder, "--study", "--shard", "0/3"], 2, "tear a --study apart"),
        ([folder / "a", folder / "a", "--study"], 2, "name each study once"),
        ([folder, "--batch-size", "0"], 2, "--batch-size"),
        ([folder, "--cam", folder / "drawn.png"], 2, "a folder is needed"),
        ([], 2, "sources"),
    ):
        done = predict(*arguments)
        assert done.returncode == code and words in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr and done.stdout == ""
