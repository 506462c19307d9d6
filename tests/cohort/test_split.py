"""Splits: disjoint, covering, deterministic, blind to names and order, groups whole; manifests checked."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lungct_hf.cohort import Cohort, Split, make_split
from lungct_hf.errors import LungCTError, UsageError

from .conftest import draw, load, save


@pytest.fixture
def cohort(make_folder: Callable[..., Path]) -> Cohort:
    return load(make_folder())


def by_sha(split: Split) -> dict[str, tuple[str, int, str]]:
    return dict(zip(split.sha256, zip(split.split, split.fold_of, split.groups, strict=True), strict=True))


@pytest.mark.parametrize("protocol", ["grouped", "image"])
def test_every_slice_is_in_exactly_one_split_and_each_fold_is_tested_once(cohort: Cohort, protocol: str) -> None:
    tested = np.zeros(len(cohort), int)
    for fold in range(5):
        split = make_split(cohort, protocol, fold=fold)
        parts = [split.indices(name) for name in ("train", "validation", "test")]
        assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(cohort)))
        assert all(count > 0 for counts in split.counts().values() for count in counts.values())
        assert set(split.fold_of[split.indices("validation")]) == {(fold + 1) % 5}
        tested[split.indices("test")] += 1
    assert (tested == 1).all()


def test_groups_stay_whole_and_classes_stay_balanced(cohort: Cohort) -> None:
    split = make_split(cohort)
    assert split.protocol == "grouped" and split.grouping == "linked" and split.groups_crossing == 0
    for group in set(cohort.groups):
        assert len(set(split.split[cohort.groups == group])) == 1
    shares = np.array([list(counts.values()) for counts in split.counts().values()]) / len(cohort) * 3
    assert np.allclose(shares, shares.mean(axis=1, keepdims=True), atol=0.17)  # one group is 1/6 of a class
    assert split.group_counts()["test"]["benign"] >= 1


def test_image_protocol_leaks_and_says_so(cohort: Cohort) -> None:
    assert make_split(cohort, "image").groups_crossing > 0


def test_order_and_names_of_files_do_not_matter(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    first, second = load(make_folder("a")), load(make_folder("b", reverse=True))
    renamed = tmp_path / "c"
    for path in sorted((tmp_path / "a").rglob("*.png")):
        target = renamed / path.parent.name.split()[0].lower() / f"z{path.read_bytes()[-20:-12].hex()}{path.stem}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for protocol in ("grouped", "image"):
        splits = [make_split(each, protocol, seed=3) for each in (first, second, load(renamed))]
        assert by_sha(splits[0]) == by_sha(splits[1]) == by_sha(splits[2])
        assert splits[0].hash == splits[1].hash == splits[2].hash
    assert make_split(first, seed=4).hash != make_split(first, seed=3).hash
    assert first.ids.tolist() == second.ids.tolist()


def test_identical_files_stay_together_even_when_a_column_parts_them(tmp_path: Path) -> None:
    lines = ["file_name,patient_id"]
    for c, label in enumerate(("normal", "benign", "malignant")):
        for p in range(6):
            # Person 1 has the same picture as person 0, under another patient id.
            save(draw(100 * c + max(p, 1), 0), tmp_path / "data" / label / f"{p}.png")
            lines.append(f"{label}/{p}.png,{label}{p}")
    (tmp_path / "data" / "metadata.csv").write_text("\n".join(lines))
    cohort = load(tmp_path / "data")
    for seed in range(5):
        split = make_split(cohort, folds=3, seed=seed)
        assert split.groups_crossing == 0
        for sha in set(cohort.sha256):
            assert len(set(split.split[cohort.sha256 == sha])) == 1


def test_fewer_groups_than_folds_names_the_class(make_folder: Callable[..., Path]) -> None:
    cohort = load(make_folder(people=4))
    with pytest.raises(LungCTError, match=r"class normal has only 4 groups .* 5 folds .*4 folds, or"):
        make_split(cohort)
    assert make_split(cohort, folds=4).groups_crossing == 0


@pytest.mark.parametrize(("fold", "folds", "seed"), [(5, 5, 0), (-1, 5, 0), (0, 2, 0), (0, 5, -1)])
def test_impossible_numbers_are_usage_errors(cohort: Cohort, fold: int, folds: int, seed: int) -> None:
    with pytest.raises(UsageError):
        make_split(cohort, "grouped", fold=fold, folds=folds, seed=seed)


def given(tmp_path: Path, splits: dict[str, range], slices: int = 2) -> Path:
    for name, people in splits.items():
        for c, label in enumerate(("normal", "benign", "malignant")):
            for p in people:
                for s in range(slices):
                    save(
                        draw(100 * c + p, s + (10 if name == "test" else 0)),
                        tmp_path / "d" / name / label / f"p{p}s{s}.png",
                    )
    return tmp_path / "d"


def test_given_splits_are_used_and_validation_is_carved_by_group(tmp_path: Path) -> None:
    cohort = load(given(tmp_path, {"train": range(6), "test": range(6, 8)}))
    split = make_split(cohort)
    assert split.protocol == "given" and split.groups_crossing == 0
    assert set(cohort.given_splits[split.indices("test")]) == {"test"}
    assert not set(split.groups[split.indices("validation")]) & set(split.groups[split.indices("train")])
    assert make_split(cohort, "grouped").protocol == "grouped"


def test_given_validation_is_kept_and_leaks_are_counted(tmp_path: Path) -> None:
    cohort = load(given(tmp_path, {"train": range(4), "val": range(4, 6), "test": range(3, 8)}))
    with pytest.warns(UserWarning, match="9 groups are both in test and outside it"):
        split = make_split(cohort)
    assert split.groups_crossing == 9
    assert np.array_equal(split.split, cohort.given_splits)


def test_given_without_a_test_split_is_refused(cohort: Cohort) -> None:
    with pytest.raises(LungCTError, match="no train and test split of their own"):
        make_split(cohort, "given")


# Manifests


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


def test_a_manifest_made_by_hand_needs_no_check_digits_but_its_groups_must_not_cross(
    cohort: Cohort, manifest: Path
) -> None:
    names = []

    def move(rows: list[dict[str, str]]) -> None:
        row = next(row for row in rows if row["split"] == "test")
        row["split"] = "train"
        names.append(row["id"])

    def drop_columns(rows: list[dict[str, str]]) -> None:
        kept = ("id", "sha256", "label", "group", "split", "fold")
        rows[:] = [{name: row[name] for name in kept} for row in rows]

    edit(manifest, drop_columns)
    assert make_split(cohort, str(manifest)).grouping == "manifest"
    edit(manifest, move)
    with pytest.raises(LungCTError, match="1 groups are both in test and outside it") as error:
        make_split(cohort, str(manifest))
    assert f'"{names[0]}" (train)' in str(error.value)


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


def test_an_unknown_protocol_is_a_usage_error(cohort: Cohort) -> None:
    with pytest.raises(UsageError, match='no split protocol and no file "groupd"'):
        make_split(cohort, "groupd")


def test_an_unwritable_manifest_is_one_sentence(cohort: Cohort, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LungCTError, match="cannot be written"):
        make_split(cohort).write_csv(tmp_path / "file" / "split.csv")


def test_the_hash_sees_every_field(cohort: Cohort) -> None:
    split = make_split(cohort)
    moved = split.split.copy()
    moved[0] = "test" if moved[0] != "test" else "train"
    others = [replace(split, split=moved), replace(split, fold_of=(split.fold_of + 1) % 5)]
    others += [replace(split, labels=(split.labels + 1) % 3), replace(split, groups=np.roll(split.groups, 1))]
    assert len({split.hash, *(other.hash for other in others)}) == 5
