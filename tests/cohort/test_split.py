"""Splits: disjoint, covering, deterministic, blind to names and order, groups whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lungct_hf.cohort import Cohort, Split, make_split
from lungct_hf.errors import LungCTError, UsageError

from .conftest import draw, load, save


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
    with pytest.raises(LungCTError, match=r'class "normal" has only 4 groups .* 5 folds .*4 folds, or'):
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


def test_given_groups_in_training_and_validation_are_counted(tmp_path: Path) -> None:
    cohort = load(given(tmp_path, {"train": range(5), "val": range(4, 6), "test": range(6, 8)}))
    with pytest.warns(UserWarning, match="leak: 3 groups are both in training and in validation, for example"):
        split = make_split(cohort)
    assert split.groups_crossing == 0 and split.facts()["groups_in_training_and_validation"] == 3


def test_only_a_split_that_meant_to_keep_groups_whole_counts_validation(cohort: Cohort) -> None:
    for protocol in ("grouped", "image"):
        split = make_split(cohort, protocol)
        assert (split.groups_in_training_and_validation > 0) == (protocol == "image")
        assert "groups_in_training_and_validation" not in split.facts()
    everything = replace(split, split=np.full(len(cohort), "train"))
    assert everything.groups_in_training_and_validation == everything.groups_crossing == 0


def test_given_without_a_test_split_is_refused(cohort: Cohort) -> None:
    with pytest.raises(LungCTError, match="no train and test split of their own"):
        make_split(cohort, "given")


def test_an_unknown_protocol_is_a_usage_error(cohort: Cohort) -> None:
    with pytest.raises(UsageError, match='no split protocol and no file "groupd"'):
        make_split(cohort, "groupd")


def test_the_hash_sees_every_field(cohort: Cohort) -> None:
    split = make_split(cohort)
    moved = split.split.copy()
    moved[0] = "test" if moved[0] != "test" else "train"
    others = [replace(split, split=moved), replace(split, fold_of=(split.fold_of + 1) % 5)]
    others += [replace(split, labels=(split.labels + 1) % 3), replace(split, groups=np.roll(split.groups, 1))]
    assert len({split.hash, *(other.hash for other in others)}) == 5
