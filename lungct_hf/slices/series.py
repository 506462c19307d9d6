"""Which scan a slice belongs to and where it lies in it, from DICOM's geometry."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import UsageError

_AXIAL = 0.8  # of the slice normal along the body: gantries tilt by up to 30 degrees (cosine 0.87)


def series_key(uid: Any) -> str | None:
    """A key of 16 hex digits that groups the slices of a series without showing its SeriesInstanceUID.

    It is a one-way hash without a secret: somebody who has the UID already can tell that the key is its.
    """
    text = str(uid or "").strip()
    return hashlib.sha256(f"lungct-hf series {text}".encode()).hexdigest()[:16] if text else None


def numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """`value` as `count` finite floats, or None."""
    try:
        found = tuple(float(item) for item in value)
    except (TypeError, ValueError):
        return None
    return found if len(found) == count and all(map(math.isfinite, found)) else None


def slice_normal(orientation: Sequence[float] | None) -> np.ndarray | None:
    """The unit normal of a slice, turned to point towards the head, from its six direction cosines (PS3.3 C.7.6.2)."""
    if orientation is None:
        return None
    normal = np.cross(orientation[:3], orientation[3:])
    length = float(np.linalg.norm(normal))
    if length < 0.5:  # the two axes are not at right angles: not an orientation
        return None
    return normal / length * (1.0 if normal[2] >= 0 else -1.0)


def is_axial(normal: np.ndarray) -> bool:
    return bool(abs(normal[2]) >= _AXIAL)


def is_upright(orientation: Sequence[float]) -> bool:
    """Whether the patient's left is at the picture's right and the back below, as usual."""
    return orientation[0] > 0.7 and orientation[4] > 0.7


def position_along(normal: np.ndarray | None, corner: Sequence[float] | None) -> float | None:
    """Millimetres along the slice normal, growing towards the head, or None where the file does not say."""
    if normal is None or corner is None:
        return None
    return round(float(np.dot(normal, corner)), 4)


def parse_positions(text: str) -> tuple[float, float] | None:
    """The range of positions that --slices names, or None for "all" and "listed". Raises UsageError."""
    if text in ("all", "listed"):
        return None
    match = re.fullmatch(r"([01]?\.?[0-9]*)-([01]?\.?[0-9]*)", text.strip())
    try:
        low, high = (float(part) for part in match.groups()) if match else (1.0, 0.0)
    except ValueError:
        low, high = 1.0, 0.0
    if not 0 <= low < high <= 1:
        raise UsageError(f'--slices is "{text}"; all, listed, or a range of positions like 0.2-0.8 is needed.')
    return low, high
