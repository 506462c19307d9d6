"""Intervals by resampling groups: slices of one person are not independent, so persons are drawn, not slices.

Groups are drawn with replacement within their class (the group's majority class), as many as there are: the class mix
is part of a data set's design, not of chance, and no replicate loses a class. 95 % intervals are the 2.5th and 97.5th
percentile of the replicates, with three exceptions that are said in the result:
- `exact`: a share of exactly 0 or 1 cannot vary in a bootstrap. Its far end is the exact binomial bound for as many
  trials as there are groups (0.025 ** (1 / groups)).
- ECE is an absolute value, so resampling raises it; its interval is moved down by that bias and cut at 0.
- no interval (None) where a class has a single group, or where more than 5 % of the replicates leave the figure
  undefined; `undefined` is their share.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import UsageError
from .figures import OVERALL, nested, weighted_figures
from .sample import Sample

LEVEL = 0.95
REPLICATES = 2000
FEW_GROUPS = 10  # below this many groups of a class an interval is too narrow, and the result says so
_MOSTLY = 0.05
_SHARES = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "ppv", "npv")

Interval = dict[str, Any]


def method(replicates: int = REPLICATES, seed: int = 0) -> dict[str, Any]:
    """How the intervals are made, for metrics.json."""
    return {
        "unit": "group",
        "strata": "majority class of the group",
        "interval": "percentile",
        "level": LEVEL,
        "replicates": replicates,
        "seed": seed,
    }


def draw_groups(strata: np.ndarray, replicates: int, seed: int) -> np.ndarray:
    """How often each group is drawn, (replicates, G): within each stratum as many draws as it has groups."""
    rng = np.random.default_rng(seed)
    drawn = np.zeros((replicates, len(strata)), np.int32)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        drawn[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=replicates)
    return drawn


def intervals(sample: Sample, *, replicates: int = REPLICATES, seed: int = 0) -> dict[str, Any]:
    """{figure: {value, low, high}} for every figure of `figures`, and the same per class under "per_class"."""
    values = weighted_figures(sample, np.ones((1, len(sample.group_names))))
    drawn = weighted_figures(sample, draw_groups(sample.group_labels, replicates, seed))
    alone = bool(_groups_per_class(sample).min() < 2)
    flat = {name: _interval(name, float(values[name][0]), drawn[name], sample, alone) for name in values}
    return {name: flat[name] for name in OVERALL if name in flat} | {"per_class": nested(flat, sample.classes)}


def share(
    sample: Sample, part: np.ndarray, whole: np.ndarray, *, replicates: int = REPLICATES, seed: int = 0
) -> Interval:
    """{value, low, high} of the share of the rows `whole` (N, bool) that are in `part` as well."""
    return shares(sample, [(part, whole)], draw_groups(sample.group_labels, replicates, seed))[0]


def shares(sample: Sample, asked: list[tuple[np.ndarray, np.ndarray]], drawn: np.ndarray) -> list[Interval]:
    """As `share`, of each (part, whole), under the same draws (R, G) of the groups."""
    found = []
    for part, whole in asked:
        sums = np.zeros((len(sample.group_names), 2))
        np.add.at(sums, sample.group_of, np.column_stack([part & whole, whole]))
        parts, total = sums.sum(axis=0)
        if total and parts in (0, total):
            found.append(_exact(float(parts / total), int(np.sum(sums[:, 1] > 0))))
            continue
        replicate = drawn @ sums
        with np.errstate(invalid="ignore"):
            ratio = replicate[:, 0] / replicate[:, 1]
        found.append(interval_of(float(parts / total) if total else float("nan"), ratio, sample))
    return found


def interval_of(value: float, drawn: np.ndarray, sample: Sample) -> Interval:
    """{value, low, high} of a figure from its replicates (R,) over the groups of `sample`."""
    return _percentiles(value, drawn, bool(_groups_per_class(sample).min() < 2))


def cautions(sample: Sample) -> list[str]:
    """What a reader must know before believing the intervals."""
    found = []
    for label, count in zip(_present(sample), _groups_per_class(sample), strict=True):
        if count < 2:
            found.append(f"{label} has a single group, so no interval can be given.")
        elif count < FEW_GROUPS:
            found.append(f"{label} has only {count} groups: the intervals are too narrow.")
    mixed = sample.mixed_groups
    if mixed:
        shown = ", ".join(mixed[:5]) + (", ..." if len(mixed) > 5 else "")
        found.append(f"{len(mixed)} groups hold slices of more than one class: {shown}.")
    return found


def paired_difference(a: Sample, b: Sample, *, replicates: int = REPLICATES, seed: int = 0) -> dict[str, Any]:
    """{figure: {value, low, high, a, b}} of `a` minus `b`, two models on the same slices.

    Each replicate draws the same groups for both, so that what both find hard cancels out. Rows may be in another
    order and there may be another number of seeds. Raises UsageError when the slices, labels or groups differ, or the
    classes do.
    """
    _check_classes(a, b)
    if _content(a) != _content(b):
        only = len(_content(a) ^ _content(b))
        raise UsageError(
            f"The two sets of predictions are not about the same slices ({only} slices, labels or groups differ). "
            "Fix: predict the same slices with both models."
        )
    return difference(a, b, replicates=replicates, seed=seed)


def difference(a: Sample, b: Sample, *, replicates: int = REPLICATES, seed: int = 0) -> dict[str, Any]:
    """As `paired_difference`, for samples that need not hold the same slices.

    Paired where both have the same groups with the same majority classes, else each side is drawn by itself (which is
    wider). "paired" in the result says which. Raises UsageError when the classes differ.
    """
    _check_classes(a, b)
    if a.probabilities is None or b.probabilities is None:  # the slow figures would have no counterpart
        a, b = replace(a, probabilities=None), replace(b, probabilities=None)
    paired = np.array_equal(a.group_names, b.group_names) and np.array_equal(a.group_labels, b.group_labels)
    first = draw_groups(a.group_labels, replicates, seed)
    second = first if paired else draw_groups(b.group_labels, replicates, seed + 1)
    points = [weighted_figures(side, np.ones((1, len(side.group_names)))) for side in (a, b)]
    drawn = weighted_figures(a, first), weighted_figures(b, second)
    alone = bool(min(_groups_per_class(a).min(), _groups_per_class(b).min()) < 2)
    flat: dict[str, Interval] = {}
    for name in points[0]:
        one, other = float(points[0][name][0]), float(points[1][name][0])
        apart = drawn[0][name] - drawn[1][name]
        made = _percentiles(one - other, apart, alone)
        if not alone and not apart.any():  # the same answers
            made |= {"low": 0.0, "high": 0.0}
        flat[name] = made | {"a": _plain(one), "b": _plain(other)}
    return {"paired": paired, **{n: flat[n] for n in OVERALL if n in flat}, "per_class": nested(flat, a.classes)}


def _interval(name: str, value: float, drawn: np.ndarray, sample: Sample, alone: bool) -> Interval:
    figure, _, label = name.partition("/")
    if figure in _SHARES and value in (0.0, 1.0) and not alone:
        return _exact(value, _trials(figure, label, sample))
    made = _percentiles(value, drawn, alone)
    if figure == "ece" and made["low"] is not None:
        bias = max(0.0, float(np.nanmean(drawn)) - value)
        made |= {"low": max(0.0, made["low"] - bias), "high": max(0.0, made["high"] - bias)}
    return made


def _exact(value: float, trials: int) -> Interval:
    """Clopper and Pearson's bounds of a share of 0 or 1 in that many trials."""
    reach = ((1 - LEVEL) / 2) ** (1 / trials)
    low, high = (reach, 1.0) if value == 1.0 else (0.0, 1 - reach)
    return {"value": value, "low": round(low, 6), "high": round(high, 6), "exact": True}


def _percentiles(value: float, drawn: np.ndarray, alone: bool) -> Interval:
    defined = drawn[np.isfinite(drawn)]
    missing = 1 - len(defined) / len(drawn)
    found: Interval = {"value": _plain(value), "low": None, "high": None}
    if missing:
        found["undefined"] = round(missing, 4)
    if alone or not np.isfinite(value) or missing > _MOSTLY:
        return found
    if np.ptp(defined) == 0:  # the draws do not know how sure the figure is: no interval, not one of no width
        found["constant"] = True
    else:
        edge = 100 * (1 - LEVEL) / 2
        found["low"], found["high"] = (round(float(v), 6) for v in np.percentile(defined, [edge, 100 - edge]))
    return found


def _trials(figure: str, label: str, sample: Sample) -> int:
    """Groups that the share is about; for balanced accuracy those of the rarest class."""
    c = sample.classes.index(label) if label else -1
    rows = {
        "sensitivity": sample.labels == c,
        "specificity": sample.labels != c,
        "ppv": sample.named == c,
        "npv": sample.named != c,
    }.get(figure)
    if figure == "balanced_accuracy":
        return int(_groups_per_class(sample).min())
    return len(sample.group_names) if rows is None else max(1, len(np.unique(sample.group_of[rows])))


def _present(sample: Sample) -> list[str]:
    return [label for c, label in enumerate(sample.classes) if np.any(sample.labels == c)]


def _groups_per_class(sample: Sample) -> np.ndarray:
    """For each class that occurs, in how many groups; [0] for an empty sample."""
    counts = (sample.group_counts > 0).sum(axis=0)
    return counts[counts > 0] if counts.any() else np.zeros(1, np.int64)


def _check_classes(a: Sample, b: Sample) -> None:
    if a.classes.names != b.classes.names:
        raise UsageError(
            f"The predictions are of other classes: {', '.join(a.classes)} and {', '.join(b.classes)}. Fix: compare "
            "models of the same classes in the same order."
        )


def _content(sample: Sample) -> set[tuple[str, int, str]]:
    return set(zip(sample.keys.tolist(), sample.labels.tolist(), sample.groups.tolist(), strict=True))


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
