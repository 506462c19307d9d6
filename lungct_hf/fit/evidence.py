"""What a finished run can show: its calibration, its stored predictions, and the figures that follow from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from ..classes import Classes
from ..cohort import Cohort, Split
from ..decision import Calibration, decide
from ..errors import UsageError
from ..evaluation import (
    evaluate_predictions,
    fit_calibration,
    fold_calibration,
    write_predictions,
)
from ..evaluation.plots import write_plots
from ..evaluation.predict import baselines_of
from ..evaluation.source_guard import fit_sources
from ..files import write_json
from .inference import predict_with_features
from .probes import Probes

if TYPE_CHECKING:
    from .data import Slices  # which needs this module for its records

TARGET_ERROR = 0.05  # of the slices that the model answers at most this share may be wrong


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What networks say of slices that they did not learn from: `rows` (N,) of the cohort, each at most once.

    `logits` (N, C) are from before calibration, `distances` (N,) how far the features are from those that the network
    learned from; where they cannot be measured, `no_distance` says why.
    """

    rows: np.ndarray
    logits: np.ndarray
    distances: np.ndarray | None = None
    no_distance: str = ""

    @classmethod
    def of(
        cls,
        rows: np.ndarray,
        logits: np.ndarray,
        features: np.ndarray,
        training: tuple[np.ndarray, np.ndarray],
    ) -> HeldOut:
        """From one network: `features` (N, D) of the rows, and those of its training slices with their sources."""
        try:
            return cls(rows, logits, fit_sources(*training)(features))
        except UsageError as error:
            return cls(rows, logits, no_distance=str(error))

    @classmethod
    def joined(cls, parts: list[HeldOut]) -> HeldOut:
        """What several networks said, in the order of the rows."""
        rows = np.concatenate([part.rows for part in parts])
        order = np.argsort(rows)
        reason = next((part.no_distance for part in parts if part.no_distance), "")
        distances = None if reason else np.concatenate([part.distances for part in parts])[order]
        return cls(rows[order], np.concatenate([part.logits for part in parts])[order], distances, reason)


@dataclass(frozen=True, eq=False)
class Answers:
    """All that a run shows, before calibration."""

    validation: HeldOut
    test: HeldOut
    probes: Probes


def answer(
    network: nn.Module, slices: Slices, rows: np.ndarray, accelerator: Accelerator
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (len(rows), C) and features (len(rows), D) of the slices."""
    return predict_with_features(network, slices.squares, rows, slices.preprocessing, accelerator)


def held_out(network: nn.Module, slices: Slices, split: Split, accelerator: Accelerator) -> tuple[HeldOut, np.ndarray]:
    """What `network`, which learned on the training slices of `split`, says of its validation slices.

    Beside it the features (N, D) of the training slices.
    """
    train, validation = split.indices("train"), split.indices("validation")
    logits, features = answer(network, slices, validation, accelerator)
    known = answer(network, slices, train, accelerator)[1]
    training = known, sources_of(slices.cohort)[train]
    return HeldOut.of(validation, logits, features, training), known


def sources_of(cohort: Cohort) -> np.ndarray:
    """str (N,): for each slice the name of the data it is from, safe to publish, for the source guard."""
    return np.full(len(cohort), cohort.known_set.title if cohort.known_set else cohort.source)


def calibrate(split: Split, found: HeldOut, training: tuple[np.ndarray, np.ndarray]) -> Calibration:
    """`fit_what_can_be` on what networks said of slices of `split`."""
    return fit_what_can_be(
        found.logits,
        split.labels[found.rows],
        split.groups[found.rows],
        classes=split.classes,
        training=training,
        distances=found.distances,
        no_distance=found.no_distance,
    )


def fit_what_can_be(
    logits: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    classes: Classes,
    training: tuple[np.ndarray, np.ndarray],
    distances: np.ndarray | None,
    no_distance: str,
) -> Calibration:
    """Temperatures and abstain rule from held-out groups only: (N, C), (N,), (N,) and distances (N,).

    `training` are the features (M, D) and sources of the slices that the published network learned from: they say
    what is near. Its threshold carries over from other networks, for a distance is measured in units of the
    scatter of a network's own training features. What cannot be fitted is left out and `not_fitted` says why
    (`no_distance` where there are none): a run that came this far is not lost for it.
    """
    answers = logits, labels, groups
    wanted: dict[str, Any] = {"classes": classes, "target_error": TARGET_ERROR}
    try:
        if distances is None:
            raise UsageError(no_distance)
        return fit_calibration(*answers, **wanted, training=training, distances=distances)
    except UsageError as error:
        reason = str(error)
    try:
        return replace(fit_calibration(*answers, **wanted), not_fitted=reason)
    except UsageError as error:
        return Calibration(not_fitted=str(error))


@torch.no_grad()
def fold_into(network: nn.Module, calibration: Calibration) -> None:
    """Put the temperatures into the network's last layer, so that every runtime's probabilities are calibrated."""
    layer: Any = network.get_classifier()  # type: ignore[operator]
    weight, bias = (parameter.detach().cpu().numpy() for parameter in (layer.weight, layer.bias))
    weight, bias = fold_calibration(weight, bias, calibration)
    layer.weight.copy_(torch.from_numpy(weight))
    layer.bias.copy_(torch.from_numpy(bias))


def write_evidence(
    folder: Path, cohort: Cohort, split: Split, answers: Answers, calibration: Calibration
) -> dict[str, Any]:
    """Write predictions.parquet, metrics.json, split.csv and the plots into `folder`; the metrics are returned.

    The figures are computed from the file that was written, so `lungct evaluate` finds the same.
    """
    classes = cohort.classes
    beside: list[dict[str, Any]] = [{} for _ in answers.test.rows]
    for name, logits in answers.probes.logits.items():
        for columns, row in zip(beside, logits @ calibration.matrix(len(classes)), strict=True):
            columns[name] = row.tolist()
    for name, numbers in (baselines_of(cohort, split) | dict(answers.probes.named)).items():
        for columns, named in zip(beside, numbers, strict=True):
            columns[name] = classes[named]
    tested = _rows("test", cohort, split, answers.test, calibration)
    rows = [row | columns for row, columns in zip(tested, beside, strict=True)]
    rows += _rows("validation", cohort, split, answers.validation, calibration)
    predictions = folder / "predictions.parquet"
    write_predictions(predictions, rows, classes)
    report = evaluate_predictions(predictions, split=split.facts(), calibration=calibration)
    write_json(folder / "metrics.json", report.metrics)
    split.write_csv(folder / "split.csv")
    write_plots(report, folder)
    return report.metrics


def _rows(name: str, cohort: Cohort, split: Split, found: HeldOut, calibration: Calibration) -> list[dict[str, Any]]:
    """One row per slice with its calibrated logits."""
    logits = (found.logits @ calibration.matrix(len(cohort.classes))).astype(np.float32)
    decisions = decide(calibration, cohort.classes, logits, distance=found.distances)
    return [
        {
            "id": str(cohort.ids[row]),
            "sha256": str(cohort.sha256[row]),
            "group": str(split.groups[row]),
            "split": name,
            "fold": int(split.fold_of[row]),
            "label": cohort.classes[cohort.labels[row]],
            "logits": logits[place].tolist(),
            "raw_logits": found.logits[place].tolist(),
            "thresholds": [point.threshold for point in calibration.operating] or None,
            "distance": decision.distance,
            "abstained": None if calibration.abstain is None else decision.reason or "",
        }
        for place, (row, decision) in enumerate(zip(found.rows.tolist(), decisions, strict=True))
    ]
