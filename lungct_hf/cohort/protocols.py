"""The ways to split a cohort: by group, by image, as the data say, or as a manifest says.

The margin drops slices too like a test slice from training, whatever group they are in; a manifest finds its slices by
their bytes and label, so that renamed files are found as well.
"""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import LungCTError, UsageError
from .cohort import Cohort
from .folds import canonical_order, grouped_folds, image_folds, units
from .manifest import PROTOCOLS
from .names import SPLITS, first_few
from .similarity import closest
from .split import Split


def make_split(
    cohort: Cohort,
    protocol: str = "auto",
    *,
    fold: int = 0,
    folds: int = 5,
    seed: int = 0,
    margin: float | None = None,
) -> Split:
    """Split `cohort`; the result depends on the pictures, labels and groups, not on file names or their order.

    Args:
        protocol: "grouped" (stratified, groups whole), "image" (stratified by image, leaks near-copies: the paper's
            protocol), "given" (the data's own; validation is carved out of train by group if there is none), "auto"
            (given if the data have a train and a test split, else grouped), or the path of a manifest (.csv).
        fold: which fold is the test set; the next one is validation.
        margin: drop training and validation slices whose thumbnail correlates with a test slice above this, even when
            they are in other groups. A manifest has its own margin; this one must then be None.

    Raises:
        UsageError: the arguments make no sense together.
        LungCTError: the data do not allow this split, or do not match the manifest.
    """
    if protocol not in ("auto", *PROTOCOLS):
        if margin is not None:
            raise UsageError(f'The split manifest "{Path(protocol).name}" has its own margin. Fix: leave it out.')
        return _from_manifest(cohort, protocol)
    if folds < 3:
        raise UsageError(f"{folds} folds were asked for; at least 3 are needed (train, validation, test).")
    if not 0 <= fold < folds:
        raise UsageError(f"Fold {fold} was asked for; with {folds} folds it is one of 0 to {folds - 1}.")
    if not 0 <= seed < 2**32:
        raise UsageError(f"The seed is {seed}; it must be between 0 and {2**32 - 1}.")
    if protocol == "auto":
        protocol = "given" if {"train", "test"} <= set(cohort.given_splits) else "grouped"
    if protocol == "given":
        split, fold_of = _given(cohort, fold, folds, seed), np.full(len(cohort), -1)
    else:
        fold_of = _folds(cohort, protocol, folds, seed)
        split = np.full(len(cohort), "train", dtype="<U10")
        split[fold_of == (fold + 1) % folds] = "validation"
        split[fold_of == fold] = "test"
    reasons = list(cohort.reasons)
    if margin is not None:
        split, dropped = drop_near(split, cohort.thumbs48, cohort.ids, margin)
        for row, reason in dropped.items():
            reasons[row] = f"{reasons[row]}; {reason}"
    made = Split(
        protocol=protocol,
        grouping=cohort.grouping,
        fold=fold,
        folds=folds,
        seed=seed,
        split=split,
        fold_of=fold_of,
        ids=cohort.ids,
        sha256=cohort.sha256,
        labels=cohort.labels,
        groups=cohort.groups,
        margin=margin,
        rule=cohort.rule,
        reasons=tuple(reasons),
        classes=cohort.classes,
    )
    return _checked(made)


def _folds(cohort: Cohort, protocol: str, folds: int, seed: int) -> np.ndarray:
    order = canonical_order(cohort.sha256, cohort.labels, cohort.groups, cohort.ids)
    fold_of = np.empty(len(cohort), dtype=np.int64)
    if protocol == "image":
        fold_of[order] = image_folds(cohort.labels[order], cohort.classes, folds, seed)
    else:
        members = units(cohort.groups, cohort.sha256)[order]
        fold_of[order] = grouped_folds(cohort.labels[order], members, cohort.classes, folds, seed)
    return fold_of


def _given(cohort: Cohort, fold: int, folds: int, seed: int) -> np.ndarray:
    split = cohort.given_splits.astype("<U10")
    counts = Counter(split.tolist())
    if not counts["train"] or not counts["test"]:
        found = ", ".join(f"{name} ({counts[name]})" for name in SPLITS if counts[name]) or "none"
        raise LungCTError(
            f'The data "{cohort.source}" have no train and test split of their own (found: {found}). Fix: use '
            f"--split grouped, or give them such splits."
        )
    if counts[""]:
        without = cohort.ids[split == ""].tolist()
        raise LungCTError(
            f"{len(without)} slices are in none of the splits {', '.join(SPLITS)}: {first_few(without, 5)}. Fix: put "
            f"them in one, or use --split grouped."
        )
    if not counts["validation"]:
        rows = np.flatnonzero(split == "train")
        part = [cohort.sha256[rows], cohort.labels[rows], cohort.groups[rows], cohort.ids[rows]]
        rows = rows[canonical_order(*part)]
        members, labels = units(cohort.groups, cohort.sha256)[rows], cohort.labels[rows]
        # A training split with few groups still gets a validation set, only a larger one.
        smallest = min(len(set(members[labels == i].tolist())) for i in range(len(cohort.classes)))
        parts = min(folds, max(smallest, 2))
        chosen = grouped_folds(labels, members, cohort.classes, parts, seed, "the training split") == fold % parts
        split[rows[chosen]] = "validation"
    return split


def _from_manifest(cohort: Cohort, protocol: str) -> Split:
    path = Path(protocol).expanduser()
    if not path.is_file():
        raise UsageError(
            f'There is no split protocol and no file "{protocol}". Needed: auto, {", ".join(PROTOCOLS)}, or the path '
            f"of a split manifest (.csv)."
        )
    stored = Split.read(path, cohort.classes)
    rows = match_rows(path.name, stored.ids, stored.sha256, stored.labels, cohort)
    aligned = replace(
        stored,
        split=stored.split[rows],
        fold_of=stored.fold_of[rows],
        groups=stored.groups[rows],
        reasons=tuple(stored.reasons[row] for row in rows.tolist()),
        ids=cohort.ids,
        sha256=cohort.sha256,
        labels=cohort.labels,
        classes=cohort.classes,
    )
    if aligned.protocol == "grouped" and (aligned.groups_crossing or aligned.groups_in_training_and_validation):
        raise LungCTError(
            f'"{path.name}" is a grouped split, but {aligned.describe_crossing()}. A row has been moved. Fix: restore '
            f"the manifest, give all rows of a group the same split, or make a new split."
        )
    return _checked(aligned)


def _checked(split: Split) -> Split:
    wider = "" if split.margin is None else f", a higher margin than {split.margin:g}"
    for name, counts in split.counts().items():
        missing = [label for label, count in counts.items() if not count]
        if missing:
            raise LungCTError(
                f"The {name} split has no {' and no '.join(missing)} slices (protocol {split.protocol}). Every class "
                f"is needed in train, validation and test. Fix: another split{wider}, or more cases."
            )
    if split.protocol == "given" and (split.groups_crossing or split.groups_in_training_and_validation):
        warnings.warn(f"The data's own splits leak: {split.describe_crossing()}.", stacklevel=3)
    return split


def drop_near(
    split: np.ndarray, thumbs48: np.ndarray, ids: np.ndarray, margin: float
) -> tuple[np.ndarray, dict[int, str]]:
    """`split` with "dropped" for each training or validation slice too like a test slice, and {row: reason}.

    Args:
        split: str (N,) of train, validation and test.
        thumbs48: uint8 (N, 48, 48); too like is a correlation above `margin`.

    Raises:
        UsageError: `margin` is no correlation.
    """
    if not 0 < margin < 1:
        raise UsageError(f"The margin is {margin:g}; it is a correlation, between 0 and 1 (for example 0.95).")
    rows, test = np.flatnonzero(split != "test"), np.flatnonzero(split == "test")
    value, nearest = closest(thumbs48, rows, test)
    kept = split.copy()
    near = value > margin
    kept[rows[near]] = "dropped"
    reasons = {
        int(row): f"dropped: thumbnail {correlation:.3f} with {ids[other]}"
        for row, correlation, other in zip(rows[near], value[near], nearest[near], strict=True)
    }
    return kept, reasons


def match_rows(shown: str, ids: np.ndarray, sha256: np.ndarray, labels: np.ndarray, cohort: Cohort) -> np.ndarray:
    """For each slice of `cohort` the manifest row with the same bytes and label; renamed files are found by sha256.

    Raises:
        LungCTError: a slice of the manifest is missing (copies count one by one) or changed, its label differs, or the
            data have more files. The text names the first few.
    """
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, sha in enumerate(sha256.tolist()):
        rows_of[sha].append(row)
    matched = np.full(len(cohort), -1, dtype=np.int64)
    waiting: list[int] = []
    names = dict(zip(ids.tolist(), range(len(ids)), strict=True))
    for i, (name, sha, label) in enumerate(
        zip(cohort.ids.tolist(), cohort.sha256.tolist(), cohort.labels, strict=True)
    ):
        namesake = names.get(name)
        if namesake is not None and sha256[namesake] == sha and labels[namesake] == label:
            matched[i] = namesake
            rows_of[sha].remove(namesake)
        else:
            waiting.append(i)
    problems: dict[str, list[str]] = defaultdict(list)
    named: set[str] = set()  # of the rows that a problem has told of
    for i in waiting:
        name, label = str(cohort.ids[i]), int(cohort.labels[i])
        left = rows_of[str(cohort.sha256[i])]
        same = [row for row in left if labels[row] == label]
        if same:
            matched[i] = same[0]
            left.remove(same[0])
        elif left:
            named.add(name)
            was = cohort.classes[int(labels[left.pop(0)])]
            problems["with another label"].append(f'"{name}" ({cohort.classes[label]}, in the manifest {was})')
        elif name in names:
            named.add(name)
            problems["with other bytes"].append(f'"{name}"')
        else:
            problems["that the manifest does not list"].append(f'"{name}"')
    here = set(cohort.ids.tolist())
    for name in (str(ids[row]) for rows in rows_of.values() for row in rows):
        # A name that is still there tells nothing: another slice of the manifest may have been moved over it.
        if name not in named:
            now = " (that file now holds another slice)" if name in here else ""
            problems["missing from the data"].append(f'"{name}"{now}')
    if problems:
        text = "; ".join(f"{len(found)} {what}: {first_few(found, 5)}" for what, found in problems.items())
        raise LungCTError(
            f'The data do not match the split manifest "{shown}". Files {text}. Fix: restore these files, or make a '
            f"new split."
        )
    return matched
