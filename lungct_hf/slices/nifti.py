"""Axial slices from NIfTI volumes in HU, laid out like DICOM's: front of the body up, its right side at the left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from ..errors import BadSliceError, brief, require
from .build import hu_frame
from .dicom_header import Header
from .frame import Frame
from .limits import InputLimits
from .series import is_axial, series_key
from .window import Window

_MAX_SIDE = 4096
_MAX_SLICES = 20_000


def nifti_frames(
    handle: BinaryIO, size: int, window: Window, limits: InputLimits | None, file: str
) -> Iterator[Frame]:
    """Every axial slice of a volume of `size` bytes, from the feet up; one slice at a time is in memory.

    Raises:
        BadSliceError: the header is damaged, asks for too much, or the file holds less than it says.
        LungCTError: nibabel is not installed.
    """
    require("nibabel", "nifti")
    image = _open(handle)
    shape, itemsize = image.shape, image.get_data_dtype().itemsize
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if not 2 <= len(shape) <= 3 or image.get_data_dtype().kind not in "iuf":
        raise BadSliceError(
            f"a NIfTI of shape {image.shape} and type {image.get_data_dtype()} is no CT volume", "unsupported"
        )
    if min(shape) < 1 or max(shape) > _MAX_SLICES:
        raise BadSliceError(f"it claims the size {' x '.join(map(str, shape))}", "too-large")
    if float(image.dataobj.offset) + float(np.prod(shape, dtype=float)) * itemsize > size:
        raise BadSliceError(
            f"it holds fewer voxels than the {' x '.join(map(str, shape))} that it states", "truncated"
        )
    yield from _slices(image, shape, window, limits, file)


def _open(handle: BinaryIO) -> Any:
    import nibabel

    head = handle.read(348)
    handle.seek(0)
    if b"ni1" == head[344:347] or b"ni2" == head[4:7]:
        raise BadSliceError("it is the header of a NIfTI pair; convert the pair to one .nii file", "unsupported")
    version_2 = head[4:7] == b"n+2"
    try:
        image = (nibabel.Nifti2Image if version_2 else nibabel.Nifti1Image).from_stream(handle)
        if not np.isfinite(image.affine).all():
            raise ValueError("its affine matrix is not finite")
    except Exception as error:  # nibabel meets damaged headers with many kinds of errors
        raise BadSliceError(f"its NIfTI header is damaged ({brief(error)})") from error
    return image


def _slices(
    image: Any, shape: tuple[int, ...], window: Window, limits: InputLimits | None, file: str
) -> Iterator[Frame]:
    from nibabel.orientations import io_orientation

    # RAS+: for each voxel axis the body axis it runs along (0 right, 1 front, 2 head), and whether with it or against.
    orientation = io_orientation(image.affine)
    if np.isnan(orientation).any():
        raise BadSliceError("its affine matrix has an axis without a direction")
    body_axes = orientation[:, 0].astype(int)
    # An axis of a picture of one slice has length 1.
    full = (*shape, *(1 for _ in range(3 - len(shape))))
    right, front, head = (int(np.flatnonzero(body_axes == axis)[0]) for axis in range(3))
    if max(full[right], full[front]) > _MAX_SIDE:
        raise BadSliceError(f"its axial slices have {full[right]} x {full[front]} voxels", "too-large")
    step = image.affine[:3, head] / max(float(np.linalg.norm(image.affine[:3, head])), 1e-12)
    header_bytes = image.header
    has_orientation = int(header_bytes["qform_code"]) > 0 or int(header_bytes["sform_code"]) > 0
    order = range(full[head]) if orientation[head, 1] > 0 else range(full[head] - 1, -1, -1)
    data = image.dataobj if len(image.shape) == 3 else image.dataobj.reshape(full)
    for number, index in enumerate(order):
        where: list[Any] = [slice(None)] * 3
        where[head] = index
        try:
            plane = np.asarray(data[tuple(where)], dtype=np.float32)
        except Exception as error:
            raise BadSliceError(f"slice {index} cannot be read ({brief(error)})", "truncated") from error
        if right < front:
            plane = plane.T  # rows run from front to back
        # Pictures run from the body's right to its left and from front to back: against RAS+.
        plane = plane[:: -1 if orientation[front, 1] > 0 else 1, :: -1 if orientation[right, 1] > 0 else 1]
        header = Header(is_hu=True)
        if not has_orientation:
            header.warnings.add("orientation-unknown")
        elif not is_axial(step):
            header.codes.add("not-axial")
        position = float(image.affine[2, 3] + image.affine[2, head] * index)
        hu = np.nan_to_num(plane, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
        facts = {"kind": "nifti", "frames": full[head]}
        yield hu_frame(
            hu,
            facts,
            file,
            number,
            window,
            limits=limits,
            header=header,
            series=series_key(file),
            position=round(position, 4),
        )
