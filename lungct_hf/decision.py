"""From logits to a decision, the same in every runtime: temperatures, confidence threshold, distance from training.

Only numpy, so that ONNX Runtime without torch and the Space decide as the classifier does. `Calibration` is the block
of lungct.json that holds the rule:

    {"temperature": 0.81, "benign_temperature": 2.4, "folded_into_weights": true,
     "fitted_on": {"groups": 41, "slices": 310},
     "abstain": {"min_confidence": 0.61, "max_distance": 1.84, "target_error": 0.05, "target_met": true,
                 "expected_error": 0.031, "expected_coverage": 0.72,
                 "distance": {"kind": "diagonal-mahalanobis", "centres": ARRAY, "scale": ARRAY}}}

ARRAY is {"shape": [3, 1280], "float32": "..."}: base64 of the little-endian numbers, 27 kB for MobileNetV2 1.0 in all.
What could not be fitted is absent, and "not_fitted" says why.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import LungCTError, UsageError
from .labels import LABELS

NOT_FINITE = "not-finite"
UNLIKE_TRAINING = "unlike-training-data"
LOW_CONFIDENCE = "low-confidence"
# Why a model does not answer, for its readers.
SENTENCES: dict[str, str] = {
    NOT_FINITE: "The network's output for it is not a number.",
    UNLIKE_TRAINING: "It is unlike the slices the model was trained on, so its probabilities mean nothing here.",
    LOW_CONFIDENCE: "No class is likely enough to name one.",
}
DISTANCE = "diagonal-mahalanobis"
POOLING = "mean-probability"  # how the slices of a case become one answer; stored beside every case-level figure


@dataclass(frozen=True)
class Decision:
    """One slice: `label`, or None with the `reason` for which the model abstains. Probabilities are calibrated."""

    label: str | None
    reason: str | None
    confidence: float
    distance: float | None
    probabilities: dict[str, float]


# What sets benign apart from normal in logits in the order of LABELS; what is left sets malignant apart from both.
_BENIGN_CONTRAST = np.array([[0.5, -0.5, 0.0], [-0.5, 0.5, 0.0], [0.0, 0.0, 0.0]])


def tempering(temperature: float, benign_temperature: float) -> np.ndarray:
    """The matrix (3, 3) that calibrates logits, `logits @ tempering(...)`.

    How far malignant is from the others is divided by `temperature`, how far benign is from normal by
    `benign_temperature`: the two questions are not equally hard, and one number cannot serve both. With equal
    temperatures this is temperature scaling (Guo et al. 2017, arXiv 1706.04599). Symmetric; the inverse is that of the
    reciprocal temperatures.
    """
    return (np.eye(len(LABELS)) - _BENIGN_CONTRAST) / temperature + _BENIGN_CONTRAST / benign_temperature


def contrasts(logits: np.ndarray) -> np.ndarray:
    """Logits (N, 3) as the two parts (2, N, 3) that `tempering` divides; their sum is the logits."""
    return np.stack([logits @ tempering(1, np.inf), logits @ tempering(np.inf, 1)])


@dataclass(frozen=True, eq=False)
class FeatureDistance:
    """How far pooled features (N, D) are from those of the training slices, in units of their own scatter.

    The root mean square over D of (feature - centre) / scale for the nearest of the class centres (3, D): about 1 for
    slices like those trained on. `scale` (D,) is the scatter within a class, floored.
    """

    centres: np.ndarray
    scale: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(N,) distances; infinite where a feature is not finite."""
        features = np.asarray(features, np.float64)
        if features.ndim != 2 or features.shape[1] != len(self.scale):
            raise UsageError(f"Features have the shape {features.shape}, needed: (N, {len(self.scale)}).")
        squares = [np.mean(((features - centre) / self.scale) ** 2, axis=1) for centre in self.centres]
        nearest = np.sqrt(np.min(squares, axis=0))
        return np.where(np.isfinite(nearest), nearest, np.inf)

    def to_json(self) -> dict[str, Any]:
        return {"kind": DISTANCE, "centres": _packed(self.centres), "scale": _packed(self.scale)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> FeatureDistance:
        if record["kind"] != DISTANCE:
            raise ValueError(f"the distance {record['kind']!r} is not known")
        centres, scale = _unpacked(record["centres"]), _unpacked(record["scale"])
        if centres.shape != (len(LABELS), *scale.shape) or scale.ndim != 1 or not (scale > 0).all():
            raise ValueError("the arrays of the distance do not fit each other")
        return cls(centres, scale)


@dataclass(frozen=True)
class AbstainRule:
    """Answer when the confidence is at least `min_confidence` and the distance at most `max_distance`.

    `expected_error` (among answers, 0..1) and `expected_coverage` (answers of all) were measured on the held-out
    groups that chose the thresholds; `target_met` says whether `target_error` could be kept there with the guard that
    calibration.fit_abstain describes.
    """

    min_confidence: float
    max_distance: float | None = None
    target_error: float = 0.05
    target_met: bool = False
    expected_error: float | None = None
    expected_coverage: float | None = None
    distance: FeatureDistance | None = None

    def to_json(self) -> dict[str, Any]:
        record = {name: getattr(self, name) for name in _RULE_FIELDS}
        return record | {"distance": self.distance.to_json() if self.distance else None}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> AbstainRule:
        values = {name: record[name] for name in _RULE_FIELDS}
        distance = record.get("distance")
        rule = cls(**values, distance=FeatureDistance.from_json(distance) if distance else None)
        if (rule.distance is None) != (rule.max_distance is None):
            raise ValueError("max_distance and distance must come together")
        return rule


@dataclass(frozen=True)
class Calibration:
    """Temperatures (`tempering`) and abstain rule of a model; without `benign_temperature` both are `temperature`.

    With `folded` they are already in the last layer's weights (`fold_calibration`), so the logits are calibrated as
    every library computes them, and `decide` must not divide again. `not_fitted` says in a sentence what could not be
    fitted and why; then that part is absent (temperatures 1, no rule, or a rule without distance).
    """

    temperature: float = 1.0
    benign_temperature: float | None = None
    folded: bool = False
    abstain: AbstainRule | None = None
    fitted_on: Mapping[str, int] = field(default_factory=dict)
    not_fitted: str | None = None

    @property
    def matrix(self) -> np.ndarray:
        """(3, 3): raw logits times it are calibrated."""
        return tempering(self.temperature, self.benign_temperature or self.temperature)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float64 (N, 3), from the logits (N, 3) that the stored network gives."""
        logits = np.asarray(logits, np.float64)
        logits = logits if self.folded else logits @ self.matrix
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def to_json(self) -> dict[str, Any]:
        """The block for lungct.json."""
        return {
            "temperature": self.temperature,
            "benign_temperature": self.benign_temperature or self.temperature,
            "folded_into_weights": self.folded,
            "fitted_on": dict(self.fitted_on),
            "abstain": self.abstain.to_json() if self.abstain else None,
        } | ({"not_fitted": self.not_fitted} if self.not_fitted else {})

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Calibration:
        """Read the block back. Raises LungCTError when it is incomplete or of a kind this version does not know."""
        try:
            temperature, abstain = float(record["temperature"]), record.get("abstain")
            benign = float(record.get("benign_temperature", temperature))  # older models have one for both
            if not all(np.isfinite(value) and value > 0 for value in (temperature, benign)):
                raise ValueError(f"the temperatures are {temperature} and {benign}")
            return cls(
                temperature=temperature,
                benign_temperature=benign,
                folded=bool(record["folded_into_weights"]),
                abstain=AbstainRule.from_json(abstain) if abstain else None,
                fitted_on=dict(record.get("fitted_on") or {}),
                not_fitted=record.get("not_fitted"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise LungCTError(
                f"The calibration in lungct.json cannot be read ({error!r}). Fix: pip install --upgrade lungct-hf, or "
                "load a model that this package wrote."
            ) from error


def decide(
    calibration: Calibration,
    logits: np.ndarray,
    features: np.ndarray | None = None,
    *,
    distance: np.ndarray | None = None,
) -> list[Decision]:
    """One decision per row of `logits` (N, 3); `features` (N, D) are those before the last layer.

    `distance` (N,) may stand in for the features where other networks measured it. Reasons to abstain, the first that
    holds: a value is not finite, the slice is unlike the training data, the confidence is too low. Raises UsageError
    when the rule needs features and none are given.
    """
    logits = np.asarray(logits, np.float64).reshape(-1, len(LABELS))
    rule = calibration.abstain
    finite = np.asarray(np.isfinite(logits).all(axis=1))
    probabilities = calibration.probabilities(np.where(finite[:, None], logits, 0.0))
    confidence = probabilities.max(axis=1)
    if distance is None or rule is None or rule.distance is None:
        distance = measure(calibration, features, len(logits))
    reasons = why_not(rule, confidence, distance)
    rows = []
    for i, row in enumerate(probabilities):
        reason = reasons[i] if finite[i] else NOT_FINITE
        rows.append(
            Decision(
                label=None if reason else LABELS[int(row.argmax())],
                reason=reason,
                confidence=float(confidence[i]) if finite[i] else 0.0,
                distance=None if distance is None else float(distance[i]),
                probabilities=dict(zip(LABELS, row.tolist(), strict=True)),
            )
        )
    return rows


def pool_probabilities(probabilities: np.ndarray, unit: np.ndarray, units: int) -> np.ndarray:
    """The probabilities of the slices (N, 3) of each case `unit` (N,) averaged: float64 (units, 3).

    This is how several slices become one answer, in the figures (where it is named POOLING) and in a runtime.
    """
    totals = np.zeros((units, len(LABELS)))
    np.add.at(totals, unit, probabilities)
    return totals / np.bincount(unit, minlength=units)[:, None]


def decide_case(calibration: Calibration, probabilities: np.ndarray, distances: np.ndarray | None = None) -> Decision:
    """One decision for a case's slices: their probabilities (N, 3) averaged, of their distances (N,) the median.

    The thresholds are those of a slice. They were not measured on cases, so a case's abstentions promise no error
    rate. Raises UsageError for no slices.
    """
    probabilities = np.asarray(probabilities, np.float64).reshape(-1, len(LABELS))
    if not len(probabilities):
        raise UsageError("A case needs at least one slice.")
    pooled = pool_probabilities(probabilities, np.zeros(len(probabilities), np.int64), 1)
    distance = None if distances is None else np.median(np.asarray(distances, np.float64), keepdims=True)
    confidence = pooled.max(axis=1)
    reason = why_not(calibration.abstain, confidence, distance)[0]
    return Decision(
        label=None if reason else LABELS[int(pooled[0].argmax())],
        reason=reason,
        confidence=float(confidence[0]),
        distance=None if distance is None else float(distance[0]),
        probabilities=dict(zip(LABELS, pooled[0].tolist(), strict=True)),
    )


def measure(calibration: Calibration, features: np.ndarray | None, rows: int) -> np.ndarray | None:
    """The distances (N,) that the rule looks at, None when it looks at none."""
    rule = calibration.abstain
    if rule is None or rule.distance is None:
        return None
    if features is None:
        raise UsageError("This model's abstain rule looks at features, and none were given with the logits.")
    found = rule.distance(np.asarray(features))
    if len(found) != rows:
        raise UsageError(f"{rows} rows of logits came with {len(found)} rows of features.")
    return found


def why_not(rule: AbstainRule | None, confidence: np.ndarray, distance: np.ndarray | None) -> list[str | None]:
    """For each row the reason not to answer, None where the model answers."""
    reasons: list[str | None] = [None] * len(confidence)
    if rule is None:
        return reasons
    far = np.zeros(len(confidence), bool) if distance is None else ~(distance <= (rule.max_distance or 0.0))
    for i in np.flatnonzero(~(confidence >= rule.min_confidence)):
        reasons[i] = LOW_CONFIDENCE
    for i in np.flatnonzero(far):
        reasons[i] = UNLIKE_TRAINING
    return reasons


_RULE_FIELDS = (
    "min_confidence",
    "max_distance",
    "target_error",
    "target_met",
    "expected_error",
    "expected_coverage",
)


def _packed(values: np.ndarray) -> dict[str, Any]:
    content = np.ascontiguousarray(values, dtype="<f4")
    return {"shape": list(content.shape), "float32": base64.b64encode(content.tobytes()).decode("ascii")}


def _unpacked(record: Mapping[str, Any]) -> np.ndarray:
    flat = np.frombuffer(base64.b64decode(record["float32"], validate=True), dtype="<f4")
    values = flat.reshape(record["shape"]).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a stored array holds values that are not finite")
    return values
