"""Operating points: where classes are marked positive, the question "any positive class" and the cuts of its score.

The score of a slice is the sum of the calibrated probabilities of the positive classes (`decision.positive_score`). A
cut is fitted on validation groups for a sensitivity or a specificity that it keeps there, and judged on test groups:
what it keeps there is the figure. Under a cross-validation each fold's own cuts judge its own test slices.

`operating_block` is what metrics.json stores under "operating":

    positive        the classes that count
    slices, cases   n and groups with and without a positive class; auroc and points, each {value, low, high}:
      points        {"specificity-90": {thresholds: [lowest, highest of the folds], sensitivity, specificity}, ...}, or
                    None where nothing was fitted. Of cases the cuts are those of a slice, their probabilities pooled.
    cautions        what to know before believing them
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..classes import Classes
from ..decision import OPERATING_POINTS, OperatingPoint, pool_probabilities, positive_score
from .bootstrap import FEW_GROUPS, LEVEL, REPLICATES, draw_groups, interval_of, shares
from .figures import areas_under, weights_by_step
from .sample import Sample

FEWEST_GROUPS = 5  # with a positive class, and without: fewer validation groups fit no cut
_GRID = np.linspace(0, 1, 101)


def fit_operating(
    probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray, classes: Classes
) -> tuple[OperatingPoint, ...]:
    """The cuts of OPERATING_POINTS from calibrated predictions (N, C) of held-out groups.

    For a specificity the lowest cut that keeps it, for a sensitivity the highest; halfway to the next score, so that
    rounding moves no slice. None at all where no class is marked or one side has fewer than FEWEST_GROUPS groups.
    """
    if not classes.positive:
        return ()
    positive = np.array(classes.is_positive())[labels]
    if any(len(np.unique(np.asarray(groups)[side])) < FEWEST_GROUPS for side in (positive, ~positive)):
        return ()
    scores = np.unique(positive_score(probabilities, classes))
    halfway = np.concatenate([[scores[0] / 2], (scores[1:] + scores[:-1]) / 2, [(1 + scores[-1]) / 2 + 1e-6]])
    cuts = np.unique(halfway.astype(np.float32).astype(np.float64))  # as stored, for each row and in lungct.json
    found = positive_score(probabilities, classes)
    kept = {
        "sensitivity": 1 - np.searchsorted(np.sort(found[positive]), cuts) / positive.sum(),
        "specificity": np.searchsorted(np.sort(found[~positive]), cuts) / (~positive).sum(),
    }
    made = []
    for name, (figure, target) in OPERATING_POINTS.items():
        enough = np.flatnonzero(kept[figure] >= target - 1e-12)
        made.append(OperatingPoint(name, float(cuts[enough[-1] if figure == "sensitivity" else enough[0]])))
    return tuple(made)


def operating_block(
    sample: Sample, thresholds: np.ndarray | None, *, replicates: int = REPLICATES, seed: int = 0
) -> dict[str, Any]:
    """The block as above for a test sample of which classes are marked positive.

    `thresholds` (N, 4) are the cuts that judge each row, in the order of OPERATING_POINTS.
    """
    cases = sample.cases()
    pooled = None if thresholds is None else pool_probabilities(thresholds, sample.case_of, len(cases))
    blocks = {
        name: _judged(one, cuts, replicates, seed)
        for name, one, cuts in (("slices", sample, thresholds), ("cases", cases, pooled))
    }
    return {"positive": list(sample.classes.positive), **blocks, "cautions": _cautions(blocks["slices"], thresholds)}


def roc_band(
    sample: Sample, *, replicates: int = REPLICATES, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """1 - specificity on a grid (101,), the sensitivity there and the ends of its 95 % band; groups are resampled."""
    positive = _is_positive(sample)
    score = _score(sample)
    point = _sensitivities(*weights_by_step(sample, score, positive, np.ones((1, len(sample.group_names)))))[:, 0]
    drawn = draw_groups(sample.group_labels, replicates, seed).astype(np.float64)
    curves = _sensitivities(*weights_by_step(sample, score, positive, drawn))
    edge = 100 * (1 - LEVEL) / 2
    low, high = np.nanpercentile(curves, [edge, 100 - edge], axis=1)
    return _GRID, point, low, high


def _sensitivities(hits: np.ndarray, misses: np.ndarray) -> np.ndarray:
    """(101, R) the sensitivity at each 1 - specificity of the grid, from the weights (steps, R) from the top down."""
    with np.errstate(invalid="ignore", divide="ignore"):
        true, false = (np.vstack([np.zeros(w.shape[1]), w.cumsum(axis=0)]) / w.sum(axis=0) for w in (hits, misses))
    return np.column_stack([np.interp(_GRID, x, y) for x, y in zip(false.T, true.T, strict=True)])


def _judged(sample: Sample, cuts: np.ndarray | None, replicates: int, seed: int) -> dict[str, Any]:
    positive, score = _is_positive(sample), _score(sample)
    ones = np.ones((1, len(sample.group_names)))
    drawn = draw_groups(sample.group_labels, replicates, seed)
    value = float(areas_under(sample, score, positive, ones)[0][0]) if 0 < positive.sum() < len(sample) else np.nan
    area = areas_under(sample, score, positive, drawn.astype(np.float64))[0]
    block: dict[str, Any] = {
        "n": {"positive": int(positive.sum()), "negative": int((~positive).sum())},
        "groups": {
            "positive": len(np.unique(sample.groups[positive])),
            "negative": len(np.unique(sample.groups[~positive])),
        },
        "auroc": interval_of(value, area, sample),
        "points": None,
    }
    if cuts is None:
        return block
    named = score[:, None] >= cuts
    found = shares(sample, [(cut, positive) for cut in named.T] + [(~cut, ~positive) for cut in named.T], drawn)
    block["points"] = {
        name: {
            "thresholds": [float(cuts[:, k].min()), float(cuts[:, k].max())],
            "sensitivity": found[k],
            "specificity": found[len(OPERATING_POINTS) + k],
        }
        for k, name in enumerate(OPERATING_POINTS)
    }
    return block


def _cautions(slices: dict[str, Any], thresholds: np.ndarray | None) -> list[str]:
    found = []
    if thresholds is None:
        found.append(
            f"There are no thresholds for any positive class: to fit them, {FEWEST_GROUPS} validation groups with one "
            "and as many without are needed."
        )
    for side, what in (("positive", "with"), ("negative", "without")):
        if slices["groups"][side] < FEW_GROUPS:
            found.append(
                f"Only {slices['groups'][side]} test groups are {what} a positive class: "
                "what an operating point reaches on others is hardly known."
            )
    return found


def _score(sample: Sample) -> np.ndarray:
    assert sample.probabilities is not None
    return positive_score(sample.probabilities, sample.classes)


def _is_positive(sample: Sample) -> np.ndarray:
    return np.array(sample.classes.is_positive())[sample.labels]
