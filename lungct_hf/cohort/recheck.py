"""Make a manifest again from its own rule: the same groups, folds and margin must come out of the same data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import LungCTError, UsageError
from .cohort import Cohort
from .load import load_cohort
from .names import first_few
from .protocols import make_split
from .regroup import regroup
from .rule import Cuts, needs_backbone
from .split import Split

FeaturesOf = Callable[[Cohort], tuple[np.ndarray, str]]


def check_manifest(
    manifest: Path,
    data: str,
    *,
    features_of: FeaturesOf | None = None,
    on_bad_file: Literal["refuse", "skip"] = "refuse",
    progress: bool = True,
) -> Split:
    """The split that `manifest` holds, after `data` and its own rule have given it once more.

    Args:
        features_of: gives a cohort's features and what identifies the backbone; needed if the rule names one.

    Raises:
        UsageError: a backbone is needed, or the one given is another.
        LungCTError: a file differs, or the rule gives other groups, folds or dropped slices. The text names the first.
    """
    stored = Split.read(manifest)
    cohort = _cohort_by_rule(stored, data, features_of, on_bad_file, progress)
    split = make_split(cohort, str(manifest))  # every file is the one that the manifest lists
    again = make_split(
        cohort, stored.protocol, fold=stored.fold, folds=stored.folds, seed=stored.seed, margin=stored.margin
    )
    for what, in_file, by_rule in (
        ("group", split.groups, again.groups),
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


def _cohort_by_rule(
    stored: Split,
    data: str,
    features_of: FeaturesOf | None,
    on_bad_file: Literal["refuse", "skip"],
    progress: bool,
) -> Cohort:
    if stored.grouping == "manifest":
        raise LungCTError("This manifest states no rule, it was made by hand. Fix: make one with `lungct split`.")
    cuts, weights = Cuts.parse(stored.rule, stored.grouping)
    if not needs_backbone(stored.grouping):
        return load_cohort(data, grouping=stored.grouping, cuts=cuts, on_bad_file=on_bad_file, progress=progress)
    if features_of is None:
        raise UsageError(
            f'The rule of this manifest is "{stored.grouping}". Fix: name its weights with --backbone (their sha256 '
            f"begins with {weights})."
        )
    # Any rule will do to load with; "file-blocks:1" looks at no picture.
    cohort = load_cohort(data, grouping="file-blocks:1", on_bad_file=on_bad_file, progress=progress)
    features, used = features_of(cohort)
    if used != weights:
        raise UsageError(f"The manifest was made with the backbone weights {weights}, these are {used}.")
    return regroup(cohort, stored.grouping, features=features, weights=weights, cuts=cuts, progress=progress)
