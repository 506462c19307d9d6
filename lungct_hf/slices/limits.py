"""What a model learned from: how its training slices were windowed and framed, and which slices are unlike them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..errors import UsageError
from .report import InputReport


class _Scale(NamedTuple):
    """Values of a fact that are possible, and the margin that other patients and close crops of one export need."""

    least: float
    most: float
    margin: float


# The facts of a report that depend on how slices were made.
_SCALES: dict[str, _Scale] = {
    "tissue_grey": _Scale(-1.0, 255.0, 15.0),
    "lung_grey": _Scale(-1.0, 255.0, 24.0),
    "haze": _Scale(0.0, 1.0, 0.025),
    "aspect": _Scale(0.0, 1000.0, 0.5),
    "body_fraction": _Scale(0.0, 1.0, 0.35),
    "lung_fraction": _Scale(0.0, 1.0, 0.2),
    "dark_border": _Scale(0.0, 1.0, 0.4),
}
_WINDOW = {"tissue_grey", "lung_grey", "haze"}  # the others tell of the framing
_RARE = 0.002  # of the slices, at either end, that do not set a range: one odd file must not open it for all


@dataclass(frozen=True)
class InputLimits:
    """The ranges that the slices of a model keep to, measured on `slices` of those that it was trained on.

    `ranges` are (fact of an input report, lowest, highest), margins included.
    """

    slices: int
    ranges: tuple[tuple[str, float, float], ...]

    def outside(self, facts: Mapping[str, Any]) -> dict[str, list[float]]:
        """The facts of a slice that lie beyond their range, each with its range: [lowest, highest]."""
        return {name: [low, high] for name, low, high in self.ranges if not low <= facts[name] <= high}

    def judge(self, facts: Mapping[str, Any]) -> str | None:
        """The code that a slice with these facts earns for being unlike the model's own, or None."""
        unlike = self.outside(facts)
        return None if not unlike else "wrong-window" if _WINDOW & unlike.keys() else "unlike-training-view"

    def to_json(self) -> dict[str, Any]:
        """The block "input_limits" of lungct.json."""
        return {"slices": self.slices, "ranges": {name: [low, high] for name, low, high in self.ranges}}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> InputLimits:
        """Read `to_json` back. Raises KeyError, TypeError or ValueError where the record is none."""
        ranges = tuple((name, float(low), float(high)) for name, (low, high) in dict(record["ranges"]).items())
        if unusable := [name for name, low, high in ranges if name not in _SCALES or not low <= high]:
            raise ValueError(f"input_limits has no usable range of {unusable[0]!r}")
        return cls(int(record["slices"]), ranges)


# Models of schema 1 were trained on one export in one window. They have no ranges: they are held to the thresholds
# that were set for that export (checks.py).
SCHEMA_1_LIMITS = InputLimits(slices=0, ranges=())


def fit_limits(reports: Sequence[InputReport]) -> InputLimits:
    """The limits that the reports of training slices set; slices that are refused do not count.

    The fewer slices there are, the wider the limits: 8 say less than 800 about what others of their kind look like.

    Raises:
        UsageError: no slice is left.
    """
    kept = [report.facts for report in reports if not report.codes]
    if not kept:
        raise UsageError(
            f"None of the {len(reports)} training slices passes the input check, so the model would refuse all slices "
            "of their kind. Fix: train on axial CT slices of a chest; `lungct audit` says why these are refused."
        )
    widening = 1 + 4 / math.sqrt(len(kept))
    ranges = []
    for name, (least, most, margin) in _SCALES.items():
        low, high = np.quantile([facts[name] for facts in kept], (_RARE, 1 - _RARE)).tolist()
        low, high = max(low - widening * margin, least), min(high + widening * margin, most)
        ranges.append((name, round(low, 3), round(high, 3)))
    return InputLimits(len(kept), tuple(ranges))
