"""What a model is worth: figures with intervals, stored predictions, baselines, calibration and "I don't know".

The metrics need evaluate and datasets. So nothing is loaded before it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..decision import AbstainRule, Calibration, Decision, FeatureDistance, decide
    from .baselines import VIEWS, nearest_neighbour, only_ring, ring
    from .bootstrap import intervals, paired_difference
    from .calibration import (
        fit_abstain,
        fit_calibration,
        fit_temperatures,
        fold_calibration,
        risk_coverage,
    )
    from .metrics import METRICS, score
    from .predictions import classes_of_table, read_predictions, uncalibrated_logits, write_predictions
    from .report import Report, evaluate_predictions
    from .sample import Sample

_HOMES = {
    "baselines": ("VIEWS", "nearest_neighbour", "only_ring", "ring"),
    "bootstrap": ("intervals", "paired_difference"),
    "calibration": (
        "fit_abstain",
        "fit_calibration",
        "fit_temperatures",
        "fold_calibration",
        "risk_coverage",
    ),
    ".decision": ("AbstainRule", "Calibration", "Decision", "FeatureDistance", "decide"),
    "metrics": ("METRICS", "score"),
    "predictions": ("classes_of_table", "read_predictions", "uncalibrated_logits", "write_predictions"),
    "report": ("Report", "evaluate_predictions"),
    "sample": ("Sample",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

# `figures.figures` is not here: importing its module would put the module in the function's place.
__all__ = [
    "METRICS",
    "VIEWS",
    "AbstainRule",
    "Calibration",
    "Decision",
    "FeatureDistance",
    "Report",
    "Sample",
    "classes_of_table",
    "decide",
    "evaluate_predictions",
    "fit_abstain",
    "fit_calibration",
    "fit_temperatures",
    "fold_calibration",
    "intervals",
    "nearest_neighbour",
    "only_ring",
    "paired_difference",
    "read_predictions",
    "ring",
    "risk_coverage",
    "score",
    "uncalibrated_logits",
    "write_predictions",
]


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)
