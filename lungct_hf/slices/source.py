"""Everything a slice can come from: files, folders, archives, bytes, PIL images, arrays, DICOM data sets, lists."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from ..errors import BadSliceError, UsageError
from .array import array_frames
from .build import picture_frame
from .dicom import dataset_frames, dicom_frames
from .frame import Frame, Unreadable
from .kind import HEAD, sniff
from .read import read_pages, to_rgb
from .window import LUNG_WINDOW, Window

__all__ = ["Frame", "Unreadable", "open_slices"]

_MAX_FILE = 600 * 2**20  # bytes of one file: a series of 1,100 slices of 512 x 512 in one


def open_slices(source: Any, *, window: Window = LUNG_WINDOW, file: str | None = None) -> Iterator[Frame | Unreadable]:
    """Read every slice of `source`, one at a time, in the model's window, each with its input report.

    `source` is a path (image, DICOM, NIfTI, zip or folder), bytes, an open binary file, a PIL image, an array (HU as
    int16 or float; uint8 grey or RGB that is windowed already; one slice or a stack), a `pydicom.Dataset`, or a list
    of those. `window` turns HU to grey; pictures of 8 bits are taken to be in it. `file` is what rows are called where
    the source has no name. A file that gives no slice is one `Unreadable`.

    Raises:
        UsageError: `source` is of a type that is none of these.
    """
    if isinstance(source, list | tuple):
        for index, item in enumerate(source):
            yield from open_slices(item, window=window, file=None if file is None else f"{file}[{index}]")
    elif isinstance(source, str | Path):
        yield from _open_path(Path(source), file or str(source), window)
    elif isinstance(source, bytes | bytearray | memoryview):
        yield from open_file(io.BytesIO(source), file or "<bytes>", window)
    elif isinstance(source, Image.Image):
        yield from _guarded(file or getattr(source, "filename", "") or "<image>", _from_picture, source)
    elif isinstance(source, np.ndarray):
        yield from _guarded(file or "<array>", array_frames, source, window)
    elif _is_dataset(source):
        yield from _guarded(file or "<dataset>", dataset_frames, source, window)
    elif hasattr(source, "read") and hasattr(source, "seek"):
        name = getattr(source, "name", None)
        yield from open_file(source, file or (name if isinstance(name, str) else "<file>"), window)
    else:
        raise UsageError(
            f"A {type(source).__name__} is no source of slices. Fix: give a path, bytes, an open binary file, a PIL "
            "image, a numpy array, a pydicom Dataset, or a list of those."
        )


def open_file(handle: BinaryIO, file: str, window: Window) -> Iterator[Frame | Unreadable]:
    """The slices of one seekable binary file, whatever its name says: what it is, is told by its first bytes."""
    yield from _guarded(file, _from_file, handle, window)


def _open_path(path: Path, file: str, window: Window) -> Iterator[Frame | Unreadable]:
    try:
        if path.exists() and not path.is_file():
            yield Unreadable(file, "unsupported", "It is neither a file nor a folder.")
            return
        handle = path.open("rb")
    except FileNotFoundError:
        yield Unreadable(file, "not-found", "The file does not exist.")
    except PermissionError:
        yield Unreadable(file, "no-permission", "The file may not be read (permission denied).")
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        yield Unreadable(file, "damaged", f"The file cannot be opened ({error}).")
    else:
        with handle:
            yield from open_file(handle, file, window)


def _guarded(file: str, reader: Any, *arguments: Any) -> Iterator[Frame | Unreadable]:
    """Run a reader that raises BadSliceError; what it read before stays, the error becomes the last row."""
    try:
        yield from reader(*arguments, file)
    except BadSliceError as error:
        text = str(error)
        yield Unreadable(file, error.reason, f"{text[:1].upper()}{text[1:]}.")


def _from_file(handle: BinaryIO, window: Window, file: str) -> Iterator[Frame | Unreadable]:
    handle.seek(0, io.SEEK_END)
    size = handle.tell()
    handle.seek(0)
    head = handle.read(HEAD)
    handle.seek(0)
    if not head:
        raise BadSliceError("it is empty", "truncated")
    if size > _MAX_FILE:
        raise BadSliceError(f"it has {size / 2**20:,.0f} MB (limit {_MAX_FILE // 2**20} MB for one file)", "too-large")
    kind = sniff(head)
    if kind == "image":
        for number, (picture, facts) in enumerate(read_pages(handle)):
            yield picture_frame(picture, facts, file, number)
    elif kind == "dicom":
        yield from dicom_frames(handle, window, file)
    elif kind.startswith("named:"):
        raise BadSliceError(f"it is {kind.removeprefix('named:')}, which is not read here", "unsupported")
    else:
        raise BadSliceError("it is neither an image nor DICOM nor NIfTI nor a zip archive", "not-an-image")


def _is_dataset(source: Any) -> bool:
    """Whether this is a `pydicom.Dataset`, without importing pydicom for those who have none."""
    pydicom = sys.modules.get("pydicom")
    return pydicom is not None and isinstance(source, pydicom.Dataset)


def _from_picture(picture: Image.Image, file: str) -> Iterator[Frame]:
    facts = {"kind": (picture.format or "image").lower(), "mode": picture.mode}
    try:
        rgb = to_rgb(picture)
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # a picture opened lazily from a damaged file
        raise BadSliceError(f"it is damaged or cut short ({error})") from error
    yield picture_frame(rgb, facts, file, 0)
