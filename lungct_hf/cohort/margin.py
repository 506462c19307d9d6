"""The margin: slices too like a test slice are dropped from training, whatever group they are in."""

from __future__ import annotations

import numpy as np

from ..errors import UsageError
from .similarity import closest


def drop_near(
    split: np.ndarray, thumbs48: np.ndarray, ids: np.ndarray, margin: float
) -> tuple[np.ndarray, dict[int, str]]:
    """`split` with "dropped" for each training or validation slice too like a test slice, and {row: reason}.

    Args:
        split: str (N,) of train, validation and test.
        thumbs48: uint8 (N, 48, 48); too like is a correlation above `margin`.

    Raises:
        UsageError: `margin` is no correlation.
    """
    if not 0 < margin < 1:
        raise UsageError(f"The margin is {margin:g}; it is a correlation, between 0 and 1 (for example 0.95).")
    rows, test = np.flatnonzero(split != "test"), np.flatnonzero(split == "test")
    value, nearest = closest(thumbs48, rows, test)
    kept = split.copy()
    near = value > margin
    kept[rows[near]] = "dropped"
    reasons = {
        int(row): f"dropped: thumbnail {correlation:.3f} with {ids[other]}"
        for row, correlation, other in zip(rows[near], value[near], nearest[near], strict=True)
    }
    return kept, reasons
