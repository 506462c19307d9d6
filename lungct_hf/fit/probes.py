"""What a network says of test slices that hide something: all but the ring, the grey levels, the texture.

Beside each figure they say what it rests on: a score that survives without the lungs, or is lost with the grey levels,
was read from how slices were made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from accelerate import Accelerator
from torch import nn

from ..evaluation.baselines import grey_histogram, nearest_neighbour, only_ring
from ..evaluation.neutral import (
    content_box,
    equal_histogram,
    equal_texture,
    pooled_histogram,
    pooled_spectrum,
)
from .inference import predict_rows

if TYPE_CHECKING:
    from .data import Slices  # which needs evidence.py, and that this, for its records

_POOLED = 2000  # training slices from which the common histogram and spectrum are taken, evenly spread


@dataclass(frozen=True, eq=False)
class Probes:
    """By column of predictions.parquet: `logits` (N, C) of the test slices before calibration, and class numbers
    `named` (N,) by what learns nothing."""

    logits: Mapping[str, np.ndarray]
    named: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class _View:
    """Slices as `change` shows them; uint8 (size, size, 3) each."""

    squares: object
    change: Callable[[np.ndarray], np.ndarray]

    def __getitem__(self, row: int) -> np.ndarray:
        return self.change(self.squares[row])  # type: ignore[index]


def probe(network: nn.Module, slices: Slices, known: np.ndarray, test: np.ndarray, accelerator: Accelerator) -> Probes:
    """Ask `network`, which learned from the slices `known`, for the slices `test`, in every view."""
    fill, squares = slices.preprocessing.fill, slices.squares
    pooled = [squares[int(row)] for row in known[:: -(-len(known) // _POOLED)]]
    histogram, spectrum = pooled_histogram(pooled, fill), pooled_spectrum(pooled, fill)
    levelled = _View(squares, lambda square: equal_histogram(square, fill, histogram))
    views = {
        "ring_logits": _View(squares, lambda square: only_ring(square, fill)),
        "equal_histogram_logits": levelled,
        "equal_texture_logits": _View(squares, lambda square: equal_texture(square, fill, spectrum)),
    }
    logits = {
        column: predict_rows(network, view, test, slices.preprocessing, accelerator) for column, view in views.items()
    }
    # Do grey levels still tell the class after they were made equal? They should not, and this is the proof.
    learned, asked = (np.stack([_grey_levels(levelled[int(row)], fill) for row in rows]) for rows in (known, test))
    named = nearest_neighbour(learned, slices.cohort.labels[known], asked)
    return Probes(logits, {"equal_histogram_nearest_neighbour": named})


def _grey_levels(square: np.ndarray, fill: tuple[int, int, int]) -> np.ndarray:
    """float32 (256,): what the histogram baseline looks at, of what lies inside the border."""
    return grey_histogram(square[content_box(square, fill)][None, ..., 0])[0]
