"""Data from elsewhere: whatever labels they have or lack, seen as a model sees them, with nothing left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from lungct_hf.classes import Classes
from lungct_hf.cohort import Cohort
from lungct_hf.cohort.outside import Outside, is_positive
from lungct_hf.errors import UsageError

from .conftest import draw, load, refused, save
from .scans import Person, hu_of, write_nifti, write_rows

MODEL = Classes(("normal", "benign", "malignant"), ("malignant",))


def described(folder: Path, text: str) -> Outside:
    (folder / "map.yaml").write_text(text, encoding="utf-8")
    return Outside(MODEL).described_by(folder / "map.yaml")


def labels(cohort: Cohort) -> list[str]:
    return [cohort.classes[number] for number in cohort.labels]


def test_a_name_is_a_class_of_the_model_disease_none_or_left_out(tmp_path: Path) -> None:
    for person, name in enumerate(("Healthy Scan", "no", "TUMOUR", "scout", "normal")):
        save(draw(person, 0), tmp_path / "d" / name / "a.png")
    said = "title: Ours\nclasses:\n  healthy scan: negative\n  no: Negative\n  tumour: malignant\n  scout: left out\n"
    outside = described(tmp_path, said)
    cohort = load(tmp_path / "d", outside=outside)
    assert outside.title == "Ours" and sorted(labels(cohort)) == [
        "left out", "malignant", "negative", "negative", "normal"
    ]  # fmt: skip
    assert cohort.class_map["no"] == "negative" and cohort.class_map["TUMOUR"] == "malignant"
    assert [is_positive(one, MODEL) for one in ("benign", "malignant", "negative", "positive", "unknown")] == [
        False, True, False, True, None
    ]  # fmt: skip


def test_one_class_or_none_is_enough(tmp_path: Path) -> None:
    save(draw(1, 0), tmp_path / "one" / "CT_COVID" / "a.png")
    cohort = load(tmp_path / "one", outside=described(tmp_path, "classes: {CT_COVID: negative}"))
    assert labels(cohort) == ["negative"]
    refused(tmp_path / "one", "CT_COVID", "--external-classes", kind=UsageError, outside=Outside(MODEL))
    save(draw(2, 0), tmp_path / "bare" / "a.png")
    assert labels(load(tmp_path / "bare", outside=Outside(MODEL))) == ["unknown"]


def test_folders_named_after_patients_are_no_classes(tmp_path: Path) -> None:
    people = [Person(number) for number in (1, 2)]
    for person in people:
        person.dicom(tmp_path / "d" / person.id, slices=3)
    cohort = load(tmp_path / "d", outside=described(tmp_path, "everything: negative"))
    assert labels(cohort) == ["negative"] * 6 and cohort.grouping == "header:patient"
    assert len(set(cohort.groups)) == 2 and cohort.class_map == {"everything": "negative"}
    refused(tmp_path / "d", "named after patients", outside=described(tmp_path, "classes: {x: negative}"))


def test_a_single_file_and_a_table_of_pictures_are_sets_too(tmp_path: Path) -> None:
    import datasets

    outside = described(tmp_path, "everything: positive")
    volume = write_nifti(tmp_path / "v.nii.gz", hu_of(3, 4))
    assert labels(load(volume, outside=outside)) == ["positive"] * 4
    pictures = [str(save(draw(person, 0), tmp_path / f"{person}.png")) for person in range(2)]
    table = datasets.Dataset.from_dict({"image": pictures}).cast_column("image", datasets.Image())
    table.to_parquet(tmp_path / "t.parquet")
    assert labels(load(tmp_path / "t.parquet", outside=outside)) == ["positive"] * 2
    assert labels(load(tmp_path / "t.parquet", outside=Outside(MODEL))) == ["unknown"] * 2


def test_a_table_labels_patients_and_nothing_refused_is_left_out(tmp_path: Path) -> None:
    people = [Person(number) for number in (1, 2)]
    for person in people:
        person.dicom(tmp_path / "d", slices=2) if person.number == 1 else person.dicom(tmp_path / "d" / "b", slices=2)
    write_rows(
        tmp_path / "d" / "labels.csv",
        ("PatientID", "label"),
        [(p.id, "ill" if p.number == 1 else "well") for p in people],
    )
    person = Person(2)
    person.dicom(tmp_path / "d" / "b", slices=2, Modality="MR")  # which the input check refuses
    outside = described(tmp_path, "classes: {ill: malignant, well: negative}")
    cohort = load(tmp_path / "d", outside=outside)
    assert sorted(labels(cohort)) == ["malignant"] * 2 + ["negative"] * 2 and not cohort.left_out
    codes = {label: cohort.reports[row].reason for row, label in enumerate(labels(cohort))}
    assert codes["negative"] == "not-ct"
    told = repr((cohort.ids, cohort.groups, cohort.class_map, cohort.source))
    assert not any(text in told for one in people for text in one.tells(2))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("classes: [a, b]", "needs classes:"),
        ("classes: {a: cancer}", 'says "cancer"'),
        ("everything: negative\nclasses: {a: negative}", "needs classes:"),
        ("everything: [a]", "needs classes:"),
        ("other: 1", "needs classes:"),
        ("everything: negative\npatients: rows", "needs classes:"),
        ("classes: {", "cannot be read"),
    ],
)
def test_a_class_map_that_means_nothing_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        described(tmp_path, text)
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="no such file"):
        Outside(MODEL).described_by(tmp_path / "nowhere.yaml")
