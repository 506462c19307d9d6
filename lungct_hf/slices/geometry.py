"""From stored pixels to the usual view of a slice: the body's right at the left, its front up, square in millimetres.

Directions are in DICOM's patient axes, mm: x to the patient's left, y to the back, z to the head.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..errors import BadSliceError

MAX_SIDE = 4096  # pixels that a side may have after pixels were made square
_SQUARE = 0.01  # share by which the sides of a pixel may differ and still be called equal: 2 of 224 pixels
_MOST_UNEVEN = 10.0  # times as long as wide: a slice across the body is nowhere stored so
_LETTERS = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "H": (0, 0, 1), "F": (0, 0, -1)}


def nearest_axes(directions: np.ndarray) -> tuple[int, int, int]:
    """For three voxel axes, the columns of `directions` (3 x 3), the body axis (0, 1, 2) that each runs along."""
    lengths = np.linalg.norm(directions, axis=0)
    if not np.isfinite(directions).all() or lengths.min() <= 0:
        raise BadSliceError("its axes have no directions")
    cosines = np.abs(directions / lengths)
    best = max(itertools.permutations(range(3)), key=lambda axes: cosines[axes, range(3)].sum())
    if abs(np.linalg.det(directions / lengths)) < 0.1:
        raise BadSliceError("two of its axes run in the same direction")
    return best  # type: ignore[return-value]


def to_usual_view(values: np.ndarray, orientation: Sequence[float] | None) -> np.ndarray:
    """A slice (rows, columns) turned by quarters and mirrored until columns run to the left and rows to the back.

    `orientation` is as DICOM's ImageOrientationPatient: the direction in which the column number grows, then that in
    which the row number grows. Without it the slice stays as it is.
    """
    if orientation is None:
        return values
    x, y = np.asarray(orientation[:3], float), np.asarray(orientation[3:], float)
    if is_turned(orientation):
        values, x, y = values.T, y, x
    return values[:: -1 if y[1] < 0 else 1, :: -1 if x[0] < 0 else 1]


def is_turned(orientation: Sequence[float] | None) -> bool:
    """Whether a slice lies on its side: its columns run from front to back or the reverse, and its rows across."""
    return orientation is not None and (
        abs(orientation[0]) + abs(orientation[4]) < abs(orientation[1]) + abs(orientation[3])
    )


def letters_to_orientation(value: Sequence[str]) -> tuple[float, ...] | None:
    """The six direction cosines that PatientOrientation says in letters, such as L and P; None where it says none."""
    words = [re.sub(r"[^LRPAHF]", "", str(word).upper()) for word in value]
    if len(words) != 2 or not all(words):
        return None
    return tuple(float(number) for word in words for number in _LETTERS[word[0]])


def check_pixel_size(pixel_mm: Sequence[float] | None) -> tuple[float, float] | None:
    """(height, width) of a pixel in mm, or None where they are unknown or no lengths.

    Raises:
        BadSliceError: one is more than ten times the other.
    """
    if pixel_mm is None or min(pixel_mm) <= 0:
        return None
    if max(pixel_mm) > _MOST_UNEVEN * min(pixel_mm):
        raise BadSliceError(f"its pixels are said to be {pixel_mm[0]:g} x {pixel_mm[1]:g} mm")
    return pixel_mm[0], pixel_mm[1]


def is_square(pixel_mm: Sequence[float] | None) -> bool:
    """Whether pixels are as high as wide, or nobody says that they are not."""
    return pixel_mm is None or max(pixel_mm) <= (1 + _SQUARE) * min(pixel_mm)


def with_square_pixels(picture: Image.Image, pixel_mm: Sequence[float] | None) -> Image.Image:
    """A picture whose pixels are `pixel_mm` (height, width), resampled to pixels as long as the shorter side."""
    if pixel_mm is None or is_square(pixel_mm):
        return picture
    height, width = picture.height * pixel_mm[0], picture.width * pixel_mm[1]
    mm = max(min(pixel_mm), height / MAX_SIDE, width / MAX_SIDE)
    return picture.resize((max(round(width / mm), 1), max(round(height / mm), 1)), Image.Resampling.BILINEAR)
