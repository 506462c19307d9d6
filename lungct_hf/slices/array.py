"""Slices from numpy arrays."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from ..errors import BadSliceError
from .build import hu_frame, picture_frame
from .frame import Frame
from .limits import InputLimits
from .window import Window


def array_frames(array: np.ndarray, window: Window, limits: InputLimits | None, file: str) -> Iterator[Frame]:
    """One slice (height, width) or a stack (slices, height, width), slice by slice.

    Signed integers and floats are HU (NaN is outside the scan: black). uint8 is windowed already: (height, width),
    (height, width, 3 or 4) or (slices, height, width).

    Raises:
        BadSliceError: the shape or the type fits none of these.
    """
    kind, shape = array.dtype.kind, array.shape
    is_colour = array.dtype == np.uint8 and array.ndim == 3 and shape[2] in (3, 4)
    if array.ndim not in (2, 3) or 0 in shape:
        raise BadSliceError(
            f"an array of shape {shape} is no slice: (height, width) or (slices, height, width) is needed",
            "unsupported",
        )
    if not (array.dtype == np.uint8 or kind in "if"):
        raise BadSliceError(
            f"{array.dtype} values may hold anything: HU as int16 or float, or a windowed slice as uint8, is needed",
            "unsupported",
        )
    stack = array[None] if array.ndim == 2 or is_colour else array
    for number, plane in enumerate(stack):
        facts = {"kind": "array", "mode": str(array.dtype)}
        if kind in "if":
            hu = np.nan_to_num(plane.astype(np.float32), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
            yield hu_frame(hu, facts, file, number, window, limits=limits)
        else:
            picture = Image.fromarray(np.ascontiguousarray(plane)).convert("L" if plane.ndim == 2 else "RGB")
            yield picture_frame(picture, facts, file, number, limits=limits)
