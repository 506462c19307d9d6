"""Every figure of a sample, vectorised over weights of its groups, so that a bootstrap is one call.

Definitions, all in natural units (0..1 unless said otherwise):
- sensitivity, specificity, ppv, npv: one class against the others, from the confusion counts.
- balanced accuracy: mean sensitivity over the classes of the sample; 1 / C is chance.
- kappa: Cohen's, unweighted, -1..1.
- auroc: one class against the others, ties count half. average_precision: sum of precision times step in recall over
  the distinct scores, as scikit-learn defines it. Macro: the mean over the classes, undefined when one is absent.
- Two classes have one AUROC between them, so there is `auroc` and no macro_auroc and none for each class; the
  average_precision of the whole is then that of the positive class, and there is none where no class is marked so.
- brier: mean over rows of the squared distance between the probabilities and the one-hot truth, 0..2.
- log_loss: mean negative log of the true class's probability, nats (probabilities below 1e-12 count as that).
- ece: expected calibration error of the highest probability in 15 bins of equal width (k/15, (k+1)/15].
- aurc: area under the risk-coverage curve: the mean error among the n most confident answers over all n; lower is
  better. Answers of equal confidence come and go together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.sparse import coo_array

from ..classes import Classes
from .sample import Sample

ECE_BINS = 15
_BLOCK_CELLS = 1 << 21  # weights held at once: 16 MB
_FLOOR = 1e-12
OVERALL = (
    "accuracy",
    "balanced_accuracy",
    "kappa",
    "macro_auroc",
    "auroc",
    "average_precision",
    "brier",
    "log_loss",
    "ece",
    "aurc",
)
PER_CLASS = ("sensitivity", "specificity", "ppv", "npv", "auroc", "average_precision")

Figures = dict[str, np.ndarray]


def figures(sample: Sample) -> dict[str, Any]:
    """The block that metrics.json stores: n, groups, the figures, the confusion counts and the classes one by one.

    A figure that is undefined, because a class does not occur or is never named, is None and never a guess.
    """
    flat = {name: _plain(values[0]) for name, values in weighted_figures(sample, _ones(sample)).items()}
    counts = confusion_counts(sample)
    block: dict[str, Any] = {"n": len(sample), "groups": len(sample.group_names)}
    block |= {name: flat[name] for name in OVERALL if name in flat}
    block["confusion_matrix"] = counts.tolist()
    block["per_class"] = nested(flat, sample.classes)
    for c, label in enumerate(sample.classes):
        block["per_class"][label] |= {
            "n": int(counts[c].sum()),
            "groups": int(np.sum(sample.group_counts[:, c] > 0)),
        }
    return block


def confusion_counts(sample: Sample) -> np.ndarray:
    """int (C, C): rows are the true class, columns the named one."""
    size = len(sample.classes)
    return np.bincount(sample.labels * size + sample.named, minlength=size**2).reshape(size, size)


def nested(flat: dict[str, Any], classes: Classes) -> dict[str, dict[str, Any]]:
    """{"sensitivity/CLASS": v} as {"CLASS": {"sensitivity": v}} for every class and figure that is there."""
    return {
        label: {name: flat[f"{name}/{label}"] for name in PER_CLASS if f"{name}/{label}" in flat} for label in classes
    }


def weighted_figures(sample: Sample, weights: np.ndarray) -> Figures:
    """Each figure as (R,) for R weightings of the groups: `weights` (R, G) says how often a group counts.

    Names are those of OVERALL and "NAME/CLASS" for PER_CLASS. NaN where a figure is undefined.
    """
    blocks = [_block(sample, part) for part in _parts(sample, weights)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def reliability(sample: Sample, bins: int = ECE_BINS) -> dict[str, np.ndarray]:
    """Per bin of the highest probability: count, mean confidence and accuracy (NaN where empty)."""
    assert sample.probabilities is not None
    confidence, place = _confidence_bins(sample.probabilities, bins)
    count = np.bincount(place, minlength=bins).astype(float)
    right = np.bincount(place, sample.named == sample.labels, minlength=bins)
    total = np.bincount(place, confidence, minlength=bins)
    with np.errstate(invalid="ignore"):
        return {"count": count, "confidence": total / count, "accuracy": right / count}


def _block(sample: Sample, weights: np.ndarray) -> Figures:
    found = _from_confusion(sample, weights)
    if sample.probabilities is None:
        return found
    found |= _from_sums(sample, sample.probabilities, weights)
    per_row = weights[:, sample.group_of]
    areas = [areas_under(sample, p, sample.labels == c, weights) for c, p in enumerate(sample.probabilities.T)]
    found |= {f"average_precision/{label}": area for label, (_, area) in zip(sample.classes, areas, strict=True)}
    if len(areas) > 2:
        found |= {f"auroc/{label}": area for label, (area, _) in zip(sample.classes, areas, strict=True)}
        found["macro_auroc"], found["average_precision"] = np.mean(areas, axis=0)
    else:
        found["auroc"] = areas[1][0]
        if sample.classes.positive:
            found["average_precision"] = areas[sample.classes.is_positive().index(True)][1]
    found["aurc"] = _aurc(per_row, sample.probabilities.max(axis=1), sample.named != sample.labels)
    return found


def _from_confusion(sample: Sample, weights: np.ndarray) -> Figures:
    size, hit = len(sample.classes), sample.named == sample.labels
    cells = np.zeros((3, len(sample.group_names), size))
    np.add.at(cells[0], (sample.group_of, sample.labels), 1)
    np.add.at(cells[1], (sample.group_of, sample.named), 1)
    np.add.at(cells[2], (sample.group_of[hit], sample.labels[hit]), 1)
    true, named, right = weights @ cells  # (R, C) each
    total = true.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        sensitivity = right / true
        rates = {
            "sensitivity": sensitivity,
            "specificity": 1 - (named - right) / (total[:, None] - true),
            "ppv": right / named,
            "npv": 1 - (true - right) / (total[:, None] - named),
        }
        # A class that the sample has but a weighting has not leaves that weighting undefined, not easier.
        occurring = np.bincount(sample.labels, minlength=size) > 0
        accuracy = right.sum(axis=1) / total
        chance = (true * named).sum(axis=1) / total**2
        found = {
            "accuracy": accuracy,
            "balanced_accuracy": sensitivity[:, occurring].mean(axis=1) if occurring.any() else accuracy,
            "kappa": np.where(chance < 1, (accuracy - chance) / (1 - chance), np.nan),
        }
    return found | {
        f"{name}/{label}": rate[:, c] for name, rate in rates.items() for c, label in enumerate(sample.classes)
    }


def _from_sums(sample: Sample, probabilities: np.ndarray, weights: np.ndarray) -> Figures:
    """Figures that are sums over rows: summed once per group, then weighted."""
    truth = np.eye(len(sample.classes))[sample.labels]
    confidence, place = _confidence_bins(probabilities, ECE_BINS)
    groups = len(sample.group_names)
    rows = np.column_stack(
        [
            np.ones(len(sample)),
            ((probabilities - truth) ** 2).sum(axis=1),
            -np.log(np.maximum((probabilities * truth).sum(axis=1), _FLOOR)),
        ]
    )
    sums = np.zeros((groups, rows.shape[1]))
    np.add.at(sums, sample.group_of, rows)
    gaps = np.zeros((groups, ECE_BINS))
    np.add.at(gaps, (sample.group_of, place), confidence - (sample.named == sample.labels))
    total, brier, log_loss = (weights @ sums).T
    with np.errstate(invalid="ignore"):
        return {
            "brier": brier / total,
            "log_loss": log_loss / total,
            "ece": np.abs(weights @ gaps).sum(axis=1) / total,
        }


def _confidence_bins(probabilities: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    confidence = probabilities.max(axis=1)
    return confidence, np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)


def areas_under(
    sample: Sample, scores: np.ndarray, positive: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """AUROC and average precision (R,) of `scores` (N,) for `positive` (N, bool) under group weights (R, G)."""
    hits, misses = weights_by_step(sample, scores, positive, weights)
    true, false = hits.cumsum(axis=0), misses.cumsum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        # A positive beats every negative with a lower score and half of those with the same.
        beaten = false[-1] - false + misses / 2
        auroc = (hits * beaten).sum(axis=0) / (true[-1] * false[-1])
        named = true + false
        precision = np.divide(true, named, out=np.zeros_like(true), where=named > 0)
        return auroc, (hits * precision).sum(axis=0) / true[-1]


def weights_by_step(
    sample: Sample, scores: np.ndarray, positive: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(steps, R) how much weight the positive and the other rows of each step have, from the highest score down.

    Only scores that a positive has are steps of a curve; all scores between two of them are counted as one. So many
    classes cost hardly more than few: each has only its own rows' steps.
    """
    order, starts = _descending(scores)
    has_one = np.add.reduceat(positive[order], starts) > 0
    first = np.concatenate([[True], has_one[1:] | has_one[:-1]])  # runs of scores without a positive become one step
    step_of_score = np.cumsum(first) - 1
    steps, groups = int(step_of_score[-1]) + 1, len(sample.group_names)
    step = np.repeat(step_of_score, np.diff(np.append(starts, len(order))))
    group, hit = sample.group_of[order], positive[order]

    def per_step(rows: np.ndarray) -> np.ndarray:
        """(steps, R) how much weight the rows of each step have."""
        counts = coo_array((np.ones(rows.sum()), (step[rows], group[rows])), shape=(steps, groups)).tocsr()
        return counts @ weights.T

    return per_step(hit), per_step(~hit)


def _aurc(weights: np.ndarray, confidence: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    order, starts = _descending(confidence)
    ordered = weights[:, order]
    answered = np.add.reduceat(ordered, starts, axis=1)
    errors = np.add.reduceat(ordered * wrong[order], starts, axis=1).cumsum(axis=1)
    covered = answered.cumsum(axis=1)
    risk = np.divide(errors, covered, out=np.zeros_like(errors), where=covered > 0)
    with np.errstate(invalid="ignore"):
        return (answered * risk).sum(axis=1) / covered[:, -1]


def _descending(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order from the highest score down, and where each run of equal scores starts in it."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    return order, np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))


def _parts(sample: Sample, weights: np.ndarray) -> Iterator[np.ndarray]:
    """`weights` as float64 in blocks of replicates, so that rows times replicates never lie in memory at once."""
    step = max(1, _BLOCK_CELLS // max(1, len(sample)))
    for start in range(0, len(weights), step):
        yield np.asarray(weights[start : start + step], np.float64)


def _ones(sample: Sample) -> np.ndarray:
    return np.ones((1, len(sample.group_names)))


def _plain(value: np.ndarray) -> float | None:
    return float(value) if np.isfinite(value) else None
