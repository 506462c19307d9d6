"""Classes come from the data: from folders and columns as they stand, from known sets, or as --classes says."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lungct_hf.classes import Classes
from lungct_hf.cohort import Cohort, Split, make_split
from lungct_hf.cohort.summary import summarise
from lungct_hf.errors import LungCTError, UsageError
from lungct_hf.known_sets import known_sets

from .conftest import draw, load, refused, save
from .scans import write_rows

KAGGLE = known_sets()["chest-ct-kaggle"]


def folders(root: Path, names: Sequence[str], *, people: int = 2, first: int = 0) -> Path:
    for c, name in enumerate(names, start=first):
        for person in range(people):
            save(draw(1000 * c + person, 0), root / name / f"{person}.png")
    return root


def counts(cohort: Cohort) -> dict[str, int]:
    assert sum(cohort.counts().values()) == len(cohort)
    return cohort.counts()


def encoded(person: int) -> bytes:
    buffer = io.BytesIO()
    draw(person, 0).save(buffer, "PNG")
    return buffer.getvalue()


# As the data say


@pytest.mark.parametrize("names", [("b10", "b9"), ("Ja", "Nein"), tuple(f"kind {i}" for i in range(100))])
def test_folders_of_any_names_are_classes_in_natural_order(tmp_path: Path, names: tuple[str, ...]) -> None:
    cohort = load(folders(tmp_path / "d", names))
    order = sorted(names, key=lambda name: (name[0], int("".join(filter(str.isdigit, name)) or 0), name))
    assert cohort.classes.names == tuple(order) and not cohort.classes.positive
    assert set(counts(cohort).values()) == {2} and not [note for note in cohort.notes if "read as" in note]


def test_the_kaggle_set_has_four_classes_whatever_its_folders_are_called(tmp_path: Path) -> None:
    short = ("adenocarcinoma", "large.cell.carcinoma", "normal", "squamous.cell.carcinoma")
    for part, names in (
        ("train", (*KAGGLE.folders, "normal")),
        ("valid", (*KAGGLE.folders, "normal")),
        ("test", short),
    ):
        folders(tmp_path / "Data" / part, names, first=100 * len(part))
    cohort = load(tmp_path)
    assert cohort.classes.names == KAGGLE.classes.names and cohort.classes.positive == KAGGLE.classes.positive
    assert set(counts(cohort).values()) == {6}
    assert {split: int(np.sum(cohort.given_splits == split)) for split in ("train", "validation", "test")} == {
        "train": 8, "validation": 8, "test": 8
    }  # fmt: skip
    for number, name in enumerate(cohort.ids):
        assert cohort.classes.find(name.split("/")[1]) == cohort.classes[cohort.labels[number]]
    merged = load(tmp_path, classes="normal; adenocarcinoma, large, squamous -> malignant")
    assert counts(merged) == {"normal": 6, "malignant": 18} and merged.classes.positive == ("malignant",)


def test_three_carcinomas_are_a_set_too(tmp_path: Path) -> None:
    cohort = load(folders(tmp_path, KAGGLE.folders))
    assert cohort.classes.names == KAGGLE.classes.names[1:] and not cohort.classes.positive


def test_two_classes_of_a_known_set(tmp_path: Path) -> None:
    cohort = load(folders(tmp_path / "d", ("CT_COVID", "CT_NonCOVID"), people=6))
    assert cohort.classes.names == ("not covid", "covid") and cohort.classes.positive == ("covid",)
    split = make_split(cohort, folds=3)
    assert list(split.counts()["test"]) == ["not covid", "covid"]
    assert list(summarise(split)["all"]) == ["all", "not covid", "covid"]
    split.write_csv(tmp_path / "split.csv")
    again = Split.read(tmp_path / "split.csv")
    assert again.classes.names == cohort.classes.names and again.hash == split.hash


def test_longer_names_in_another_split_and_a_class_in_one_split_only(tmp_path: Path) -> None:
    folders(tmp_path / "d" / "train", ("spot_left.lobe_T2", "clear", "rare"), people=4)
    folders(tmp_path / "d" / "test", ("spot", "clear"), people=4, first=10)
    cohort = load(tmp_path / "d")
    assert cohort.classes.names == ("clear", "rare", "spot") and cohort.counts() == {"clear": 8, "rare": 4, "spot": 8}
    notes = "; ".join(cohort.notes)
    assert (
        '"spot_left.lobe_T2" is read as "spot"' in notes and '"rare" is only in the data\'s own split train' in notes
    )
    with pytest.raises(LungCTError, match="test split has no rare slices"):
        make_split(cohort, "given")
    assert make_split(cohort, "grouped", folds=3).counts()["test"]["rare"] > 0


@pytest.mark.parametrize("column", ["label", "Class", "diagnosis"])
def test_names_in_a_column(tmp_path: Path, column: str) -> None:
    names = ["grade II", "grade I", "grade III"]
    table = {"image": [encoded(i) for i in range(9)], column: [names[i % 3] for i in range(9)]}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    assert load(tmp_path / "t.parquet").classes.names == ("grade I", "grade II", "grade III")
    numbered = datasets.Dataset.from_dict(
        {"image": table["image"], "label": [i % 3 for i in range(9)]},
        features=datasets.Features({"image": datasets.Value("binary"), "label": datasets.ClassLabel(names=names)}),
    )
    numbered.to_parquet(tmp_path / "numbered.parquet")
    cohort = load(tmp_path / "numbered.parquet")
    assert cohort.fingerprint() == load(tmp_path / "t.parquet").fingerprint()


def test_folders_that_a_table_calls_the_same(tmp_path: Path) -> None:
    root = folders(tmp_path / "d", ("one", "two"))
    write_rows(root / "metadata.csv", ("file_name", "label"), [("one/0.png", "One"), ("two/1.png", "two")])
    assert load(root).classes.names == ("one", "two")
    write_rows(root / "metadata.csv", ("file_name", "label"), [("one/0.png", "two"), ("two/1.png", "one")])
    refused(root, '"one/0.png" lies in the folder "one", but metadata.csv calls it two')


# What cannot be


def test_classes_that_are_none(tmp_path: Path) -> None:
    refused(folders(tmp_path / "one", ("only",)), "only one class (only)", "two or more")
    many = folders(tmp_path / "many", [f"c{i}" for i in range(101)], people=1)
    refused(many, "There are 101 classes", "2 to 100", kind=UsageError)
    refused(folders(tmp_path / "words", ("abstain", "fine")), 'cannot be called "abstain"', kind=UsageError)
    refused(folders(tmp_path / "numbers", ("0", "1")), "plain numbers without names", '"0 -> healthy; 1 -> cancer+"')
    twice = folders(tmp_path / "twice" / "train", ("Clear", "Spot"))
    folders(twice.parent / "test", ("clear", "spot"), first=7)
    refused(twice.parent, 'one class in two ways, "Clear" and "clear"', "--classes")
    cohort = load(twice.parent, classes="clear, spot+")
    assert counts(cohort) == {"clear": 4, "spot": 4} and cohort.classes.positive == ("spot",)
    numbers = load(tmp_path / "numbers", classes="0 -> healthy; 1 -> cancer+")
    assert counts(numbers) == {"healthy": 2, "cancer": 2}


# As --classes says


@pytest.mark.parametrize(
    ("text", "names", "positive"),
    [
        ("gamma, alpha, beta", ("gamma", "alpha", "beta"), ()),
        ("beta+,gamma,alpha+", ("beta", "gamma", "alpha"), ("beta", "alpha")),
        ("ALPHA cases; beta, gamma -> disease+", ("ALPHA cases", "disease"), ("disease",)),
        ("alpha -> no; beta -> yes+; gamma", ("no", "yes", "gamma"), ("yes",)),
    ],
)
def test_order_merge_rename_and_mark(
    tmp_path: Path, text: str, names: tuple[str, ...], positive: tuple[str, ...]
) -> None:
    cohort = load(folders(tmp_path / "d", ("alpha", "beta", "gamma")), classes=text)
    assert cohort.classes.names == names and cohort.classes.positive == positive and len(cohort) == 6
    assert cohort.classes.find("alpha") == cohort.classes[cohort.labels[0]]


def test_classes_from_a_yaml_file(tmp_path: Path) -> None:
    root = folders(tmp_path / "d", ("alpha", "beta", "no"))
    file = tmp_path / "classes.yaml"
    file.write_text("classes:\n  no:\n  disease: [alpha, beta, or whatever]\npositive: [disease]\n")
    cohort = load(root, classes=str(file))
    assert counts(cohort) == {"no": 2, "disease": 4} and cohort.classes.positive == ("disease",)
    file.write_text("classes: [beta, no, alpha]\n")
    assert load(root, classes=str(file)).classes.names == ("beta", "no", "alpha")
    for content, text in (
        ("classes: [beta, no]", 'leaves out "alpha"'),
        ("classes: [beta, no, alpha, delta]", 'names "delta"'),
        ("classes: {a: alpha, b: [beta, alpha], no: }", 'puts "alpha" into both'),
        ("classes: [alpha, beta, no]\npositive: [gamma]", 'marks "gamma" positive'),
        ("classes: [alpha, beta, no]\npositive: [alpha, beta, no]", "All classes are marked positive"),
        ("colours: [red]", "needs classes:"),
        ("classes: 3", "needs classes:"),
        ("classes: [alpha", "cannot be read"),
    ):
        file.write_text(content)
        refused(root, text, classes=str(file), kind=UsageError)
    refused(root, "no such file", classes=str(tmp_path / "none.yml"), kind=UsageError)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("alpha", '--classes leaves out "beta", "gamma"'),
        ("alpha, beta, gama", 'names "gama"'),
        ("alpha, beta -> x; beta, gamma -> y", 'puts "beta" into both "x" and "y"'),
        ("alpha, alpha, beta, gamma", 'names "alpha" twice'),
        ("alpha, beta, gamma -> x", "There are 1 classes"),
        ("alpha -> ; beta, gamma", "has an empty place"),
        ("alpha,, beta, gamma", "has an empty place"),
        (" ; ", "--classes is empty"),
        ("alpha+, beta+, gamma+", "All classes are marked positive"),
        ("alpha -> abstain; beta, gamma", 'cannot be called "abstain"'),
    ],
)
def test_what_classes_cannot_say(tmp_path: Path, text: str, sentence: str) -> None:
    refused(folders(tmp_path / "d", ("alpha", "beta", "gamma")), sentence, classes=text, kind=UsageError)


def test_words_that_begin_a_name(tmp_path: Path) -> None:
    root = folders(tmp_path / "d", ("large cell", "small cell", "small round", "clear"))
    cohort = load(root, classes="clear; large, small cell, small round -> cancer+")
    assert counts(cohort) == {"clear": 2, "cancer": 6}
    refused(root, '"small", which may be small cell or small round', classes="clear, large, small", kind=UsageError)


def test_the_classes_of_a_model_may_be_wider_than_the_data(tmp_path: Path) -> None:
    """As evaluating on somebody else's data needs it: the same numbers, whatever is there."""
    model = Classes(("clear", "spot", "rare"), ("spot",), (("flecken", "spot"),))
    cohort = load(folders(tmp_path / "d", ("Flecken", "clear cases")), classes=model)
    assert cohort.classes == model and counts(cohort) == {"clear": 2, "spot": 2, "rare": 0}
    assert load(folders(tmp_path / "e", ("spot",)), classes=model).labels.tolist() == [1, 1]
    refused(folders(tmp_path / "f", ("spot", "other")), "not among clear, spot, rare: other", classes=model)


# Manifests


def test_a_manifest_keeps_names_and_takes_the_order_of_the_classes(tmp_path: Path) -> None:
    root = folders(tmp_path / "d", ("beta", "alpha"), people=6)
    cohort, other = load(root), load(root, classes="beta, alpha+")
    make_split(cohort, folds=3).write_csv(tmp_path / "split.csv")
    assert Split.read(tmp_path / "split.csv").classes.names == ("alpha", "beta")
    split = make_split(other, str(tmp_path / "split.csv"))
    assert split.classes == other.classes and split.hash == make_split(cohort, folds=3).hash
    assert Split.read(tmp_path / "split.csv", other.classes).labels.tolist() == other.labels.tolist()
    with pytest.raises(LungCTError, match='line 2: "(alpha|beta)" is none of the classes one, two'):
        Split.read(tmp_path / "split.csv", Classes(("one", "two")))


def test_labels_given_twice_by_spelling_stay_one_class_in_a_manifest(tmp_path: Path) -> None:
    rows = [(f"{i}.png", f"{i:064x}", ("Bengin", "normal")[i % 2], f"g{i}", "train", 0) for i in range(4)]
    write_rows(tmp_path / "m.csv", ("id", "sha256", "label", "group", "split", "fold"), rows)
    found = Split.read(tmp_path / "m.csv")
    assert found.classes.names == ("normal", "benign") and found.labels.tolist() == [1, 0, 1, 0]
