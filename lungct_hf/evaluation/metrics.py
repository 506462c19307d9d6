"""The metrics as `evaluate.Metric` classes shipped with the package; nothing is loaded from the network.

Every metric is made for a number of classes C, as `Accuracy(num_classes=4)`, and takes references (N class numbers
from 0 to C - 1) and either predictions (N class numbers) or, for AUROC, prediction_scores (N rows of C probabilities
or logits). A figure that is undefined, because a class does not occur, is None and never a guess.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import confusion_matrix, roc_auc_score

from ..classes import FEWEST, MOST, Classes
from ..errors import UsageError
from .sample import softmax


class _OfClasses(evaluate.Metric):
    """A metric that knows how many classes there are. Raises UsageError for a number that cannot be."""

    fewest, most = FEWEST, MOST

    def __init__(self, num_classes: int, **options: Any) -> None:
        if not self.fewest <= num_classes <= self.most:
            raise UsageError(
                f"{type(self).__name__} is for {self.fewest} to {self.most} classes, not for {num_classes}."
            )
        self.numbers = range(num_classes)
        super().__init__(**options)

    def _build_data_dir(self) -> str:
        """No folder for what is kept in memory: `evaluate` makes one below the home folder for every metric."""
        return "" if self.keep_in_memory else str(super()._build_data_dir())


class _LabelMetric(_OfClasses, ABC):
    """A metric of class numbers against class numbers."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
        return _describe(self, features)

    def _compute(self, predictions: Any, references: Any) -> dict[str, Any]:
        matrix = confusion_matrix(references, predictions, labels=list(self.numbers))
        return self._from_confusion(matrix)

    @abstractmethod
    def _from_confusion(self, matrix: np.ndarray) -> dict[str, Any]:
        """The metric's value from the (C, C) counts, rows true, columns named."""


class Accuracy(_LabelMetric):
    """The share of slices whose class was named, 0..1."""

    def _from_confusion(self, matrix: np.ndarray) -> dict[str, Any]:
        return {"accuracy": _ratio(np.trace(matrix), matrix.sum())}


class Sensitivity(_LabelMetric):
    """Per class: of its slices, the share that was named so (recall), 0..1."""

    def _from_confusion(self, matrix: np.ndarray) -> dict[str, Any]:
        return {"sensitivity": [_ratio(matrix[c, c], matrix[c].sum()) for c in self.numbers]}


class Specificity(_LabelMetric):
    """Per class: of all other slices, the share that was not named so, 0..1."""

    def _from_confusion(self, matrix: np.ndarray) -> dict[str, Any]:
        total = matrix.sum()
        values = []
        for c in self.numbers:
            others = total - matrix[c].sum()
            values.append(_ratio(others - (matrix[:, c].sum() - matrix[c, c]), others))
        return {"specificity": values}


class BalancedAccuracy(_LabelMetric):
    """The mean sensitivity over the classes that occur, 0..1; 1 / C is chance."""

    def _from_confusion(self, matrix: np.ndarray) -> dict[str, Any]:
        present = [matrix[c, c] / matrix[c].sum() for c in self.numbers if matrix[c].sum()]
        return {"balanced_accuracy": float(np.mean(present)) if present else None}


class ConfusionMatrix(_LabelMetric):
    """Counts, rows are the true class, columns the named one, in the order of the classes."""

    def _from_confusion(self, matrix: np.ndarray) -> dict[str, Any]:
        return {"confusion_matrix": matrix.tolist()}


class MacroAUROC(_OfClasses):
    """The mean over three or more classes of the area under the one-vs-rest ROC curve, 0..1; 1/2 is chance."""

    fewest, name_of_value = 3, "macro_auroc"

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {"prediction_scores": datasets.List(datasets.Value("float64")), "references": datasets.Value("int64")}
        )
        return _describe(self, features)

    def _compute(self, prediction_scores: Any, references: Any) -> dict[str, Any]:
        scores, truth = np.asarray(prediction_scores, dtype=np.float64), np.asarray(references)
        if any(not 0 < np.sum(truth == c) < len(truth) for c in self.numbers):
            return {self.name_of_value: None}
        areas = [roc_auc_score(truth == c, scores[:, c]) for c in self.numbers]
        return {self.name_of_value: float(np.mean(areas))}


class AUROC(MacroAUROC):
    """The area under the ROC curve of two classes, 0..1, the same for either; 1/2 is chance."""

    fewest, most, name_of_value = 2, 2, "auroc"


METRICS: dict[str, type[_OfClasses]] = {
    "accuracy": Accuracy,
    "balanced_accuracy": BalancedAccuracy,
    "sensitivity": Sensitivity,
    "specificity": Specificity,
    "macro_auroc": MacroAUROC,
    "auroc": AUROC,
    "confusion_matrix": ConfusionMatrix,
}


def score(labels: np.ndarray, logits: np.ndarray, classes: Classes) -> dict[str, Any]:
    """All metrics of one set that suit its classes: labels (N,) and logits (N, C) to a block as of figures.py."""
    predictions = logits.argmax(axis=1)
    probabilities = softmax(logits)
    values: dict[str, Any] = {}
    for metric in METRICS.values():
        if not metric.fewest <= len(classes) <= metric.most:
            continue
        inputs: dict[str, Any] = {"references": labels}
        if issubclass(metric, MacroAUROC):
            inputs["prediction_scores"] = probabilities
        else:
            inputs["predictions"] = predictions
        values |= metric(len(classes), keep_in_memory=True).compute(**inputs)
    sensitivity, specificity = values.pop("sensitivity"), values.pop("specificity")
    per_class = {
        name: {"sensitivity": sensitivity[c], "specificity": specificity[c], "n": int(np.sum(labels == c))}
        for c, name in enumerate(classes)
    }
    return {"n": len(labels), **values, "per_class": per_class}


def _describe(metric: evaluate.Metric, features: datasets.Features) -> evaluate.MetricInfo:
    text = (type(metric).__doc__ or "").strip()
    return evaluate.MetricInfo(description=text, citation="", inputs_description=text, features=features)


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
