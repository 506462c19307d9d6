"""A manifest is made again from its own rule, and what differs is named."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lungct_hf.cohort import Cohort, Split, make_split, regroup
from lungct_hf.cohort.manifest import _check_digits
from lungct_hf.cohort.recheck import check_manifest
from lungct_hf.errors import LungCTError, UsageError

from .conftest import load


def forge(manifest: Path, change: Callable[[list[dict[str, str]]], object]) -> None:
    """Edit a manifest as its writer would: with fitting check digits."""
    with manifest.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    change(rows)
    for row in rows:
        row["check"] = _check_digits(row)
    with manifest.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def recheck(tmp_path: Path, **options: object) -> Split:
    return check_manifest(tmp_path / "split.csv", str(tmp_path / "data"), progress=False, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("grouping", ["linked", "similarity", "file-blocks:4"])
@pytest.mark.parametrize("protocol", ["grouped", "image"])
def test_a_manifest_is_what_its_rule_gives(
    make_folder: Callable[..., Path], tmp_path: Path, grouping: str, protocol: str
) -> None:
    cohort = load(make_folder(), grouping=grouping)
    split = make_split(cohort, protocol, fold=3, seed=5, folds=4)
    split.write_csv(tmp_path / "split.csv")
    assert recheck(tmp_path).hash == split.hash
    # Files may be renamed where file numbers do not matter.
    for i, path in enumerate(sorted((tmp_path / "data").rglob("*.png"), reverse=True)):
        path.rename(path.with_name(f"renamed {'abcdefgh'[i % 8]}{i} x.png"))
    if grouping == "similarity":
        assert recheck(tmp_path).hash == split.hash


@pytest.mark.parametrize(
    ("column", "what", "new"),
    [("group", "group", "linked-0123456789ab"), ("fold", "fold", "4"), ("split", "split", "")],
)
def test_a_forged_row_is_named(
    make_folder: Callable[..., Path], tmp_path: Path, column: str, what: str, new: str
) -> None:
    cohort = load(make_folder(slices=1))
    make_split(cohort).write_csv(tmp_path / "split.csv")
    name: list[str] = []

    def change(rows: list[dict[str, str]]) -> None:
        row = next(row for row in rows if row["split"] == "train" and row["fold"] == "2")
        name.append(row["id"])
        row[column] = new or "validation"

    forge(tmp_path / "split.csv", change)
    make_split(cohort, str(tmp_path / "split.csv"))  # nothing contradicts itself; only the rule can tell
    with pytest.raises(LungCTError, match=f"1 slices have another {what}") as error:
        recheck(tmp_path)
    assert f'"{name[0]}" ({new or "validation"}, by the rule ' in str(error.value)


def test_other_cuts_and_other_seeds_are_not_the_rule(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    make_split(load(make_folder())).write_csv(tmp_path / "split.csv")
    forge(tmp_path / "split.csv", lambda rows: [row.update(seed="8") for row in rows])
    with pytest.raises(LungCTError, match="slices have another fold"):
        recheck(tmp_path)
    forge(tmp_path / "split.csv", lambda rows: [row.update(rule=row["rule"] + " new>1") for row in rows])
    with pytest.raises(LungCTError, match="does not belong to the grouping"):
        recheck(tmp_path)
    forge(tmp_path / "split.csv", lambda rows: [row.update(grouping="", rule="") for row in rows])
    with pytest.raises(LungCTError, match="states no rule"):
        recheck(tmp_path)


def test_columns_and_given_splits_are_rechecked(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_folder()
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    lines = [f"{name},p{i // 3},{'test' if i % 18 < 6 else 'train'}" for i, name in enumerate(names)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,patient_id,split", *lines]))
    split = make_split(load(folder), "given")
    split.write_csv(tmp_path / "split.csv")
    assert recheck(tmp_path).hash == split.hash and split.grouping == "column:patient_id"
    (folder / "metadata.csv").write_text("\n".join(["file_name,patient_id,split", *lines]).replace("p4,", "p5,"))
    with pytest.raises(LungCTError, match="3 slices have another group"):
        recheck(tmp_path)


def test_a_rule_with_a_backbone_needs_that_backbone(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    cohort = load(make_folder())
    features = np.eye(len(cohort), dtype=np.float32)
    features[40] = features[0]  # two people whom only the backbone takes for one

    def features_of(_: Cohort, weights: str = "abc") -> tuple[np.ndarray, str]:
        return features, weights

    joined = regroup(cohort, "linked", features=features, weights="abc")
    assert joined.grouping == "linked+backbone" and joined.rule.endswith("backbone>0.965 weights=abc")
    assert len(set(joined.groups)) == len(set(cohort.groups)) - 1
    split = make_split(joined)
    split.write_csv(tmp_path / "split.csv")
    assert recheck(tmp_path, features_of=features_of).hash == split.hash
    with pytest.raises(UsageError, match="--backbone"):
        recheck(tmp_path)
    with pytest.raises(UsageError, match="weights abc, these are other"):
        recheck(tmp_path, features_of=lambda cohort: features_of(cohort, "other"))
