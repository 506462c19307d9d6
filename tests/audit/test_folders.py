"""Data sets whose classes are not ours can be audited before anybody renames a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from lungct_hf.audit import audit_data
from lungct_hf.audit.folders import list_any
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
    assert '"Data"' in notes and "normal, benign" in notes
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
    found = audit_data(str(tmp_path / "data"), progress=False)
    assert any('class folder "benign" holds no images' in note for note in found.figures["data"]["notes"])
    (tmp_path / "data/benign/1.dcm").write_bytes(b"DICM")
    notes = list_any(str(tmp_path / "data"), None).notes
    assert any("DICOM files lie there (1): save each slice as PNG" in note for note in notes)


def test_our_classes_are_listed_as_everywhere(tmp_path: Path) -> None:
    for person in range(3):
        save(tmp_path / "data", f"{('normal', 'benign', 'malignant')[person]}/{person}.png", person)
    source = list_any(str(tmp_path / "data"), None)
    assert source.classes == ("normal", "benign", "malignant") and source.notes == ()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("a/1.png", "b/2.png", "3.png"), "outside its class folders: 3.png"),
        (("train/a/1.png", "train/b/2.png", "extra/3.png"), "outside its class folders: extra/"),
        (("only/1.png", "only/2.png"), "at least two"),
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
