"""The outline of what is solid in a picture, what lies in it, and the grain: signs of another plane or body part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from .measure import core, reduced

_SIDE = 800  # pixels; a longer side is reduced before grain is measured, as before text is looked for
_EVERY = 4  # rows are enough to measure grain
_DARK, _BRIGHT = 12, 243  # grey levels beyond which a window cuts grain off
_EDGE = 60  # grey levels of bending that no grain has, an edge has
_LEAST_GRAIN = 200  # pixels with grain, below which nothing is said
_QUANTUM = 0.2  # grey levels added to either mean: rounding to whole levels leaves about as much
_LEAST = 0.03  # of a row or column that is solid, before it counts as a part of the body
_SHELL = 0.1  # of the body's width: how deep below the outline a skull lies at most
_WHITE = 250


@dataclass(frozen=True)
class Outline:
    """Where the solid part of a picture lies: what is bright in all of 5 x 5 pixels, so no blanket and no thin table.

    Fractions are 0..1.
    """

    aspect: float  # width by height of the body's bounding box
    beside: float  # fraction of the left or the right side of the picture, the greater one, that is body
    below: float  # width of the body where the picture ends below, by that of its widest rows
    above: float  # the same above
    walled: float  # dark with body on all four sides, of the body: what may be lung, not what a blanket encloses
    walled_core: float  # the same of what is dark in all of 5 x 5 pixels
    shell: float  # fraction of the outline that has bone just below it
    bone: float  # fraction of the body that is white


def outline(grey: np.ndarray, threshold: int) -> Outline | None:
    """Measure a reduced grey picture; `threshold` is its brightest dark level. None where nothing is solid."""
    dark = grey <= threshold
    solid = core(~dark)
    height, width = solid.shape
    in_rows, in_columns = np.count_nonzero(solid, axis=1), np.count_nonzero(solid, axis=0)
    rows, columns = np.flatnonzero(in_rows > _LEAST * width), np.flatnonzero(in_columns > _LEAST * height)
    if len(rows) < 3 or len(columns) < 3:
        return None
    along = np.logical_or.accumulate
    walled = along(solid, axis=1) & along(solid[:, ::-1], axis=1)[:, ::-1]
    walled &= along(solid, axis=0) & along(solid[::-1], axis=0)[::-1]
    area = int(np.count_nonzero(walled | solid))
    white = grey[2:-2, 2:-2] >= _WHITE
    across = int(columns[-1] - columns[0]) + 1
    widest = max(int(np.sort(in_rows)[int(0.95 * (height - 1))]), 1)
    body, depth = walled | solid, max(round(_SHELL * across), 2) + 2
    views = [(body, white), (body[:, ::-1], white[:, ::-1]), (body.T, white.T), (body.T[:, ::-1], white.T[:, ::-1])]
    inside = dark[2:-2, 2:-2] & walled
    return Outline(
        aspect=(across + 4) / (int(rows[-1] - rows[0]) + 5),  # the rim that `core` takes off is the body's too
        beside=max(int(in_columns[0]), int(in_columns[-1])) / height,
        below=int(in_rows[-1]) / widest,
        above=int(in_rows[0]) / widest,
        walled=int(np.count_nonzero(inside)) / area,
        walled_core=int(np.count_nonzero(core(dark)[walled])) / area,
        shell=sum(_bone_below(*view, depth) for view in views) / 4,
        bone=int(np.count_nonzero(white & body)) / area,
    )


def _bone_below(body: np.ndarray, white: np.ndarray, depth: int) -> float:
    """Fraction of the rows of a body, the outermost tenth at both ends left out, with white near their left end."""
    rows = np.flatnonzero(body.any(axis=1))
    rows = rows[len(rows) // 10 : len(rows) - len(rows) // 10]
    if not rows.size:
        return 0.0
    first = np.maximum(body[rows].argmax(axis=1) - 2, 0)
    counted = np.zeros((len(rows), white.shape[1] + 1), np.int16)
    np.cumsum(white[rows], axis=1, out=counted[:, 1:])
    places = np.arange(len(rows))
    found = counted[places, np.minimum(first + depth, white.shape[1])] - counted[places, first]
    return int(np.count_nonzero(found)) / len(rows)


def grain(picture: Image.Image, small: np.ndarray) -> float:
    """How much grey bends from row to row, by how much it does from column to column: about 1 as a scanner makes it.

    A frontal or lateral plane through thick slices is stretched from top to bottom until its pixels are square, and
    so is its grain: in such pictures it is 0.1 to 0.4. The lesser of the value of the whole picture and of the reduced
    one, `small`: enlarging a picture smooths all of its grain, reducing it hides what is left.
    """
    whole = reduced(picture, _SIDE)
    fine = np.asarray(whole if whole.mode == "L" else whole.getchannel(1))
    return min(_grain(fine, _EVERY), _grain(small, 1))


def _grain(grey: np.ndarray, every: int) -> float:
    middle = grey[1:-1:every, 1:-1].astype(np.int16)
    twice = 2 * middle
    down = np.abs(twice - grey[:-2:every, 1:-1] - grey[2::every, 1:-1])
    across = np.abs(twice - grey[1:-1:every, :-2] - grey[1:-1:every, 2:])
    bending = down + across
    is_grain = (middle > _DARK) & (middle < _BRIGHT) & (bending < _EDGE) & (bending > 0)
    if np.count_nonzero(is_grain) < _LEAST_GRAIN:
        return 1.0
    return float((down[is_grain].mean() + _QUANTUM) / (across[is_grain].mean() + _QUANTUM))
