"""The margin: no slice left in training is too like a test slice, and what it dropped is named in the manifest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lungct_hf.cohort import Cohort, Split, make_split
from lungct_hf.cohort.recheck import check_manifest
from lungct_hf.cohort.summary import summarise
from lungct_hf.errors import LungCTError, UsageError

from .conftest import load


@pytest.fixture
def cohort(make_folder: Callable[..., Path]) -> Cohort:
    # Blocks of two files cut through people of three slices: near-copies on both sides of the split.
    return load(make_folder(people=10), grouping="file-blocks:2")


def too_like(cohort: Cohort, split: Split, name: str) -> np.ndarray:
    correlation = np.corrcoef(cohort.thumbs48.reshape(len(cohort), -1))
    return correlation[np.ix_(split.indices(name), split.indices("test"))]


@pytest.mark.parametrize("protocol", ["grouped", "image"])
@pytest.mark.parametrize("margin", [0.9, 0.98])
def test_nothing_above_the_margin_is_left(cohort: Cohort, protocol: str, margin: float) -> None:
    whole, split = make_split(cohort, protocol), make_split(cohort, protocol, margin=margin)
    assert too_like(cohort, whole, "train").max() > margin
    for name in ("train", "validation"):
        assert too_like(cohort, split, name).max() <= margin + 1e-5
    dropped = split.indices("dropped")
    assert len(dropped) and (too_like(cohort, split, "dropped").max(axis=1) > margin - 1e-5).all()
    assert np.array_equal(split.indices("test"), whole.indices("test")) and split.hash != whole.hash
    assert set(split.split) == {"train", "validation", "test", "dropped"}
    assert np.array_equal(split.fold_of, whole.fold_of)
    for i in range(len(cohort)):
        assert ("; dropped: thumbnail 0." in split.reasons[i]) == (i in dropped)
    assert summarise(split)["parts"]["dropped"]["all"]["slices"] == len(dropped)


def test_a_margin_takes_near_copies_out_of_an_image_level_split(cohort: Cohort) -> None:
    assert make_split(cohort, "image").groups_crossing > make_split(cohort, "image", margin=0.9).groups_crossing


def test_a_margin_survives_the_manifest(cohort: Cohort, tmp_path: Path) -> None:
    split = make_split(cohort, margin=0.95, fold=1)
    split.write_csv(tmp_path / "split.csv")
    again = make_split(cohort, str(tmp_path / "split.csv"))
    assert again.hash == split.hash and again.margin == 0.95 and again.reasons == split.reasons
    assert check_manifest(tmp_path / "split.csv", str(tmp_path / "data"), progress=False).hash == split.hash
    with pytest.raises(UsageError, match="its own margin"):
        make_split(cohort, str(tmp_path / "split.csv"), margin=0.9)


@pytest.mark.parametrize("margin", [0.9999999, 1e-7, 0.97531246813])
def test_a_margin_of_many_digits_survives_the_manifest(cohort: Cohort, tmp_path: Path, margin: float) -> None:
    replace(make_split(cohort), margin=margin).write_csv(tmp_path / "split.csv")
    assert Split.read(tmp_path / "split.csv").margin == margin


def test_a_margin_that_leaves_nothing_or_means_nothing(cohort: Cohort) -> None:
    with pytest.raises(LungCTError, match="has no normal and no benign .* a higher margin than 0.001"):
        make_split(cohort, margin=0.001)
    for margin in (0.0, 1.0, 95.0, float("nan")):
        with pytest.raises(UsageError, match="between 0 and 1"):
            make_split(cohort, margin=margin)
