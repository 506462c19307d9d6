"""Axial slices of a volume in HU, whatever its format: from the feet up, each as DICOM would show it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import BadSliceError, brief
from .build import hu_frame
from .dicom_header import Header
from .frame import Frame
from .geometry import MAX_SIDE, check_pixel_size, is_square, nearest_axes
from .limits import InputLimits
from .series import is_axial, position_along, series_key, slice_normal
from .window import Window

_MAX_SLICES = 20_000
_HELD = 192 * 2**20  # bytes of slices that are held at once where they do not lie one after the other in the file
_READ = 32 * 2**20  # bytes read at once for those


@dataclass(frozen=True)
class Volume:
    """A volume of HU whose last axis changes slowest in the file.

    `read` gives the values of a selection (three slices or numbers, as numpy's indexing takes them). `affine` (4 x 4)
    leads from voxel numbers to mm in DICOM's patient axes (left, back, head). `kind` names the format in reports.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    read: Callable[[tuple[int | slice, ...]], np.ndarray]
    kind: str
    has_orientation: bool = True


def check_shape(shape: tuple[int, ...]) -> None:
    """Raise BadSliceError for a shape that no volume has, before anything of it is read."""
    if min(shape) < 1 or max(shape) > _MAX_SLICES:
        raise BadSliceError(f"it claims the size {' x '.join(map(str, shape))}", "too-large")


def volume_frames(volume: Volume, window: Window, limits: InputLimits | None, file: str) -> Iterator[Frame]:
    """Every axial slice, from the feet up; a part of the volume is in memory at a time.

    Raises:
        BadSliceError: its axes are no directions, its slices are too large, or its values cannot be read.
    """
    check_shape(volume.shape)
    affine = np.asarray(volume.affine, dtype=float)
    axes = nearest_axes(affine[:3, :3])
    left, back, head = (axes.index(axis) for axis in range(3))
    height, width = volume.shape[back], volume.shape[left]
    if max(height, width) > MAX_SIDE:
        raise BadSliceError(f"its axial slices have {width} x {height} voxels", "too-large")
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    orientation = tuple(float(part) for axis in (left, back) for part in affine[:3, axis] / steps[axis])
    pixel_mm = check_pixel_size((float(steps[back]), float(steps[left])))
    normal = slice_normal(orientation)
    upwards = affine[2, head] > 0
    order = range(volume.shape[head]) if upwards else range(volume.shape[head] - 1, -1, -1)
    for number, (index, plane) in enumerate(_planes(volume, head, order)):
        header = Header(is_hu=True, orientation=orientation, pixel_mm=pixel_mm)
        if not volume.has_orientation:
            header.warnings.add("orientation-unknown")
        elif normal is None or not is_axial(normal):
            header.codes.add("not-axial")
        if not is_square(pixel_mm):
            header.warnings.add("pixels-not-square")
        yield hu_frame(
            plane if back < left else plane.T,
            {"kind": volume.kind, "frames": len(order)},
            file,
            number,
            window,
            limits=limits,
            header=header,
            series=series_key(file),
            position=position_along(normal, affine[:3, 3] + affine[:3, head] * index),
        )


def _planes(volume: Volume, head: int, order: range) -> Iterator[tuple[int, np.ndarray]]:
    """Each slice with its number along axis `head`, in `order`: float32, the two other axes as they are stored.

    Slices along the last axis lie one after the other in the file. Others are spread all over it, so reading them one
    by one reads the file once for each: it is read in passes instead, each of which collects as many as may be held.
    """
    every = slice(None)
    if head == 2:
        for index in order:
            yield index, _values(volume, (every, every, index), index)
        return
    rows, columns, depth = volume.shape
    of_one = 4 * (columns if head == 0 else rows) * depth
    held_slices, read_layers = max(_HELD // of_one, 1), max(_READ // (8 * rows * columns), 1)
    for start in range(0, len(order), held_slices):
        wanted = order[start : start + held_slices]
        low, high = min(wanted), max(wanted) + 1
        held = np.empty((high - low, columns if head == 0 else rows, depth), np.float32)
        for layer in range(0, depth, read_layers):
            layers = slice(layer, min(layer + read_layers, depth))
            held[:, :, layers] = np.moveaxis(_values(volume, (every, every, layers), low), head, 0)[low:high]
        for index in wanted:
            yield index, held[index - low]


def _values(volume: Volume, where: tuple[int | slice, ...], index: int) -> np.ndarray:
    try:
        return np.asarray(volume.read(where), dtype=np.float32)
    except Exception as error:  # readers of formats meet what is cut short with many kinds of errors
        raise BadSliceError(f"slice {index} cannot be read ({brief(error)})", "truncated") from error
