"""Manifests: the same split again from renamed files, and every difference from the data is named."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lungct_hf.cohort import Cohort, Split, make_split
from lungct_hf.errors import LungCTError, UsageError

from .conftest import draw, load, save


@pytest.fixture
def manifest(cohort: Cohort, tmp_path: Path) -> Path:
    make_split(cohort, fold=2, seed=1).write_csv(tmp_path / "split.csv")
    return tmp_path / "split.csv"


def edit(manifest: Path, change: Callable[[list[dict[str, str]]], object]) -> None:
    with manifest.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    change(rows)
    fields = list(rows[0])
    with manifest.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, fields)
        writer.writeheader()
        writer.writerows(rows)


def test_a_manifest_gives_the_same_split_again(cohort: Cohort, manifest: Path) -> None:
    again, made = make_split(cohort, str(manifest)), make_split(cohort, fold=2, seed=1)
    assert again.hash == made.hash and np.array_equal(again.split, made.split)
    assert (again.protocol, again.grouping, again.fold, again.folds, again.seed) == ("grouped", "linked", 2, 5, 1)
    assert Split.read(manifest).hash == made.hash
    edit(manifest, lambda rows: rows.reverse())
    assert make_split(cohort, str(manifest)).hash == made.hash
    assert not list(manifest.parent.glob(".*tmp"))


def test_renamed_files_are_found_by_their_bytes(cohort: Cohort, manifest: Path, tmp_path: Path) -> None:
    for i, path in enumerate(sorted((tmp_path / "data").rglob("*.png"))):
        path.rename(path.with_name(f"renamed {7 * i % 54}-{i}.png"))
    assert make_split(load(tmp_path / "data"), str(manifest)).hash == make_split(cohort, str(manifest)).hash


def test_each_difference_fails_with_the_name_of_the_file(manifest: Path, tmp_path: Path) -> None:
    normal, benign = tmp_path / "data" / "Normal cases", tmp_path / "data" / "Bengin cases"
    original = (normal / "Normal case (1).png").read_bytes()

    def refused(*needed: str) -> None:
        with pytest.raises(LungCTError) as error:
            make_split(load(tmp_path / "data"), str(manifest))
        assert all(text in str(error.value) for text in needed), str(error.value)

    (normal / "Normal case (1).png").rename(benign / "moved.png")
    refused("1 with another label", '"Bengin cases/moved.png" (benign, in the manifest normal)')
    (benign / "moved.png").unlink()
    refused("1 missing from the data", '"Normal cases/Normal case (1).png"')
    save(draw(999, 0), normal / "Normal case (1).png")
    refused("1 with other bytes", '"Normal cases/Normal case (1).png"')
    (normal / "Normal case (1).png").write_bytes(original)
    save(draw(999, 0), normal / "extra.png")
    refused("1 that the manifest does not list", '"Normal cases/extra.png"')


def test_a_slice_overwritten_with_another_is_missing(manifest: Path, tmp_path: Path) -> None:
    normal = tmp_path / "data" / "Normal cases"
    (normal / "Normal case (2).png").replace(normal / "Normal case (1).png")
    with pytest.raises(LungCTError, match="Files 1 missing from the data: ") as error:
        make_split(load(tmp_path / "data"), str(manifest))
    assert '"Normal cases/Normal case (1).png" (that file now holds another slice)' in str(error.value)


def test_each_copy_of_a_slice_has_a_row_of_its_own(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    normal = make_folder() / "Normal cases"
    shutil.copy(normal / "Normal case (1).png", normal / "copy.png")
    made = make_split(load(tmp_path / "data"))
    made.write_csv(tmp_path / "split.csv")
    (normal / "copy.png").rename(normal / "renamed.png")
    assert make_split(load(tmp_path / "data"), str(tmp_path / "split.csv")).hash == made.hash
    (normal / "Normal case (1).png").unlink()
    with pytest.raises(LungCTError, match=r'Files 1 missing from the data: "Normal cases/[^"]*"\. '):
        make_split(load(tmp_path / "data"), str(tmp_path / "split.csv"))


def test_an_id_listed_twice_is_refused(cohort: Cohort, manifest: Path) -> None:
    names: list[str] = []

    def change(rows: list[dict[str, str]]) -> None:
        names.append(rows[4]["id"])
        rows.append(rows[4] | {"split": "test"})
        for row in rows:
            del row["check"]

    edit(manifest, change)
    with pytest.raises(LungCTError, match="lists 1 ids more than once") as error:
        make_split(cohort, str(manifest))
    assert f'"{names[0]}"' in str(error.value)


def test_rows_of_another_split_are_refused(cohort: Cohort, manifest: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    make_split(cohort, fold=2, seed=8).write_csv(other)
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([*lines[:-1], other.read_text().splitlines()[-1]]))
    with pytest.raises(LungCTError, match='the column seed is "1" for .* and "8" for') as error:
        make_split(cohort, str(manifest))
    assert f'"{lines[-1].split(",")[0]}"' in str(error.value)


@pytest.mark.parametrize(
    ("column", "value"),
    [("split", "train"), ("fold", "0"), ("group", "linked-0"), ("label", "normal"), ("seed", "7"), ("test_fold", "3")],
)
def test_an_edited_row_fails_with_its_name(cohort: Cohort, manifest: Path, column: str, value: str) -> None:
    names = []

    def move(rows: list[dict[str, str]]) -> None:
        row = next(row for row in rows if row["split"] == "test" and row["label"] != "normal")
        names.append(row["id"])
        row[column] = value

    edit(manifest, move)
    with pytest.raises(LungCTError, match="1 rows no longer fit their check digits") as error:
        make_split(cohort, str(manifest))
    assert f'"{names[0]}"' in str(error.value)


def by_hand(rows: list[dict[str, str]]) -> None:
    kept = ("id", "sha256", "label", "group", "split", "fold")
    rows[:] = [{name: row[name] for name in kept} for row in rows]


@pytest.mark.parametrize(
    ("side", "to", "sentence"),
    [
        ("test", "train", "1 groups are both in test and outside it"),
        ("validation", "train", "1 groups are both in training and in validation"),
        ("train", "validation", "1 groups are both in training and in validation"),
    ],
)
def test_a_manifest_made_by_hand_needs_no_check_digits_but_its_groups_must_not_cross(
    cohort: Cohort, manifest: Path, side: str, to: str, sentence: str
) -> None:
    names = []

    def move(rows: list[dict[str, str]]) -> None:
        row = next(row for row in rows if row["split"] == side)
        row["split"] = to
        names.append(row["id"])

    edit(manifest, by_hand)
    assert make_split(cohort, str(manifest)).grouping == "manifest"
    edit(manifest, move)
    with pytest.raises(LungCTError, match=sentence) as error:
        make_split(cohort, str(manifest))
    assert f'"{names[0]}" ({to})' in str(error.value) and "Fix: " in str(error.value)


def test_validation_does_not_rotate_through_folds_that_part_groups(cohort: Cohort, manifest: Path) -> None:
    def move(rows: list[dict[str, str]]) -> None:
        row = next(row for row in rows if row["split"] == "train" and row["fold"] == "0")
        row["fold"] = "1"

    edit(manifest, by_hand)
    assert len(make_split(cohort, str(manifest)).rotated()) == 4
    edit(manifest, move)
    split = make_split(cohort, str(manifest))
    with pytest.raises(UsageError, match="--rotate-validation: the folds part groups: in one turn 1 groups are both"):
        split.rotated()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no column id, sha256, label, group, split, fold .found: nothing, it is empty"),
        ("id,sha256,label\n", "has no column group, split, fold"),
        ("id,sha256,label,group,split,fold\n", "lists no slices"),
        ("id,sha256,label,group,split,fold\na,zz,normal,g,train,0\n", 'line 2: "zz" is not a sha256'),
        ("id,sha256,label,group,split,fold\na,b\n", "line 2: it has another number of cells"),
        (f"id,sha256,label,group,split,fold\na,{'0' * 64},fine,g,train,0\n", '"fine" is none of the classes'),
        (f"id,sha256,label,group,split,fold\na,{'0' * 64},normal,g,later,0\n", '"later" is none of the splits'),
        (f"id,sha256,label,group,split,fold\na,{'0' * 64},normal,g,train,x\n", 'the fold "x" is not a number'),
        ("\x00\xff", "cannot be read|has no column"),
    ],
)
def test_a_malformed_manifest_says_what_is_wrong(cohort: Cohort, tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "m.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(LungCTError, match=sentence):
        make_split(cohort, str(tmp_path / "m.csv"))


def test_an_unwritable_manifest_is_one_sentence(cohort: Cohort, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LungCTError, match="cannot be written"):
        make_split(cohort).write_csv(tmp_path / "file" / "split.csv")
