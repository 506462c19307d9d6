"""The header of a MetaImage (.mhd with .raw or .zraw, .mha): ITK's own format, in which LUNA16 comes."""

from __future__ import annotations

import re
from typing import BinaryIO

import numpy as np

from ..errors import BadSliceError
from .voxels import Stored, directions

_MAX_HEADER = 64 * 1024
_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}


def read_metaimage(handle: BinaryIO) -> Stored:
    """The header of a MetaImage. Raises BadSliceError: it is damaged, or says what is not read here."""
    head = handle.read(_MAX_HEADER)
    found = re.search(rb"(?:^|\n)[ \t]*ElementDataFile[ \t]*=[ \t]*([^\r\n]*)(\r?\n|$)", head)
    if found is None:
        raise BadSliceError("its MetaImage header has no end (ElementDataFile)", "truncated")
    fields: dict[str, str] = {}
    for line in head[: found.start()].decode("latin-1").splitlines():
        name, mark, value = line.partition("=")
        if mark:
            fields[name.strip()] = value.strip()
    try:
        return _stored(fields, found[1].decode("utf-8").strip(), found.end())
    except (ValueError, KeyError, OverflowError) as error:
        raise BadSliceError("its MetaImage header is damaged: a number or a field is missing") from error


def _stored(fields: dict[str, str], data: str, end: int) -> Stored:
    axes = int(fields["NDims"])
    shape = tuple(int(value) for value in fields["DimSize"].split())
    if not 2 <= axes <= 3 or len(shape) != axes:
        raise BadSliceError(f"it has {axes} axes, and a CT volume has three", "unsupported")
    kind = fields["ElementType"]
    if kind not in _TYPES or int(fields.get("ElementNumberOfChannels", "1")) != 1:
        raise BadSliceError("its voxels are of a type, or of several channels, that are not read here", "unsupported")
    if fields.get("BinaryData", "True").lower() != "true":
        raise BadSliceError("its voxels are written as text; write them in binary", "unsupported")
    if data.upper().startswith("LIST") or "%" in data:
        raise BadSliceError("its voxels are spread over many files; write them into one", "unsupported")
    order = ">" if _is_true(fields, "BinaryDataByteOrderMSB", "ElementByteOrderMSB") else "<"
    # Each axis has a line of its own in the matrix (MetaIO), so the lines become columns.
    turned = _numbers(fields, axes * axes, "TransformMatrix", "Rotation", "Orientation")
    vectors = (np.eye(axes) if turned is None else turned.reshape(axes, axes)).T
    spacing = _numbers(fields, axes, "ElementSpacing", "ElementSize")
    origin = _numbers(fields, axes, "Offset", "Position", "Origin")
    is_local, skipped = data.upper() == "LOCAL", int(fields.get("HeaderSize", "0"))
    return Stored(
        kind="metaimage",
        shape=shape,
        dtype=np.dtype(f"{order}{_TYPES[kind]}"),
        affine=directions(
            vectors * (np.ones(axes) if spacing is None else spacing), np.zeros(axes) if origin is None else origin
        ),
        has_orientation=axes == 3 and turned is not None,
        offset=end if is_local else skipped,
        data_file=None if is_local else data,
        packing="gzip" if _is_true(fields, "CompressedData") else None,
    )


def _is_true(fields: dict[str, str], *names: str) -> bool:
    return any(fields.get(name, "").lower() == "true" for name in names)


def _numbers(fields: dict[str, str], count: int, *names: str) -> np.ndarray | None:
    """The first of these fields that is there, as finite numbers. Raises ValueError."""
    text = next((fields[name] for name in names if name in fields), None)
    if text is None:
        return None
    values = np.array([float(value) for value in text.split()])
    if len(values) != count or not np.isfinite(values).all():
        raise ValueError(text)
    return values
