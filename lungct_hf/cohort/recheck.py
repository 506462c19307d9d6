"""Make a manifest again from its own rule: the same groups, folds and margin must come out of the same data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import LungCTError, UsageError
from .cohort import Cohort
from .link import regroup
from .load import load_cohort
from .names import first_few
from .protocols import make_split
from .rule import Cuts, needs_backbone
from .split import Split

FeaturesOf = Callable[[Cohort], tuple[np.ndarray, str]]


def check_manifest(
    manifest: Path,
    data: str,
    *,
    features_of: FeaturesOf | None = None,
    progress: bool = True,
    **how: Any,
) -> Split:
    """The split that `manifest` holds, after `data` and its own rule have given it once more.

    Groups that are keyed hashes need not have the same names, for the key is not at hand, but the same slices.

    Args:
        how: how `load_cohort` is to read the data (classes, labels, slices, window, on_bad_file).
        features_of: gives a cohort's features and what identifies the backbone; needed if the rule names one.

    Raises:
        UsageError: a backbone is needed, or the one given is another.
        LungCTError: a file differs, or the rule gives other groups, folds or dropped slices. The text names the first.
    """
    stored = Split.read(manifest)
    cohort = _cohort_by_rule(stored, data, features_of, progress, how)
    split = make_split(cohort, str(manifest))  # every file is the one that the manifest lists
    again = make_split(
        cohort, stored.protocol, fold=stored.fold, folds=stored.folds, seed=stored.seed, margin=stored.margin
    )
    is_hashed = stored.grouping.startswith(("header:", "column:")) and bool(set(cohort.scans) - {""})
    for what, in_file, by_rule in (
        ("group", split.groups, _renamed(again.groups, split.groups) if is_hashed else again.groups),
        ("fold", split.fold_of, again.fold_of),
        ("split", split.split, again.split),
    ):
        wrong = np.flatnonzero(in_file != by_rule)
        if len(wrong):
            listed = [f'"{split.ids[i]}" ({in_file[i]}, by the rule {by_rule[i]})' for i in wrong]
            raise LungCTError(
                f'"{manifest.name}" is not what its own rule gives ({stored.protocol}, {stored.grouping}, seed '
                f"{stored.seed}): {len(wrong)} slices have another {what}: {first_few(listed, 5)}. Fix: "
                f"restore it, or make a new split."
            )
    return split


def _renamed(groups: np.ndarray, names: np.ndarray) -> np.ndarray:
    """`groups` under the names that their first slices have in `names`, each name for one group only."""
    name_of: dict[str, str] = {}
    for group, name in zip(groups.tolist(), names.tolist(), strict=True):
        if group not in name_of:
            name_of[group] = name if name not in name_of.values() else f"{name} once more"
    return np.asarray([name_of[group] for group in groups.tolist()], dtype=np.str_)


def _cohort_by_rule(
    stored: Split, data: str, features_of: FeaturesOf | None, progress: bool, how: dict[str, Any]
) -> Cohort:
    if stored.grouping == "manifest":
        raise LungCTError("This manifest states no rule, it was made by hand. Fix: make one with `lungct split`.")
    cuts, weights = Cuts.parse(stored.rule, stored.grouping)
    if not needs_backbone(stored.grouping):
        return load_cohort(data, grouping=stored.grouping, cuts=cuts, progress=progress, **how)
    if features_of is None:
        raise UsageError(
            f'The rule of this manifest is "{stored.grouping}". Fix: name its weights with --backbone (their sha256 '
            f"begins with {weights})."
        )
    # Any rule will do to load with; "file-blocks:1" looks at no picture.
    cohort = load_cohort(data, grouping="file-blocks:1", progress=progress, **how)
    features, used = features_of(cohort)
    if used != weights:
        raise UsageError(f"The manifest was made with the backbone weights {weights}, these are {used}.")
    return regroup(cohort, stored.grouping, features=features, weights=weights, cuts=cuts, progress=progress)
