"""NumPy files (.npy): a slice or a volume, (height, width) or (slices, height, width), read slice by slice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from ..errors import BadSliceError, brief
from .array import array_frames, check_array
from .frame import Frame
from .limits import InputLimits
from .unpack import MB, check_size
from .window import Window

_WHOLE = 384 * MB  # of an array whose slices do not lie one after the other (Fortran order), which is read at once


def numpy_frames(
    handle: BinaryIO, size: int, window: Window, limits: InputLimits | None, file: str, *, hu_offset: float | None
) -> Iterator[Frame]:
    """Every slice of an array; what its values are, `array_frames` says.

    Raises:
        BadSliceError: the header is damaged, the values cannot be a CT slice's, or the file holds fewer than it says.
    """
    shape, by_columns, dtype = _header(handle)
    check_array(shape, dtype, hu_offset)
    start, needed = handle.tell(), int(np.prod(shape, dtype=float)) * dtype.itemsize
    if start + needed > size:
        raise BadSliceError("it holds fewer values than its header states", "truncated")
    check_size(needed)
    is_stack = len(shape) == 3 and not (dtype == np.uint8 and shape[2] in (3, 4))
    if not is_stack or by_columns:
        check_size(needed, _WHOLE)
        whole = np.frombuffer(handle.read(needed), dtype).reshape(shape, order="F" if by_columns else "C")
        yield from array_frames(whole, window, limits, file, hu_offset=hu_offset, is_file=True)
        return
    one = needed // shape[0]
    check_size(one, _WHOLE)
    for number in range(shape[0]):
        plane = np.frombuffer(handle.read(one), dtype).reshape(shape[1:])
        yield from array_frames(
            plane, window, limits, file, hu_offset=hu_offset, is_file=True, number=number, of=shape[0]
        )


def _header(handle: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether the first axis changes fastest, and type."""
    try:
        version = npy.read_magic(handle)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version[0]}.{version[1]}")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, by_columns, dtype = read(handle)
    except Exception as error:  # the header is a line of Python, and a damaged one fails in many ways
        raise BadSliceError(f"its NumPy header is damaged ({brief(error)})") from error
    return shape, bool(by_columns), dtype
