"""Slices from numpy arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from ..errors import BadSliceError
from .build import hu_frame, picture_frame
from .frame import Frame
from .limits import InputLimits
from .series import series_key
from .window import Window


def check_array(shape: tuple[int, ...], dtype: np.dtype, hu_offset: float | None = None) -> None:
    """Raise BadSliceError where no array of this shape and type is a slice or a stack of slices."""
    if len(shape) not in (2, 3) or 0 in shape:
        raise BadSliceError(
            f"an array of shape {shape} is no slice: (height, width) or (slices, height, width) is needed",
            "unsupported",
        )
    if dtype == np.uint8 or dtype.kind in "if" or (dtype.kind == "u" and hu_offset is not None):
        return
    raise BadSliceError(
        f"{dtype} values may hold anything: HU as int16 or float, or a windowed slice as uint8, is needed; "
        "--hu-offset 1024 (hu_offset=1024) reads others as HU + 1024",
        "unsupported",
    )


def array_frames(
    array: np.ndarray,
    window: Window,
    limits: InputLimits | None,
    file: str,
    *,
    hu_offset: float | None = None,
    is_file: bool = False,
    number: int = 0,
    of: int = 1,
) -> Iterator[Frame]:
    """One slice (height, width) or a stack (slices, height, width), slice by slice.

    Signed integers and floats are HU (NaN is outside the scan: black), with `hu_offset` HU plus that, then without a
    sign too. uint8 is windowed already: (height, width), (height, width, 3 or 4) or (slices, height, width). The first
    slice is number `number` of `of` in its source, which `is_file` says to be a file and so a scan.

    Raises:
        BadSliceError: the shape or the type fits none of these.
    """
    check_array(array.shape, array.dtype, hu_offset)
    is_colour = array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] in (3, 4)
    stack = array[None] if array.ndim == 2 or is_colour else array
    for at, plane in enumerate(stack, number):
        facts = {"kind": "numpy" if is_file else "array", "mode": str(array.dtype)}
        place: dict[str, Any] = {"limits": limits}
        if is_file and max(of, len(stack)) > 1:
            place |= {"series": series_key(file), "position": float(at)}
        if array.dtype == np.uint8:
            picture = Image.fromarray(np.ascontiguousarray(plane)).convert("L" if plane.ndim == 2 else "RGB")
            yield picture_frame(picture, facts, file, at, **place)
        else:
            hu = plane.astype(np.float32) - np.float32(hu_offset or 0)
            yield hu_frame(hu, facts, file, at, window, **place)
