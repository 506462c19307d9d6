"""Axial slices from NIfTI volumes in HU, laid out like DICOM's: front of the body up, its right side at the left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from ..errors import BadSliceError, brief, require
from .frame import Frame
from .limits import InputLimits
from .volume import Volume, check_shape, volume_frames
from .window import Window

_TO_DICOM = np.diag([-1.0, -1.0, 1.0, 1.0])  # NIfTI's axes point to the right and the front, DICOM's the other way


def nifti_frames(
    handle: BinaryIO, size: int, window: Window, limits: InputLimits | None, file: str
) -> Iterator[Frame]:
    """Every axial slice of a volume of `size` bytes, from the feet up.

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
    check_shape(shape)
    if float(image.dataobj.offset) + float(np.prod(shape, dtype=float)) * itemsize > size:
        raise BadSliceError(
            f"it holds fewer voxels than the {' x '.join(map(str, shape))} that it states", "truncated"
        )
    # An axis of a picture of one slice has length 1.
    full = (*shape, *(1 for _ in range(3 - len(shape))))
    data = image.dataobj if len(image.shape) == 3 else image.dataobj.reshape(full)
    has_orientation = int(image.header["qform_code"]) > 0 or int(image.header["sform_code"]) > 0
    volume = Volume(full, _TO_DICOM @ image.affine, data.__getitem__, "nifti", has_orientation)
    yield from volume_frames(volume, window, limits, file)


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
