"""Voxels that lie in a file as a header describes them: MetaImage's and NRRD's, read part by part by nibabel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from ..errors import BadSliceError, require
from .frame import Frame
from .limits import InputLimits
from .unpack import check_size, unpacked
from .volume import Volume, check_shape, volume_frames
from .window import Window

Beside = Callable[[str], BinaryIO]  # opens a file by its name in the same folder or archive; raises FileNotFoundError


@dataclass(frozen=True)
class Stored:
    """What a header says: voxels of `shape` (two or three axes) and `dtype`, the first axis changing fastest.

    They are from byte `offset` on (-1: they end the file) of the same file or of the one called `data_file`, packed as
    "gzip" or "bzip2" or not at all.

    `affine` (4 x 4) leads from voxel numbers to mm to the left, the back and the head.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: np.dtype
    affine: np.ndarray
    has_orientation: bool
    offset: int
    data_file: str | None
    packing: str | None


def stored_frames(
    stored: Stored,
    handle: BinaryIO,
    window: Window,
    limits: InputLimits | None,
    file: str,
    *,
    beside: Beside | None,
    hu_offset: float | None,
) -> Iterator[Frame]:
    """Every axial slice of a volume whose header was read from `handle`.

    Raises:
        BadSliceError: its values can be no HU, or are not there.
        LungCTError: nibabel is not installed.
    """
    require("nibabel", "volumes")
    from nibabel.arrayproxy import ArrayProxy

    check_shape(stored.shape)
    shift = shift_of(stored.dtype, hu_offset)
    needed = int(np.prod(stored.shape, dtype=float)) * stored.dtype.itemsize
    check_size(needed)
    with _opened(stored, handle, beside) as data:
        start = stored.offset
        if stored.packing is not None:
            data.seek(max(start, 0))
            data, start = unpacked(data, stored.packing), 0
        size = data.seek(0, 2)
        start = size - needed if start < 0 else start
        if start < 0 or start + needed > size:
            stated = " x ".join(map(str, stored.shape))
            raise BadSliceError(f"it holds fewer voxels than the {stated} that it states", "truncated")
        columns, rows, *depth = stored.shape
        full = (columns, rows, depth[0] if depth else 1)
        proxy = ArrayProxy(data, (full, stored.dtype, start, 1.0, -shift), mmap=False)
        volume = Volume(full, stored.affine, proxy.__getitem__, stored.kind, stored.has_orientation)
        yield from volume_frames(volume, window, limits, file)


def shift_of(dtype: np.dtype, hu_offset: float | None) -> float:
    """What is to be taken off stored values to get HU.

    Raises:
        BadSliceError: they can be no HU, or nobody says how they lie to HU.
    """
    if dtype.kind not in "iuf" or dtype.itemsize == 1:
        raise BadSliceError(f"its values are {dtype}, which cannot hold HU (a mask, a picture?)", "unsupported")
    if dtype.kind == "u" and hu_offset is None:
        raise BadSliceError(
            f"its values are {dtype}, which have no sign, so they are no plain HU; --hu-offset 1024 (hu_offset=1024) "
            "reads them as HU + 1024",
            "unsupported",
        )
    return hu_offset or 0.0


def directions(vectors: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """The affine (4 x 4) of two or three axes, whose steps in mm are the columns of `vectors`."""
    affine = np.eye(4)
    affine[: len(vectors), : vectors.shape[1]] = vectors
    affine[: len(origin), 3] = origin
    return affine


def plain_name(name: str) -> str:
    """A file's name as a header gives it. Raises BadSliceError where it may lead out of the header's folder."""
    if not name or "/" in name or "\\" in name or name in (".", "..") or ":" in name or "\0" in name:
        raise BadSliceError("its header names voxels in another folder, which is not opened", "unsupported")
    return name


def _opened(stored: Stored, handle: BinaryIO, beside: Beside | None) -> BinaryIO:
    if stored.data_file is None:
        return _Borrowed(handle)  # type: ignore[return-value]
    name = plain_name(stored.data_file)
    if beside is None:
        raise BadSliceError(
            "its voxels are in a file of their own; send both in one folder or archive, or as one .mha or .nrrd file",
            "unsupported",
        )
    try:
        return beside(name)
    except FileNotFoundError as error:
        raise BadSliceError("the file with its voxels, which its header names, is not there", "not-found") from error


class _Borrowed:
    """A handle that whoever opened it closes."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle

    def __enter__(self) -> BinaryIO:
        return self._handle

    def __exit__(self, *_: object) -> None:
        return None
