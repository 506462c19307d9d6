"""What a finished run can show: its calibration, its stored predictions, and the figures that follow from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from ..cohort import Cohort, Split
from ..decision import Calibration, decide
from ..errors import UsageError
from ..evaluation import (
    evaluate_predictions,
    fit_calibration,
    fit_distance,
    fold_temperature,
    only_ring,
    write_predictions,
)
from ..evaluation.plots import write_plots
from ..evaluation.predict import baselines_of
from ..files import write_json
from ..labels import LABELS
from .inference import predict_with_features

if TYPE_CHECKING:
    from .data import Slices  # which needs this module for its records

TARGET_ERROR = 0.05  # of the slices that the model answers at most this share may be wrong
Answers = dict[str, tuple[np.ndarray, np.ndarray]]


class _Rings:
    """The slices (`squares[row]`) with everything inside the outer ring covered."""

    def __init__(self, slices: Slices) -> None:
        self._squares, self._fill = slices.squares, slices.preprocessing.fill

    def __getitem__(self, row: int) -> np.ndarray:
        return only_ring(self._squares[row], self._fill)


def answer(
    network: nn.Module, slices: Slices, rows: np.ndarray, accelerator: Accelerator, *, only_the_ring: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (len(rows), 3) and features (len(rows), D) of the slices, or of nothing but their outer ring."""
    view = _Rings(slices) if only_the_ring else slices.squares
    return predict_with_features(network, view, rows, slices.preprocessing, accelerator)


def calibrate(cohort: Cohort, split: Split, answers: Answers) -> Calibration:
    """Temperature and abstain rule from the validation groups only; the training slices give the distance's centres.

    `answers` holds logits (N, 3) before any temperature and features (N, D) for `train` and `validation`, from a
    network that has not learned from the latter. What cannot
    be fitted is left out and `not_fitted` says why: a run that came this far is not lost for it.
    """
    rows, labels = split.indices("validation"), np.asarray(cohort.labels)
    held_out = answers["validation"][0], labels[rows], split.groups[rows]
    try:
        training = answers["train"][1], labels[split.indices("train")]
        features = answers["validation"][1]
        return fit_calibration(*held_out, target_error=TARGET_ERROR, features=features, training=training)
    except UsageError as error:
        reason = str(error)
    try:
        found = fit_calibration(*held_out, target_error=TARGET_ERROR)
    except UsageError as error:
        return Calibration(not_fitted=str(error))
    return Calibration(found.temperature, found.folded, found.abstain, found.fitted_on, not_fitted=reason)


def moved_to(calibration: Calibration, features: np.ndarray, labels: np.ndarray) -> Calibration:
    """The same temperature and thresholds for a network that was trained anew, with features (N, D) of its own.

    The distance is measured in units of the scatter of the training features, so its threshold carries over.
    """
    rule = calibration.abstain
    if rule is None or rule.distance is None:
        return calibration
    return replace(calibration, abstain=replace(rule, distance=fit_distance(features, labels)))


@torch.no_grad()
def fold_into(network: nn.Module, calibration: Calibration) -> None:
    """Divide the network's last layer by the temperature, so that every runtime's probabilities are calibrated."""
    layer: Any = network.get_classifier()  # type: ignore[operator]
    weight, bias = (parameter.detach().cpu().numpy() for parameter in (layer.weight, layer.bias))
    weight, bias = fold_temperature(weight, bias, calibration.temperature)
    layer.weight.copy_(torch.from_numpy(weight))
    layer.bias.copy_(torch.from_numpy(bias))


def write_evidence(
    folder: Path, cohort: Cohort, split: Split, answers: Answers, calibration: Calibration
) -> dict[str, Any]:
    """Write predictions.parquet, metrics.json, split.csv and the plots into `folder`; the metrics are returned.

    The figures are computed from the file that was written, so `lungct evaluate` finds the same.
    """
    predictions = folder / "predictions.parquet"
    write_predictions(predictions, prediction_rows(cohort, split, answers, calibration))
    report = evaluate_predictions(predictions, split=split.facts(), calibration=calibration)
    write_json(folder / "metrics.json", report.metrics)
    split.write_csv(folder / "split.csv")
    write_plots(report, folder)
    return report.metrics


def prediction_rows(
    cohort: Cohort, split: Split, answers: Answers, calibration: Calibration
) -> list[dict[str, object]]:
    """One row per held-out slice; `answers` are from before the temperature, the stored logits are divided by it.

    `ring` in `answers` holds the test slices' logits from their outer ring alone.
    """
    rows: list[dict[str, object]] = []
    baselines = baselines_of(cohort, split)
    for name in ("test", "validation"):
        values, features = answers[name]
        logits = (values / calibration.temperature).astype(np.float32)
        decisions = decide(calibration, logits, features)
        for place, row in enumerate(split.indices(name).tolist()):
            found: dict[str, object] = {
                "id": str(cohort.ids[row]),
                "sha256": str(cohort.sha256[row]),
                "group": str(split.groups[row]),
                "split": name,
                "fold": int(split.fold_of[row]),
                "label": LABELS[cohort.labels[row]],
                "logits": logits[place].tolist(),
                "temperature": calibration.temperature,
                "distance": decisions[place].distance,
            }
            if calibration.abstain is not None:
                found["abstained"] = decisions[place].reason or ""
            if name == "test":
                found["ring_logits"] = (answers["ring"][0][place] / calibration.temperature).tolist()
                found |= {column: LABELS[classes[place]] for column, classes in baselines.items()}
            rows.append(found)
    return rows
