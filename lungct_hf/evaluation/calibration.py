"""Fit what decision.py applies: the temperatures and the thresholds for "I don't know", on held-out groups only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from ..decision import AbstainRule, Calibration, FeatureDistance, contrasts, tempering
from ..errors import UsageError
from ..labels import LABELS
from .sample import softmax

BLOCKS = ((0, 1), (2,))
TEMPERATURES = (0.05, 20.0)
KEPT = 0.99  # share of the held-out slices that the distance threshold lets pass
_FLOOR = 0.05  # a feature counts with at least this share of the mean scatter, or a dead one would decide alone


def fit_temperatures(logits: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None) -> tuple[float, float]:
    """The two temperatures of `tempering` at which the log loss on held-out slices (N, 3) is lowest.

    Where nothing was answered wrongly that loss falls for ever as a temperature goes to 0. So the truth is softened by
    half a group more: each label keeps 1 - e, the other two share e = 0.5 / (groups + 1); no confidence is claimed
    beyond what that many groups can show. Without `groups` every slice counts as one. Both are kept within
    TEMPERATURES; a contrast that is the same for all slices and 0 gives 1.

    Raises UsageError for an empty set or values that are not finite.
    """
    logits, labels = np.asarray(logits, np.float64).reshape(-1, len(LABELS)), np.asarray(labels)
    if not len(labels) or len(labels) != len(logits) or not np.isfinite(logits).all():
        raise UsageError("Temperatures need at least one slice, a label for each, and finite logits.")
    softened = 0.5 / ((len(labels) if groups is None else len(set(np.asarray(groups).tolist()))) + 1)
    truth = np.full(logits.shape, softened / (len(LABELS) - 1))
    truth[np.arange(len(labels)), labels] = 1 - softened
    # Logits are linear in the inverse temperatures, in which the loss is convex: one minimum.
    parts = contrasts(logits, BLOCKS)
    parts -= parts.mean(axis=2, keepdims=True)

    def loss(inverse: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = np.tensordot(inverse, parts, 1)
        probabilities = softmax(scaled)
        value = np.mean(logsumexp(scaled, axis=1) - (truth * scaled).sum(axis=1))
        return float(value), ((probabilities - truth) * parts).sum(axis=2).mean(axis=1)

    bounds = [(1 / TEMPERATURES[1], 1 / TEMPERATURES[0])] * 2
    exact = {"ftol": 1e-14, "gtol": 1e-9}
    found = minimize(loss, np.ones(2), jac=True, bounds=bounds, method="L-BFGS-B", options=exact)
    temperature, benign = (
        float(1 / inverse) if np.abs(part).max() > 1e-6 else 1.0 for inverse, part in zip(found.x, parts, strict=True)
    )
    return temperature, benign


def fold_calibration(weight: np.ndarray, bias: np.ndarray, calibration: Calibration) -> tuple[np.ndarray, np.ndarray]:
    """Weight (3, D) and bias (3,) of a last layer whose logits are calibrated.

    So timm, transformers, ONNX Runtime and a browser give calibrated probabilities without knowing lungct.json.
    """
    matrix = calibration.matrix(len(weight))
    return (matrix @ weight).astype(weight.dtype), (matrix @ bias).astype(bias.dtype)


def fit_distance(features: np.ndarray, labels: np.ndarray) -> FeatureDistance:
    """Class centres and the scatter within classes from the features (N, D) of training slices of all classes."""
    features, labels = np.asarray(features, np.float64), np.asarray(labels)
    missing = [label for c, label in enumerate(LABELS) if not np.any(labels == c)]
    if missing or not np.isfinite(features).all():
        raise UsageError(f"The distance needs finite features of every class; without slices: {missing or 'none'}.")
    centres = np.stack([features[labels == c].mean(axis=0) for c in range(len(LABELS))])
    scatter = np.sqrt(np.mean((features - centres[labels]) ** 2, axis=0))
    if not scatter.mean() > 0:
        raise UsageError("The features of the training slices are all equal, so no distance can be measured.")
    # As stored, so that what is decided now is what is decided after reading.
    scale = np.maximum(scatter, _FLOOR * scatter.mean()).astype(np.float32).astype(np.float64)
    return FeatureDistance(centres.astype(np.float32).astype(np.float64), scale)


def fit_abstain(
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    target_error: float = 0.05,
    distance: FeatureDistance | None = None,
    distances: np.ndarray | None = None,
) -> AbstainRule:
    """Thresholds from calibrated predictions of held-out groups: as many answers as the target error allows.

    First the distance: its threshold is the KEPT quantile of `distances`, so that it refuses what is unlike the
    training data and hardly any proper slice. Then, among what passes, the lowest confidence threshold at which
    (errors + m) / (answers + m) is at most `target_error`, m being the mean number of answers in a group that is
    answered: as if one more group had been answered and all of it wrongly. That guards against few groups: a target of
    5 % needs at least 19 answered groups, even without an error. When no threshold does it, the one with the lowest
    such bound is taken and `target_met` is False. `expected_error` and `expected_coverage` are what these very slices
    gave, without the guard.
    """
    if not 0 < target_error < 1:
        raise UsageError(f"The target error is {target_error}; it must lie between 0 and 1.")
    if not len(labels) or (distance is None) != (distances is None):
        raise UsageError("Thresholds need held-out slices, and the distance together with its values for them.")
    limit = None if distances is None else _up(float(np.quantile(distances, KEPT)))
    passing = np.ones(len(labels), bool) if distances is None else distances <= limit
    confidence, wrong = probabilities.max(axis=1), probabilities.argmax(axis=1) != labels
    order = np.flatnonzero(passing)[np.argsort(-confidence[passing], kind="stable")]
    ranked = confidence[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # equal confidences are answered together
    first = np.zeros(len(order))
    first[np.unique(np.asarray(groups)[order], return_index=True)[1]] = 1
    answers, errors, met = ends + 1.0, wrong[order].cumsum()[ends], first.cumsum()[ends]
    extra = answers / met
    bound = (errors + extra) / (answers + extra)
    good = np.flatnonzero(bound <= target_error)
    chosen = int(good[-1]) if len(good) else int(np.flatnonzero(bound <= bound.min() + 1e-12)[-1])
    return AbstainRule(
        min_confidence=_down(float(ranked[ends[chosen]])),
        max_distance=limit,
        target_error=target_error,
        target_met=bool(len(good)),
        expected_error=float(errors[chosen] / answers[chosen]),
        expected_coverage=float(answers[chosen] / len(labels)),
        distance=distance,
    )


def fit_calibration(
    logits: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    target_error: float = 0.05,
    features: np.ndarray | None = None,
    training: tuple[np.ndarray, np.ndarray] | None = None,
    distances: np.ndarray | None = None,
    folded: bool = True,
) -> Calibration:
    """Temperatures and abstain rule from the logits of held-out groups, before any calibration.

    With `training` = (features, labels) of the training slices, and of the held-out slices their `features` or their
    `distances` (where networks of their own measured them), the rule also looks at the distance. `folded` says that
    the caller folds the temperatures into the last layer.
    """
    temperature, benign = fit_temperatures(logits, labels, groups)
    distance = fit_distance(*training) if training is not None else None
    if distance is not None and features is not None:
        distances = distance(features)
    rule = fit_abstain(
        softmax(np.asarray(logits) @ tempering(len(LABELS), temperature, benign, BLOCKS)),
        np.asarray(labels),
        np.asarray(groups),
        target_error=target_error,
        distance=distance,
        distances=distances,
    )
    held_out: Mapping[str, int] = {"slices": len(labels), "groups": len(set(np.asarray(groups).tolist()))}
    return Calibration(temperature, benign, BLOCKS, folded=folded, abstain=rule, fitted_on=held_out)


def risk_coverage(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """How the error among answers falls as the least confident are left out.

    `coverage`, `risk` and `threshold` (K,), one entry per distinct confidence from the highest down; `aurc` as
    figures.py defines it.
    """
    confidence, wrong = probabilities.max(axis=1), probabilities.argmax(axis=1) != labels
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    risk = wrong[order].cumsum()[ends] / (ends + 1)
    return {
        "coverage": (ends + 1) / len(order),
        "risk": risk,
        "threshold": ranked[ends],
        "aurc": float(np.average(risk, weights=np.diff(ends, prepend=-1))),
    }


def _down(value: float) -> float:
    """Rounded so that what just passed still passes."""
    return float(np.floor(value * 1e6) / 1e6)


def _up(value: float) -> float:
    return float(np.ceil(value * 1e6) / 1e6)
