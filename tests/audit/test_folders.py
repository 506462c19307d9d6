"""Data sets whose classes are not ours can be audited before anybody renames a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from cohort.scans import study
from lungct_hf.audit import audit_data
from lungct_hf.errors import LungCTError

from .conftest import codes, draw, files


def save(folder: Path, name: str, person: int, number: int = 0) -> str:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    draw(person, number).save(folder / name)
    return name


def test_other_classes_in_own_splits_with_longer_names_in_one(tmp_path: Path) -> None:
    """As in a Kaggle set: four classes, Data/train|valid|test, and the stage in the folder names of train."""
    root = tmp_path / "download" / "Data"
    classes = ("adenocarcinoma", "large.cell", "normal", "squamous")
    for c, name in enumerate(classes):
        for s, split in enumerate(("train", "valid", "test")):
            folder = name if split == "test" or name == "normal" else f"{name}_left.lobe_T2_N0"
            for person in range(6):
                save(root, f"{split}/{folder}/{person:03d}.png", 100 * c + 10 * s + person)
    leaked = save(root, "test/normal/leak.png", 200, 1)
    found = audit_data(str(tmp_path / "download"), progress=False)
    assert list(found.figures["classes"]) == list(classes)
    assert {name: entry["slices"] for name, entry in found.figures["classes"].items()}["normal"] == 19
    assert set(found.figures["splits"]["counts"]) == {"train", "validation", "test"}
    assert files(found, "near-copy-across-splits") == {leaked, "train/normal/000.png"}
    notes = " ".join(found.figures["data"]["notes"])
    assert '"Data"' in notes
    assert '"squamous_left.lobe_T2_N0" is read as "squamous"' in notes


def test_two_of_our_classes(tmp_path: Path) -> None:
    for person in range(12):
        save(tmp_path / "data", f"{('Bengin cases', 'Malignant cases')[person % 2]}/{person}.png", person)
    found = audit_data(str(tmp_path / "data"), progress=False)
    assert list(found.figures["classes"]) == ["benign", "malignant"] and codes(found) == set()
    assert found.figures["probes"]["chance_balanced_accuracy"] == 0.5


def test_class_folders_without_images_are_named(tmp_path: Path) -> None:
    for person in range(12):
        save(tmp_path / "data", f"{('normal', 'malignant')[person % 2]}/{person}.png", person)
    (tmp_path / "data/benign").mkdir()
    with pytest.raises(LungCTError, match='class folder "benign" holds no slices'):
        audit_data(str(tmp_path / "data"), progress=False)
    (tmp_path / "data/benign/1.dcm").write_bytes(b"DICM")
    with pytest.raises(LungCTError, match='"benign/1.dcm": it is neither an image nor DICOM'):
        audit_data(str(tmp_path / "data"), progress=False)


def test_scans_are_audited_like_pictures(tmp_path: Path) -> None:
    study(tmp_path / "data", people=6)
    found = audit_data(str(tmp_path / "data"), folds=2, progress=False)
    assert found.figures["groups"]["grouping"] == "header:patient" and found.figures["groups"]["groups"] == 6
    assert {name: entry["slices"] for name, entry in found.figures["classes"].items()} == {"clear": 12, "nodule": 12}
    # Slices of one patient are no news; the phantoms' table and ring are no trace of a class.
    assert codes(found) <= {"shortcut-ring", "shortcut-1nn"}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("a/1.png", "b/2.png", "3.png"), 'outside the class folders a, b: "3.png"'),
        (("train/a/1.png", "train/b/2.png", "extra/3.png"), 'another folder with slices, "extra"'),
        (("only/1.png", "only/2.png"), "only one class"),
        ((), "no images"),
    ],
)
def test_folders_that_cannot_be_audited(tmp_path: Path, names: tuple[str, ...], words: str) -> None:
    (tmp_path / "data").mkdir()
    for person, name in enumerate(names):
        save(tmp_path / "data", name, person)
    with pytest.raises(LungCTError) as error:
        audit_data(str(tmp_path / "data"), progress=False)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "layout", ["images/{person}_{number}.png", "images/{person}/{number}.png", "{person}/{number}.png"]
)
@pytest.mark.parametrize("section", ["", "train/"])
def test_a_table_that_names_the_classes_wins_over_folders_of_patients(
    tmp_path: Path, layout: str, section: str
) -> None:
    lines = ["file_name,label,patient_id"]
    for person in range(12):
        for number in range(2):
            name = layout.format(person=f"P{person}", number=number)
            save(tmp_path / "data", f"{section}{name}", person, number)
            lines.append(f"{name},{('normal', 'benign', 'malignant')[person % 3]},P{person}")
    (tmp_path / "data" / section / "metadata.csv").write_text("\n".join(lines) + "\n")
    found = audit_data(str(tmp_path / "data"), progress=False)
    assert {name: entry["slices"] for name, entry in found.figures["classes"].items()} == {
        "normal": 8, "benign": 8, "malignant": 8
    }  # fmt: skip
    assert found.figures["groups"]["grouping"] == "column:patient_id" and found.figures["groups"]["groups"] == 12


def test_a_table_that_repeats_other_classes_changes_nothing(tmp_path: Path) -> None:
    lines = ["file_name,label"]
    for person in range(12):
        name = save(tmp_path / "data", f"{('adeno', 'squamous')[person % 2]}/{person}.png", person)
        lines.append(f"{name},{name.split('/')[0]}")
    (tmp_path / "data/metadata.csv").write_text("\n".join(lines) + "\n")
    found = audit_data(str(tmp_path / "data"), progress=False)
    assert list(found.figures["classes"]) == ["adeno", "squamous"]


def test_patients_in_a_table_beside_other_classes(tmp_path: Path) -> None:
    lines = ["file_name,who"]
    for person in range(10):
        for number in range(2):
            name = save(tmp_path / "data", f"{'ab'[person % 2]}/{person}_{number}.png", person, number)
            lines.append(f"{name},P{person}")
    (tmp_path / "data/metadata.csv").write_text("\n".join(lines) + "\n")
    found = audit_data(str(tmp_path / "data"), group_column="who", progress=False)
    assert found.figures["groups"]["grouping"] == "column:who" and found.figures["groups"]["groups"] == 10
    assert codes(found) == set()
