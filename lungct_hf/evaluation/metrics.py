"""The metrics as `evaluate.Metric` classes shipped with the package; nothing is loaded from the network.

Every class takes references (N class numbers in the order of LABELS) and either predictions (N class numbers) or,
for AUROC, prediction_scores (N rows of three probabilities or logits). A figure that is undefined, because a class
does not occur, is None and never a guess.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import confusion_matrix, roc_auc_score

from ..labels import LABELS
from .sample import softmax

_CLASSES = list(range(len(LABELS)))


class _LabelMetric(evaluate.Metric, ABC):
    """A metric of class numbers against class numbers."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
        return _describe(self, features)

    def _compute(self, predictions: Any, references: Any) -> dict[str, Any]:
        matrix = confusion_matrix(references, predictions, labels=_CLASSES)
        return self._from_confusion(matrix)

    @abstractmethod
    def _from_confusion(self, matrix: np.ndarray) -> dict[str, Any]:
        """The metric's value from the (3, 3) counts, rows true, columns named."""


class Accuracy(_LabelMetric):
    """The share of slices whose class was named, 0..1."""

    def _from_confusion(self, matrix: np.ndarray) -> dict[str, Any]:
        return {"accuracy": _ratio(np.trace(matrix), matrix.sum())}


class Sensitivity(_LabelMetric):
    """Per class: of its slices, the share that was named so (recall), 0..1."""

    def _from_confusion(self, matrix: np.ndarray) -> dict[str, Any]:
        return {"sensitivity": [_ratio(matrix[c, c], matrix[c].sum()) for c in _CLASSES]}


class Specificity(_LabelMetric):
    """Per class: of all other slices, the share that was not named so, 0..1."""

    def _from_confusion(self, matrix: np.ndarray) -> dict[str, Any]:
        total = matrix.sum()
        values = []
        for c in _CLASSES:
            others = total - matrix[c].sum()
            values.append(_ratio(others - (matrix[:, c].sum() - matrix[c, c]), others))
        return {"specificity": values}


class BalancedAccuracy(_LabelMetric):
    """The mean sensitivity over the classes that occur, 0..1; 1/3 is chance."""

    def _from_confusion(self, matrix: np.ndarray) -> dict[str, Any]:
        present = [matrix[c, c] / matrix[c].sum() for c in _CLASSES if matrix[c].sum()]
        return {"balanced_accuracy": float(np.mean(present)) if present else None}


class ConfusionMatrix(_LabelMetric):
    """Counts, rows are the true class, columns the named one, in the order of LABELS."""

    def _from_confusion(self, matrix: np.ndarray) -> dict[str, Any]:
        return {"confusion_matrix": matrix.tolist()}


class MacroAUROC(evaluate.Metric):
    """The mean over classes of the area under the one-vs-rest ROC curve, 0..1; 1/2 is chance."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {"prediction_scores": datasets.List(datasets.Value("float64")), "references": datasets.Value("int64")}
        )
        return _describe(self, features)

    def _compute(self, prediction_scores: Any, references: Any) -> dict[str, Any]:
        scores, truth = np.asarray(prediction_scores, dtype=np.float64), np.asarray(references)
        if any(not 0 < np.sum(truth == c) < len(truth) for c in _CLASSES):
            return {"macro_auroc": None}
        return {"macro_auroc": float(np.mean([roc_auc_score(truth == c, scores[:, c]) for c in _CLASSES]))}


METRICS: dict[str, type[evaluate.Metric]] = {
    "accuracy": Accuracy,
    "balanced_accuracy": BalancedAccuracy,
    "sensitivity": Sensitivity,
    "specificity": Specificity,
    "macro_auroc": MacroAUROC,
    "confusion_matrix": ConfusionMatrix,
}


def score(labels: np.ndarray, logits: np.ndarray) -> dict[str, Any]:
    """All metrics of one set: labels (N,) and logits (N, 3) to the block that metrics.json stores."""
    predictions = logits.argmax(axis=1)
    probabilities = softmax(logits)
    values: dict[str, Any] = {}
    for name, metric in METRICS.items():
        inputs: dict[str, Any] = {"references": labels}
        if name == "macro_auroc":
            inputs["prediction_scores"] = probabilities
        else:
            inputs["predictions"] = predictions
        values |= metric(keep_in_memory=True).compute(**inputs)
    sensitivity, specificity = values.pop("sensitivity"), values.pop("specificity")
    per_class = {
        name: {"sensitivity": sensitivity[c], "specificity": specificity[c], "n": int(np.sum(labels == c))}
        for c, name in enumerate(LABELS)
    }
    return {"n": len(labels), **values, "per_class": per_class}


def _describe(metric: evaluate.Metric, features: datasets.Features) -> evaluate.MetricInfo:
    text = (type(metric).__doc__ or "").strip()
    return evaluate.MetricInfo(description=text, citation="", inputs_description=text, features=features)


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
