"""Sources: every accepted form gives the same cohort, every bad input one clear sentence."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lungct_hf.errors import LungCTError, UsageError
from lungct_hf.known_sets import schema_1_classes

from .conftest import draw, load, refused, save

LABELS = schema_1_classes().names

# Folders


def test_class_folders_as_downloaded(make_folder: Callable[..., Path]) -> None:
    folder = make_folder()
    (folder / "The IQ-OTHNCCD lung cancer dataset.txt").write_text("about")
    (folder / "Normal cases" / ".DS_Store").write_text("x")
    (folder / "Normal cases" / "._Normal case (1).png").write_text("x")
    (folder / "Normal cases" / "Thumbs.db").write_text("x")
    (folder / "notes").mkdir()
    cohort = load(folder)
    assert (cohort.kind, cohort.source, cohort.grouping) == ("folder", "data", "linked")
    assert cohort.counts() == {"normal": 18, "benign": 18, "malignant": 18} and not cohort.bad_files
    assert cohort.classes.names == LABELS and cohort.classes.positive == ("malignant",)
    assert cohort.ids[-1] == "Normal cases/Normal case (23).png" and cohort.ids[1].endswith("(2).png"), "natural order"
    assert set(cohort.given_splits) == {""}
    file = folder / cohort.ids[7]
    assert cohort.sha256[7] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert cohort.read(7).size == (48, 48) and cohort.read(7).mode == "RGB"
    assert cohort.thumbnails.shape == (54, 64, 64) and cohort.thumbnails.dtype == np.uint8
    assert str(folder.parent) not in f"{cohort.source}{cohort.grouping}{cohort.ids.tolist()}{cohort.groups.tolist()}"


def test_fingerprint_sees_bytes_and_labels_but_not_names(make_folder: Callable[..., Path]) -> None:
    folder = make_folder()
    first = load(folder).fingerprint()
    (folder / "Normal cases").rename(folder / "normal")
    for i, path in enumerate(sorted((folder / "normal").iterdir())):
        path.rename(path.with_name(f"x{i}.png"))
    assert load(folder).fingerprint() == first
    (folder / "normal" / "x3.png").rename(folder / "Bengin cases" / "x3.png")
    assert load(folder).fingerprint() != first


def imagefolder(tmp_path: Path, valid: str = "valid") -> Path:
    for i, split in enumerate(("train", valid, "test")):
        for c, label in enumerate(LABELS):
            for s in range(3):
                save(draw(1000 * i + 100 * c, s), tmp_path / "d" / split / label / f"{s}.png")
    return tmp_path / "d"


@pytest.mark.parametrize("valid", ["val", "Valid", "validation", "dev"])
def test_imagefolder_with_its_own_splits(tmp_path: Path, valid: str) -> None:
    cohort = load(imagefolder(tmp_path, valid))
    for split in ("train", "validation", "test"):
        assert np.sum(cohort.given_splits == split) == 9
    assert f"{valid}/benign/0.png" in cohort.ids


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_metadata_gives_groups_labels_and_splits(tmp_path: Path, ending: str) -> None:
    import pandas as pd

    rows = []
    for c, label in enumerate(("Normal", "bengin case", "malignant")):
        for s in range(4):
            save(draw(100 * c + s, 0), tmp_path / "d" / "pictures" / f"{c}{s}.png")
            rows.append({"file_name": f"pictures/{c}{s}.png", "Label": label, "Patient ID": s, "split": "val"})
    table = pd.DataFrame(rows)
    path = tmp_path / "d" / f"metadata.{ending}"
    if ending == "csv":
        table.to_csv(path, index=False)
    elif ending == "jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_parquet(path)
    cohort = load(tmp_path / "d")
    assert cohort.grouping == "column:Patient ID" and set(cohort.groups) == {"0", "1", "2", "3"}
    assert cohort.counts() == {"normal": 4, "benign": 4, "malignant": 4} and set(cohort.given_splits) == {"validation"}


def test_metadata_beside_class_folders_gives_groups(tmp_path: Path) -> None:
    folder = imagefolder(tmp_path)
    for split in ("train", "valid", "test"):
        lines = [f"{label}/{s}.png,{split}-{label}-{s}" for label in LABELS for s in range(3)]
        (folder / split / "metadata.csv").write_text("\n".join(["file_name,case", *lines]))
    cohort = load(folder)
    assert cohort.grouping == "column:case" and "test-benign-2" in cohort.groups
    refused(folder, 'no group column "scanner"', "file_name, case", group_column="scanner")


def test_group_column_is_named_or_recognised_in_order(tmp_path: Path) -> None:
    folder = imagefolder(tmp_path)
    files = [f"{path.relative_to(folder).as_posix()}" for path in sorted(folder.rglob("*.png"))]
    lines = [f"{name},{i},{i % 5},{i % 3}" for i, name in enumerate(files)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,series,patient_id,ward", *lines]))
    assert load(folder).grouping == "column:patient_id"
    cohort = load(folder, group_column="ward")
    assert cohort.grouping == "column:ward" and set(cohort.groups) == {"0", "1", "2"}
    (folder / "metadata.csv").write_text("\n".join(["file_name,patient_id", f"{files[0]},a", f"{files[1]}, "]))
    refused(folder, '"patient_id" is empty for 26 of 27 slices', "test/benign/1.png")


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ("name,label\na.png,normal\n", "no column file_name"),
        ("file_name,label\n../secret.png,normal\n", "below that folder"),
        ("file_name,label\n/etc/x.png,normal\n", "below that folder"),
        ("file_name,label\na.png,normal\na.png,benign\n", "a second time"),
        ("file_name,label\na.png,normal,3\n", "rows of another length"),
        ("file_name,label\na.png,fine\n", "only one class (fine)"),
        ("file_name,label\na.png,\n", "no slices with a label"),
        ("file_name,age\na.png,3\n", "no label column"),
        ("file_name,label\n", "1 images have no row"),
        ("", "no column file_name"),
    ],
)
def test_bad_metadata(tmp_path: Path, metadata: str, sentence: str) -> None:
    save(draw(1, 0), tmp_path / "d" / "a.png")
    (tmp_path / "d" / "metadata.csv").write_text(metadata)
    refused(tmp_path / "d", sentence)


def test_metadata_that_contradicts_a_folder_is_refused(make_folder: Callable[..., Path]) -> None:
    folder = make_folder()
    (folder / "metadata.csv").write_text("file_name,label\nNormal cases/Normal case (1).png,malignant\n")
    refused(folder, "Normal case (1).png", "calls it malignant")


def test_unusable_folders(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_folder()
    save(draw(5, 0), folder / "Malignat cases" / "1.png")
    refused(
        folder, 'Unknown folder or label "Malignat cases"', "IQ-OTH/NCCD", "normal, benign, malignant", "--classes"
    )
    shutil.rmtree(folder / "Malignat cases")
    save(draw(5, 0), folder / "loose.png")
    refused(folder, "1 images lie outside", "loose.png")
    (folder / "loose.png").unlink()
    save(draw(5, 0), folder / "train" / "x" / "1.png")
    refused(folder, "Both split folders (train) and another folder with slices", "Bengin cases")
    shutil.rmtree(folder / "train")
    for path in (folder / "Bengin cases").iterdir():
        path.unlink()
    refused(folder, 'The class folder "Bengin cases" holds no slices. Fix: fill it')
    (folder / "Bengin cases").rmdir()
    assert load(folder).counts() == {"normal": 18, "malignant": 18}
    shutil.rmtree(folder / "Malignant cases")
    refused(folder, "only one class (Normal cases)")
    shutil.rmtree(folder / "Normal cases")
    refused(folder, "holds no images, volumes or parquet files")
    save(draw(1, 0), folder / "1.png")
    refused(folder, "no class folders and no table of labels: it holds 1 files")


@pytest.mark.parametrize("wrapping", ["inner dataset", "download/The data set"])
def test_class_folders_wrapped_in_others(make_folder: Callable[..., Path], tmp_path: Path, wrapping: str) -> None:
    plain, wrapped = load(make_folder()), load(make_folder(f"wrap/{wrapping}").parents[wrapping.count("/")])
    assert wrapped.ids.tolist() == plain.ids.tolist() and wrapped.fingerprint() == plain.fingerprint()
    assert wrapped.source == "wrap" and wrapped.notes[0] == f'read the folder "{wrapping}" inside it'


def test_pictures_named_like_dicom_are_read_by_their_bytes(make_folder: Callable[..., Path]) -> None:
    folder = make_folder()
    before = load(folder).fingerprint()
    for path in (folder / "Bengin cases").iterdir():
        path.rename(path.with_suffix(".dcm"))
    assert load(folder).fingerprint() == before


def test_a_missing_path_or_another_kind_of_file_is_a_usage_error(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "no file or folder", kind=UsageError)
    refused("./nowhere", "no file or folder", kind=UsageError)
    refused("", "empty", kind=UsageError)
    (tmp_path / "data.tar").write_bytes(b"")
    refused(tmp_path / "data.tar", "no parquet file and no zip archive", kind=UsageError)
    (tmp_path / "data.zip").write_bytes(b"PK")
    refused(tmp_path / "data.zip", "cannot be read", "damaged or cut short")
    refused("x" * 5000, "x", kind=LungCTError)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission(make_folder: Callable[..., Path]) -> None:
    folder = make_folder() / "Normal cases"
    folder.chmod(0)
    try:
        refused(folder.parent, "Normal cases", "Permission denied")
    finally:
        folder.chmod(0o700)


# Bad files


def damage(folder: Path) -> None:
    whole = (folder / "Normal cases" / "Normal case (1).png").read_bytes()
    (folder / "Normal cases" / "Normal case (1).png").write_bytes(whole[: len(whole) // 2])
    (folder / "Normal cases" / "Normal case (2).png").write_bytes(b"")
    (folder / "Bengin cases" / "readme.docx").write_text("hello")
    (folder / "Bengin cases" / "readme.txt").write_text("what describes slices is passed over, as in prediction")
    save(draw(7, 0).resize((4, 4)), folder / "Bengin cases" / "tiny.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_a_pipe_is_named_and_never_opened(make_folder: Callable[..., Path]) -> None:
    folder = make_folder()
    os.mkfifo(folder / "Normal cases" / "x.png")
    # In a process of its own, so that a read that waits for ever ends this test alone.
    code = f"from lungct_hf.cohort import load_cohort; load_cohort({str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert '"Normal cases/x.png": it is a pipe' in done.stderr
    os.mkfifo(folder.parent / "rows.parquet")
    shutil.rmtree(folder)
    code = f"from lungct_hf.cohort import load_cohort; load_cohort({str(folder.parent)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert '"rows.parquet" is not a readable parquet file: it is no regular file' in done.stderr


def test_bad_files_are_refused_by_name(make_folder: Callable[..., Path]) -> None:
    folder = make_folder()
    damage(folder)
    names = ["Normal case (1).png", "Normal case (2).png", "readme.docx", "tiny.png"]
    kind = "neither an image nor DICOM"
    refused(folder, "4 bad files among the 56 images", "--on-bad-file skip", kind, "too small", *names)


def test_bad_files_are_skipped_with_a_warning(make_folder: Callable[..., Path]) -> None:
    folder = make_folder()
    damage(folder)
    with pytest.warns(UserWarning, match=r"Left out 4 bad files .*readme\.docx"):
        cohort = load(folder, on_bad_file="skip")
    assert cohort.counts() == {"normal": 16, "benign": 18, "malignant": 18}
    assert {bad.id for bad in cohort.bad_files} == {
        "Bengin cases/readme.docx",
        "Bengin cases/tiny.png",
        "Normal cases/Normal case (1).png",
        "Normal cases/Normal case (2).png",
    }
    assert len(cohort.thumbnails) == len(cohort) == len(cohort.reports) == 52
    for i in range(len(cohort)):
        assert hashlib.sha256((folder / cohort.ids[i]).read_bytes()).hexdigest() == cohort.sha256[i]


def test_skipping_a_whole_class_is_refused(make_folder: Callable[..., Path]) -> None:
    folder = make_folder()
    for path in (folder / "Bengin cases").iterdir():
        path.write_bytes(b"no")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused(folder, "has no benign slices", "Left out were: 18 bad files", on_bad_file="skip")
    with pytest.raises(LungCTError, match=r"and 8 more"):
        load(folder)


def test_a_file_that_changes_after_loading_is_one_sentence(make_folder: Callable[..., Path]) -> None:
    folder = make_folder()
    cohort = load(folder)
    (folder / cohort.ids[0]).write_bytes(b"gone")
    with pytest.raises(LungCTError, match="has changed since"):
        cohort.read(0)


def test_importing_the_package_stays_light() -> None:
    code = "import sys, lungct_hf; print([m for m in ('datasets', 'sklearn', 'torch', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    code = "import sys, lungct_hf.cohort; print([m for m in ('datasets', 'sklearn', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
