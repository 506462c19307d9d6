"""From logits to a decision, the same in every runtime: temperatures, confidence threshold, distance from training.

Only numpy, so that ONNX Runtime without torch and the Space decide as the classifier does. C is the number of classes.
`Calibration` is the block of lungct.json that holds the rule:

    {"temperature": 0.81, "within_temperature": 2.4, "blocks": [[0, 1], [2]], "folded_into_weights": true,
     "fitted_on": {"groups": 41, "slices": 310},
     "abstain": {"min_confidence": 0.61, "max_distance": 1.84, "target_error": 0.05, "target_met": true,
                 "expected_error": 0.031, "expected_coverage": 0.72,
                 "distance": {"kind": "diagonal-mahalanobis", "centres": ARRAY, "scale": ARRAY}},
     "operating": [{"name": "specificity-90", "threshold": 0.42}, ...]}

ARRAY is {"shape": [C, 1280], "float32": "..."}: base64 of the little-endian numbers, 27 kB for three classes.
What could not be fitted is absent, and "not_fitted" says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from .arrays import packed, unpacked
from .classes import Classes
from .errors import LungCTError, UsageError
from .guard import KIND as SOURCE_KIND
from .guard import UNLIKE_SOURCE, SourceDistance

NOT_FINITE = "not-finite"
UNLIKE_TRAINING = "unlike-training-data"
LOW_CONFIDENCE = "low-confidence"
# Why a model does not answer, for its readers.
SENTENCES: dict[str, str] = {
    NOT_FINITE: "The network's output for it is not a number.",
    UNLIKE_SOURCE: "It was made differently from the slices the model learned from, so nothing is known about its "
    "answers there.",
    UNLIKE_TRAINING: "It is unlike the slices the model was trained on, so its probabilities mean nothing here.",
    LOW_CONFIDENCE: "No class is likely enough to name one.",
}
# What helps, where something does.
WHAT_TO_DO: dict[str, str] = {
    UNLIKE_SOURCE: "What to do: train a model on slices from there, or at least test this one on them.",
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

    @property
    def likely(self) -> str:
        """The most probable class, also where the model does not stand by it."""
        return max(self.probabilities, key=self.probabilities.__getitem__)


Blocks = tuple[tuple[int, ...], ...]  # class numbers, each once: classes that are hard to tell from each other


def within_blocks(classes: int, blocks: Blocks) -> np.ndarray:
    """The projection (C, C) onto what tells the classes of one block from each other; the rest tells the blocks apart.

    It is 0 where every class is a block of its own, or all are one.
    """
    projection = np.zeros((classes, classes))
    for block in blocks if len(blocks) > 1 else ():
        places = np.ix_(block, block)
        projection[places] = np.eye(len(block)) - 1 / len(block)
    return projection


def tempering(classes: int, temperature: float, within: float, blocks: Blocks) -> np.ndarray:
    """The matrix (C, C) that calibrates logits, `logits @ tempering(...)`.

    How far the blocks of classes are from each other is divided by `temperature`, how far the classes of one block are
    from each other by `within`: the two questions are not equally hard, and one number cannot serve both. With equal
    temperatures, or a single block, this is temperature scaling (Guo et al. 2017, arXiv 1706.04599). Symmetric; the
    inverse is that of the reciprocal temperatures.
    """
    inside = within_blocks(classes, blocks)
    return (np.eye(classes) - inside) / temperature + inside / within


def contrasts(logits: np.ndarray, blocks: Blocks) -> np.ndarray:
    """Logits (N, C) as the two parts (2, N, C) that `tempering` divides; their sum is the logits."""
    inside = logits @ within_blocks(logits.shape[1], blocks)
    return np.stack([logits - inside, inside])


@dataclass(frozen=True, eq=False)
class FeatureDistance:
    """How far pooled features (N, D) are from those of the training slices, as models of schema 1 measure it.

    The root mean square over D of (feature - centre) / scale for the nearest of the class centres (C, D): about 1 for
    slices like those trained on. `scale` (D,) is the scatter within a class, floored.
    """

    centres: np.ndarray
    scale: np.ndarray
    reason: ClassVar[str] = UNLIKE_TRAINING
    output: ClassVar[str] = "features"

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(N,) distances; infinite where a feature is not finite."""
        features = np.asarray(features, np.float64)
        if features.ndim != 2 or features.shape[1] != len(self.scale):
            raise UsageError(f"Features have the shape {features.shape}, needed: (N, {len(self.scale)}).")
        squares = [np.mean(((features - centre) / self.scale) ** 2, axis=1) for centre in self.centres]
        nearest = np.sqrt(np.min(squares, axis=0))
        return np.where(np.isfinite(nearest), nearest, np.inf)

    def to_json(self) -> dict[str, Any]:
        return {"kind": DISTANCE, "centres": packed(self.centres), "scale": packed(self.scale)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> FeatureDistance:
        if record["kind"] != DISTANCE:
            raise ValueError(f"the distance {record['kind']!r} is not known")
        centres, scale = unpacked(record["centres"]), unpacked(record["scale"])
        if centres.shape[1:] != scale.shape or scale.ndim != 1 or not (scale > 0).all():
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
    distance: FeatureDistance | SourceDistance | None = None

    def to_json(self) -> dict[str, Any]:
        record = {name: getattr(self, name) for name in _RULE_FIELDS}
        return record | {"distance": self.distance.to_json() if self.distance else None}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> AbstainRule:
        values = {name: record[name] for name in _RULE_FIELDS}
        distance = record.get("distance")
        kind = SourceDistance if distance and distance["kind"] == SOURCE_KIND else FeatureDistance
        rule = cls(**values, distance=kind.from_json(distance) if distance else None)
        if (rule.distance is None) != (rule.max_distance is None):
            raise ValueError("max_distance and distance must come together")
        return rule


# What cuts of the score "any positive class" are fitted for, the share that each keeps on validation groups. The order
# is that of the column `thresholds` in predictions.parquet.
OPERATING_POINTS: dict[str, tuple[str, float]] = {
    "specificity-90": ("specificity", 0.90),
    "specificity-95": ("specificity", 0.95),
    "sensitivity-90": ("sensitivity", 0.90),
    "sensitivity-95": ("sensitivity", 0.95),
}


@dataclass(frozen=True)
class OperatingPoint:
    """A cut of `positive_score`: slices at or above `threshold` count as positive. `name` is of OPERATING_POINTS."""

    name: str
    threshold: float


def positive_score(probabilities: np.ndarray, classes: Classes) -> np.ndarray:
    """(N,) how likely any positive class is: the sum of their probabilities (N, C), 0..1."""
    return np.asarray(probabilities)[:, np.array(classes.is_positive())].sum(axis=1)


@dataclass(frozen=True)
class Calibration:
    """Temperatures (`tempering`) and abstain rule of a model; without `blocks` one `temperature` serves all logits.

    `operating` are the cuts for any positive class, all of OPERATING_POINTS in their order; empty where no class is
    marked positive, or too few groups were held out to fit them.

    `blocks` are sets of class numbers whose members `within_temperature` tells apart. With `folded` the temperatures
    are already in the last layer's weights (`fold_calibration`), so that the logits are calibrated in every library
    and `decide` must not divide again. `not_fitted` says in a sentence what could not be fitted and why; then that
    part is absent (temperatures 1, no rule, or a rule without distance).
    """

    temperature: float = 1.0
    within_temperature: float | None = None
    blocks: Blocks = ()
    folded: bool = False
    abstain: AbstainRule | None = None
    operating: tuple[OperatingPoint, ...] = ()
    fitted_on: Mapping[str, int] = field(default_factory=dict)
    not_fitted: str | None = None

    def matrix(self, classes: int) -> np.ndarray:
        """(C, C): raw logits times it are calibrated. Raises LungCTError when it is of other classes."""
        if any(number >= classes for block in self.blocks for number in block):
            raise LungCTError(
                f"The calibration speaks of class {max(map(max, self.blocks))} and there are {classes} (from 0). Fix: "
                "take config.json and lungct.json from the same revision."
            )
        return tempering(classes, self.temperature, self.within_temperature or self.temperature, self.blocks)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float64 (N, C), from the logits (N, C) that the stored network gives."""
        logits = np.asarray(logits, np.float64)
        logits = logits if self.folded else logits @ self.matrix(logits.shape[1])
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def to_json(self) -> dict[str, Any]:
        """The block for lungct.json."""
        record: dict[str, Any] = {
            "temperature": self.temperature,
            "within_temperature": self.within_temperature or self.temperature,
            "blocks": [list(block) for block in self.blocks],
            "folded_into_weights": self.folded,
            "fitted_on": dict(self.fitted_on),
            "abstain": self.abstain.to_json() if self.abstain else None,
        }
        if self.operating:
            record["operating"] = [{"name": one.name, "threshold": one.threshold} for one in self.operating]
        return record | ({"not_fitted": self.not_fitted} if self.not_fitted else {})

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Calibration:
        """Read the block back. Raises LungCTError when it is incomplete or of a kind this version does not know."""
        try:
            temperature, abstain = float(record["temperature"]), record.get("abstain")
            # Schema 1 had three classes and, but for its first models, a temperature for the first two of them.
            older = record.get("benign_temperature")
            within = float(record.get("within_temperature", temperature if older is None else older))
            blocks = record.get("blocks", [] if older is None else [[0, 1], [2]])
            if not all(np.isfinite(value) and value > 0 for value in (temperature, within)):
                raise ValueError(f"the temperatures are {temperature} and {within}")
            points = tuple(
                OperatingPoint(str(one["name"]), float(one["threshold"])) for one in record.get("operating", ())
            )
            if points and [one.name for one in points] != list(OPERATING_POINTS):
                raise ValueError(f"the operating points are {', '.join(one.name for one in points)}")
            if not all(np.isfinite(one.threshold) for one in points):
                raise ValueError("a threshold of an operating point is not finite")
            return cls(
                temperature=temperature,
                within_temperature=within,
                blocks=tuple(tuple(int(number) for number in block) for block in blocks),
                folded=bool(record["folded_into_weights"]),
                abstain=AbstainRule.from_json(abstain) if abstain else None,
                operating=points,
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
    classes: Classes,
    logits: np.ndarray,
    features: np.ndarray | None = None,
    *,
    distance: np.ndarray | None = None,
) -> list[Decision]:
    """One decision per row of `logits` (N, C); `features` (N, D) are those before the last layer.

    `distance` (N,) may stand in for the features where other networks measured it. Reasons to abstain, the first that
    holds: a value is not finite, the slice is unlike the training data, the confidence is too low. Raises UsageError
    when the rule needs features and none are given.
    """
    logits = np.asarray(logits, np.float64).reshape(-1, len(classes))
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
                label=None if reason else classes[int(row.argmax())],
                reason=reason,
                confidence=float(confidence[i]) if finite[i] else 0.0,
                distance=None if distance is None else float(distance[i]),
                probabilities=dict(zip(classes, row.tolist(), strict=True)),
            )
        )
    return rows


def pool_probabilities(probabilities: np.ndarray, unit: np.ndarray, units: int) -> np.ndarray:
    """The probabilities of the slices (N, C) of each case `unit` (N,) averaged: float64 (units, C).

    This is how several slices become one answer, in the figures (where it is named POOLING) and in a runtime.
    """
    totals = np.zeros((units, probabilities.shape[1]))
    np.add.at(totals, unit, probabilities)
    return totals / np.bincount(unit, minlength=units)[:, None]


def decide_case(
    calibration: Calibration, classes: Classes, probabilities: np.ndarray, distances: np.ndarray | None = None
) -> Decision:
    """One decision for a case's slices: their probabilities (N, C) averaged, of their distances (N,) the median.

    The thresholds are those of a slice. They were not measured on cases, so a case's abstentions promise no error
    rate. Raises UsageError for no slices.
    """
    probabilities = np.asarray(probabilities, np.float64).reshape(-1, len(classes))
    if not len(probabilities):
        raise UsageError("A case needs at least one slice.")
    pooled = pool_probabilities(probabilities, np.zeros(len(probabilities), np.int64), 1)
    distance = None if distances is None else np.median(np.asarray(distances, np.float64), keepdims=True)
    confidence = pooled.max(axis=1)
    reason = why_not(calibration.abstain, confidence, distance)[0]
    return Decision(
        label=None if reason else classes[int(pooled[0].argmax())],
        reason=reason,
        confidence=float(confidence[0]),
        distance=None if distance is None else float(distance[0]),
        probabilities=dict(zip(classes, pooled[0].tolist(), strict=True)),
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
        reasons[i] = rule.distance.reason if rule.distance else UNLIKE_TRAINING
    return reasons


_RULE_FIELDS = (
    "min_confidence",
    "max_distance",
    "target_error",
    "target_met",
    "expected_error",
    "expected_coverage",
)
