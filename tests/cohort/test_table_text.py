"""Tables as spreadsheets save them and names as file systems write them: read alike, or asked for in one sentence."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from .conftest import draw, load, refused, save

CLASSES = ("Normal cases", "Bengin cases", "Malignant cases")


def cohort_of(folder: Path, content: bytes, form: str = "NFC") -> Path:
    """Class folders of two slices each, whose names have an accent in that normal form, and a metadata.csv."""
    for number, name in enumerate(CLASSES):
        for at in range(2):
            path = folder / name / unicodedata.normalize(form, f"Müller {at}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            save(draw(number * 2 + at, number), path)
    (folder / "metadata.csv").write_bytes(content)
    return folder


def table(separator: str = ",", form: str = "NFC") -> str:
    rows = [f"{name}/Müller {at}.png{separator}p{at}" for name in CLASSES for at in range(2)]
    return unicodedata.normalize(form, "\r\n".join([f"file_name{separator}patient_id", *rows]) + "\r\n")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_what_spreadsheets_save_is_read(tmp_path: Path, encoding: str, separator: str) -> None:
    cohort = load(cohort_of(tmp_path, table(separator).encode(encoding)))
    assert sorted(cohort.groups) == ["p0"] * 3 + ["p1"] * 3


def test_an_older_code_page_is_asked_for(tmp_path: Path) -> None:
    folder = cohort_of(tmp_path, table().encode("cp1252"))
    refused(folder, "metadata.csv cannot be read: line 2 is not UTF-8", 'save it as "CSV UTF-8"')


@pytest.mark.parametrize("names, rows", [("NFD", "NFC"), ("NFC", "NFD"), ("NFD", "NFD")])
def test_accents_written_in_two_ways_are_one_name(tmp_path: Path, names: str, rows: str) -> None:
    cohort = load(cohort_of(tmp_path / names, table(form=rows).encode(), form=names))
    assert sorted(cohort.groups) == ["p0"] * 3 + ["p1"] * 3 and not cohort.bad_files
    assert cohort.ids[0] == "Bengin cases/Müller 0.png" and cohort.read(0).mode == "RGB"


def test_two_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folder = cohort_of(tmp_path, table().encode())
    double = folder / CLASSES[0] / unicodedata.normalize("NFD", "Müller 0.png")
    double.write_bytes((folder / CLASSES[0] / "Müller 0.png").read_bytes())
    if len(list((folder / CLASSES[0]).iterdir())) == 3:  # not where the file system takes them for one
        refused(folder, "its accents written in another way")
