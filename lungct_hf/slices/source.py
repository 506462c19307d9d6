"""Everything a slice can come from: files, folders, archives, bytes, PIL images, arrays, DICOM data sets, lists."""

from __future__ import annotations

import io
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from ..errors import BadSliceError, LungCTError, UsageError, brief
from .archive import beside_of, folder_items, opener, zip_items
from .array import array_frames
from .build import hu_frame, picture_frame
from .deep import hu_of
from .dicom import dataset_frames, dicom_frames
from .frame import Frame, Unreadable
from .kind import HEAD, VOLUMES, sniff
from .limits import InputLimits
from .listing import printable
from .metaimage import read_metaimage
from .nifti import nifti_frames
from .nrrd_file import read_nrrd
from .numpy_file import numpy_frames
from .order import Item
from .read import read_pages, to_8_bits
from .unpack import MB, check_size, unpacked
from .voxels import Beside, stored_frames
from .window import LUNG_WINDOW, Window

__all__ = ["Frame", "Unreadable", "open_item", "open_slices"]

_MAX_FILE = 600 * MB  # of a file that is decoded in memory: 1,100 slices of 512 x 512 in one DICOM file


@dataclass(frozen=True)
class _How:
    """What `open_slices` was told about every file."""

    window: Window
    limits: InputLimits | None
    hu_offset: float | None


def open_slices(
    source: Any,
    *,
    window: Window = LUNG_WINDOW,
    limits: InputLimits | None = None,
    file: str | None = None,
    hu_offset: float | None = None,
) -> Iterator[Frame | Unreadable]:
    """Read every slice of `source`, one at a time, in the model's window, each with its input report.

    `source` is a path (image, DICOM, NIfTI, MetaImage, NRRD, .npy, zip or folder), bytes, an open binary file, a PIL
    image, an array (HU as int16 or float; uint8 grey or RGB that is windowed already; one slice or a stack), a
    `pydicom.Dataset`, or a list of those. `window` turns HU to grey; pictures of 8 bits are taken to be in it. With
    a model's `limits`
    (`Contract.limits`) slices unlike those that it learned from are refused too, without only what can be no axial
    chest CT at all. `hu_offset`: pictures of 16 and 32 bits, arrays, and volumes without a sign hold HU plus this
    (1024 or 0, mostly). `file` is what rows are called where the source has no name. A file that gives no slice is one
    `Unreadable`. In folders and archives, hidden files and files that only describe others (tables, notes, DICOMDIR)
    are passed over, and the DICOM files of a folder come series by series, from the feet up.

    Raises:
        UsageError: `source` is of a type that is none of these.
    """
    how = _How(window, limits, hu_offset)
    if isinstance(source, list | tuple):
        for index, item in enumerate(source):
            name = None if file is None else f"{file}[{index}]"
            yield from open_slices(item, window=window, limits=limits, file=name, hu_offset=hu_offset)
    elif isinstance(source, str | Path):
        yield from _open_path(Path(source), file or printable(str(source)), how)
    elif isinstance(source, bytes | bytearray | memoryview):
        yield from _guarded(file or "<bytes>", _from_file, io.BytesIO(source), how)
    elif isinstance(source, Image.Image):
        yield from _guarded(file or getattr(source, "filename", "") or "<image>", _from_picture, source, how)
    elif isinstance(source, np.ndarray):
        yield from _guarded(file or "<array>", array_frames, source, window, limits, hu_offset=hu_offset)
    elif _is_dataset(source):
        yield from _guarded(file or "<dataset>", dataset_frames, source, window, limits)
    elif hasattr(source, "read") and hasattr(source, "seek"):
        name = getattr(source, "name", None)
        yield from _guarded(file or (name if isinstance(name, str) else "<file>"), _from_file, source, how)
    else:
        raise UsageError(
            f"A {type(source).__name__} is no source of slices. Fix: give a path, bytes, an open binary file, a PIL "
            "image, a numpy array, a pydicom Dataset, or a list of those."
        )


def _open_path(path: Path, file: str, how: _How) -> Iterator[Frame | Unreadable]:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        is_hidden = isinstance(error, PermissionError)
        yield Unreadable(file, "no-permission" if is_hidden else "not-found", f"It is not there ({brief(error)}).")
        return
    if stat.S_ISDIR(mode):
        yield from _from_items(folder_items(path, file), file, how)
    elif stat.S_ISREG(mode):
        yield from _open_item(Item(file, opener(path), beside=beside_of(path)), how)
    else:  # opening a pipe would wait for ever
        yield Unreadable(file, "unsupported", "It is neither a file nor a folder.")


def open_item(
    item: Item,
    window: Window,
    limits: InputLimits | None = None,
    *,
    nested: bool = False,
    hu_offset: float | None = None,
) -> Iterator[Frame | Unreadable]:
    """Read one file that a folder or an archive listed; `nested`: a member of an archive, which may not be one."""
    yield from _open_item(item, _How(window, limits, hu_offset), nested=nested)


def _open_item(item: Item, how: _How, *, nested: bool = False) -> Iterator[Frame | Unreadable]:
    try:
        handle = item.open()
    except FileNotFoundError:
        yield Unreadable(item.file, "not-found", "The file does not exist.")
    except PermissionError:
        yield Unreadable(item.file, "no-permission", "The file may not be read (permission denied).")
    except BadSliceError as error:
        yield _unreadable(item.file, error)
    else:
        with handle:
            yield from _guarded(item.file, _from_file, handle, how, nested=nested, beside=item.beside)


def _from_items(
    items: Iterator[Item | Unreadable], file: str, how: _How, *, nested: bool = False
) -> Iterator[Frame | Unreadable]:
    count = 0
    for item in items:
        count += 1
        if isinstance(item, Unreadable):
            yield item
        else:
            yield from _open_item(item, how, nested=nested)
    if not count:
        yield Unreadable(file, "not-an-image", "There is no slice in it.")


def _guarded(
    file: str, reader: Callable[..., Iterator[Frame | Unreadable]], *arguments: Any, **options: Any
) -> Iterator[Frame | Unreadable]:
    """Run a reader that raises BadSliceError; what it read before stays, the error becomes the last row."""
    try:
        yield from reader(*arguments, file, **options)
    except LungCTError as error:
        yield _unreadable(file, error)
    except OSError as error:
        yield Unreadable(file, "damaged", f"It cannot be read ({brief(error)}).")


def _unreadable(file: str, error: LungCTError) -> Unreadable:
    text = str(error)
    # Only a missing extra is no BadSliceError.
    reason = error.reason if isinstance(error, BadSliceError) else "unsupported"
    return Unreadable(file, reason, f"{text[:1].upper()}{text[1:].rstrip('.')}.")


def _from_file(
    handle: BinaryIO,
    how: _How,
    file: str,
    *,
    nested: bool = False,
    is_unpacked: bool = False,
    beside: Beside | None = None,
) -> Iterator[Frame | Unreadable]:
    """One seekable binary file; what it is, is told by its first bytes and never by its name.

    `nested` is a member of an archive and `is_unpacked` the content of a gzip file: neither may be packed once more.
    `beside` opens what a header names.
    """
    size = handle.seek(0, io.SEEK_END)
    handle.seek(0)
    head = handle.read(HEAD)
    handle.seek(0)
    if not head:
        raise BadSliceError("it is empty", "truncated")
    kind = sniff(head)
    if kind == "zip" and not (nested or is_unpacked):
        yield from _from_items(zip_items(handle, file), file, how, nested=True)
    elif kind == "gzip" and not is_unpacked:
        with unpacked(handle) as plain:
            yield from _from_file(plain, how, file, nested=nested, is_unpacked=True, beside=beside)
    elif kind in VOLUMES:
        check_size(size)
        if kind == "nifti":
            yield from nifti_frames(handle, size, how.window, how.limits, file)
        elif kind == "numpy":
            yield from numpy_frames(handle, size, how.window, how.limits, file, hu_offset=how.hu_offset)
        else:
            stored = read_metaimage(handle) if kind == "metaimage" else read_nrrd(handle)
            options: dict[str, Any] = {"beside": beside, "hu_offset": how.hu_offset}
            yield from stored_frames(stored, handle, how.window, how.limits, file, **options)
    elif kind == "image":
        check_size(size, _MAX_FILE)
        for number, (page, facts) in enumerate(read_pages(handle, how.hu_offset)):
            if isinstance(page, Image.Image):
                yield picture_frame(page, facts, file, number, limits=how.limits)
            else:
                yield hu_frame(page, facts, file, number, how.window, limits=how.limits)
    elif kind == "dicom":
        check_size(size, _MAX_FILE)
        yield from dicom_frames(handle, how.window, how.limits, file)
    elif kind in ("zip", "gzip"):
        raise BadSliceError("it is an archive inside an archive; unpack the outer one first", "unsupported")
    elif kind:
        raise BadSliceError(f"it is {kind.removeprefix('named:')}, which is not read here", "unsupported")
    else:
        raise BadSliceError("it is neither an image nor DICOM nor a volume nor a zip archive", "not-an-image")


def _is_dataset(source: Any) -> bool:
    """Whether this is a `pydicom.Dataset`, without importing pydicom for those who have none."""
    pydicom = sys.modules.get("pydicom")
    return pydicom is not None and isinstance(source, pydicom.Dataset)


def _from_picture(picture: Image.Image, how: _How, file: str) -> Iterator[Frame]:
    facts = {"kind": (picture.format or "image").lower(), "mode": picture.mode}
    try:
        hu = hu_of(picture, how.hu_offset)
        if hu is not None:
            yield hu_frame(hu, facts, file, 0, how.window, limits=how.limits)
            return
        plain = to_8_bits(picture)
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # a picture opened lazily from a damaged file
        raise BadSliceError(f"it is damaged or cut short ({brief(error)})") from error
    yield picture_frame(plain, facts, file, 0, limits=how.limits)
