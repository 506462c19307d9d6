"""The header of an NRRD (.nrrd, .nhdr with its voxels beside it), as 3D Slicer writes volumes; pynrrd parses it."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

import numpy as np

from ..errors import BadSliceError, brief, require
from .read import quiet
from .voxels import Stored, directions

_MAX_HEADER = 256 * 1024
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_PACKINGS = {"raw": None, "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
# For each way to name the axes of space, what turns it into left, back, head.
_SPACES = {
    "left-posterior-superior": (1, 1, 1),
    "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1),
}


def read_nrrd(handle: BinaryIO) -> Stored:
    """The header of an NRRD.

    Raises:
        BadSliceError: it is damaged, or says what is not read here.
        LungCTError: pynrrd is not installed.
    """
    require("nrrd", "volumes")
    import nrrd

    try:
        with quiet():
            # A part: pynrrd reads line by line, and what is no text need not have line ends.
            head = io.BytesIO(handle.read(_MAX_HEADER))
            header = nrrd.read_header(head)
        return _stored(header, head.tell())
    except BadSliceError:
        raise
    except Exception as error:  # pynrrd meets damaged headers with many kinds of errors
        raise BadSliceError(f"its NRRD header is damaged ({brief(error)})") from error


def _stored(header: dict[str, Any], end: int) -> Stored:
    shape = tuple(int(size) for size in header["sizes"])
    kind = next((code for code, names in _TYPES.items() if str(header["type"]).lower() in names), None)
    if kind is None:
        raise BadSliceError("its voxels are of a type that is not read here", "unsupported")
    if not 2 <= len(shape) <= 3:
        raise BadSliceError(f"it has {len(shape)} axes, and a CT volume has three", "unsupported")
    encoding = str(header["encoding"]).lower()
    if encoding not in _PACKINGS:
        raise BadSliceError(f"its voxels are written as {encoding[:20]}; write them raw or gzip", "unsupported")
    data = header.get("data file", header.get("datafile"))
    if data is not None and (not isinstance(data, str) or "%" in data or data.upper().startswith("LIST")):
        raise BadSliceError("its voxels are spread over many files; write them into one", "unsupported")
    lines, skipped = (int(header.get(f"{name} skip", header.get(f"{name}skip", 0))) for name in ("line", "byte"))
    if lines:
        raise BadSliceError("it skips lines before its voxels (line skip), which is not read here", "unsupported")
    order = ">" if str(header.get("endian", "little")).lower() == "big" else "<"
    affine, has_orientation = _geometry(header, len(shape))
    start = 0 if data else end
    return Stored(
        kind="nrrd",
        shape=shape,
        dtype=np.dtype(f"{order}{kind}"),
        affine=affine,
        has_orientation=has_orientation,
        offset=-1 if skipped < 0 else start + skipped,
        data_file=data,
        packing=_PACKINGS[encoding],
    )


def _geometry(header: dict[str, Any], axes: int) -> tuple[np.ndarray, bool]:
    signs = _SPACES.get(str(header.get("space", "")).lower())
    steps = header.get("space directions")
    if steps is None or signs is None or axes != 3:
        spacings = np.asarray(header.get("spacings", np.ones(axes)), float)
        return directions(np.diag(np.where(np.isfinite(spacings), spacings, 1.0)), np.zeros(axes)), False
    # One line for each axis of the voxels.
    vectors = np.asarray(steps, float).reshape(3, 3).T * np.array(signs)[:, None]
    origin = np.asarray(header.get("space origin", np.zeros(3)), float) * signs
    if not (np.isfinite(vectors).all() and np.isfinite(origin).all()):
        raise BadSliceError("an axis of its NRRD header has no direction")
    return directions(vectors, origin), True
