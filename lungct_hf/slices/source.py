"""Everything a slice can come from: files, folders, archives, bytes, PIL images, arrays, DICOM data sets, lists."""

from __future__ import annotations

import io
import stat
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import Image

from ..errors import BadSliceError, LungCTError, UsageError, brief
from .archive import folder_items, opener, zip_items
from .array import array_frames
from .build import picture_frame
from .dicom import dataset_frames, dicom_frames
from .frame import Frame, Unreadable
from .kind import HEAD, sniff
from .limits import InputLimits
from .listing import printable
from .nifti import nifti_frames
from .order import Item
from .read import read_pages, to_8_bits
from .window import LUNG_WINDOW, Window

__all__ = ["Frame", "Unreadable", "open_item", "open_slices"]

_MB = 2**20
_MAX_FILE = 600 * _MB  # of a file that is decoded in memory: 1,100 slices of 512 x 512 in one DICOM file
_MAX_VOLUME = 2048 * _MB  # of a NIfTI volume, which is read slice by slice
_GZIP_IN_MEMORY = 64 * _MB
_BLOCK = _MB


def open_slices(
    source: Any, *, window: Window = LUNG_WINDOW, limits: InputLimits | None = None, file: str | None = None
) -> Iterator[Frame | Unreadable]:
    """Read every slice of `source`, one at a time, in the model's window, each with its input report.

    `source` is a path (image, DICOM, NIfTI, zip or folder), bytes, an open binary file, a PIL image, an array (HU as
    int16 or float; uint8 grey or RGB that is windowed already; one slice or a stack), a `pydicom.Dataset`, or a list
    of those. `window` turns HU to grey; pictures of 8 bits are taken to be in it. With a model's `limits`
    (`Contract.limits`) slices unlike those that it learned from are refused too, without only what can be no axial
    chest CT at all. `file` is what rows are called where the source has no name. A file that gives no slice is one
    `Unreadable`. In folders and archives, hidden files and files that only describe others (tables, notes, DICOMDIR)
    are passed over, and the DICOM files of a folder come series by series, from the feet up.

    Raises:
        UsageError: `source` is of a type that is none of these.
    """
    if isinstance(source, list | tuple):
        for index, item in enumerate(source):
            yield from open_slices(
                item, window=window, limits=limits, file=None if file is None else f"{file}[{index}]"
            )
    elif isinstance(source, str | Path):
        yield from _open_path(Path(source), file or printable(str(source)), window, limits)
    elif isinstance(source, bytes | bytearray | memoryview):
        yield from _guarded(file or "<bytes>", _from_file, io.BytesIO(source), window, limits)
    elif isinstance(source, Image.Image):
        yield from _guarded(file or getattr(source, "filename", "") or "<image>", _from_picture, source, limits)
    elif isinstance(source, np.ndarray):
        yield from _guarded(file or "<array>", array_frames, source, window, limits)
    elif _is_dataset(source):
        yield from _guarded(file or "<dataset>", dataset_frames, source, window, limits)
    elif hasattr(source, "read") and hasattr(source, "seek"):
        name = getattr(source, "name", None)
        yield from _guarded(file or (name if isinstance(name, str) else "<file>"), _from_file, source, window, limits)
    else:
        raise UsageError(
            f"A {type(source).__name__} is no source of slices. Fix: give a path, bytes, an open binary file, a PIL "
            "image, a numpy array, a pydicom Dataset, or a list of those."
        )


def _open_path(path: Path, file: str, window: Window, limits: InputLimits | None) -> Iterator[Frame | Unreadable]:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        is_hidden = isinstance(error, PermissionError)
        yield Unreadable(file, "no-permission" if is_hidden else "not-found", f"It is not there ({brief(error)}).")
        return
    if stat.S_ISDIR(mode):
        yield from _from_items(folder_items(path, file), file, window, limits)
    elif stat.S_ISREG(mode):
        yield from open_item(Item(file, opener(path)), window, limits)
    else:  # opening a pipe would wait for ever
        yield Unreadable(file, "unsupported", "It is neither a file nor a folder.")


def open_item(
    item: Item, window: Window, limits: InputLimits | None = None, *, nested: bool = False
) -> Iterator[Frame | Unreadable]:
    """Read one file that a folder or an archive listed; `nested`: a member of an archive, which may not be one."""
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
            yield from _guarded(item.file, _from_file, handle, window, limits, nested=nested)


def _from_items(
    items: Iterator[Item | Unreadable], file: str, window: Window, limits: InputLimits | None, *, nested: bool = False
) -> Iterator[Frame | Unreadable]:
    count = 0
    for item in items:
        count += 1
        if isinstance(item, Unreadable):
            yield item
        else:
            yield from open_item(item, window, limits, nested=nested)
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
    window: Window,
    limits: InputLimits | None,
    file: str,
    *,
    nested: bool = False,
    unpacked: bool = False,
) -> Iterator[Frame | Unreadable]:
    """One seekable binary file; what it is, is told by its first bytes and never by its name.

    `nested` is a member of an archive and `unpacked` the content of a gzip file: neither may be packed once more.
    """
    size = handle.seek(0, io.SEEK_END)
    handle.seek(0)
    head = handle.read(HEAD)
    handle.seek(0)
    if not head:
        raise BadSliceError("it is empty", "truncated")
    kind = sniff(head)
    if kind == "zip" and not (nested or unpacked):
        yield from _from_items(zip_items(handle, file), file, window, limits, nested=True)
    elif kind == "gzip" and not unpacked:
        with tempfile.SpooledTemporaryFile(_GZIP_IN_MEMORY) as content:
            plain = cast(BinaryIO, content)
            _gunzip(handle, plain)
            yield from _from_file(plain, window, limits, file, nested=nested, unpacked=True)
    elif kind == "nifti":
        _check_size(size, _MAX_VOLUME)
        yield from nifti_frames(handle, size, window, limits, file)
    elif kind == "image":
        _check_size(size, _MAX_FILE)
        for number, (picture, facts) in enumerate(read_pages(handle)):
            yield picture_frame(picture, facts, file, number, limits=limits)
    elif kind == "dicom":
        _check_size(size, _MAX_FILE)
        yield from dicom_frames(handle, window, limits, file)
    elif kind in ("zip", "gzip"):
        raise BadSliceError("it is an archive inside an archive; unpack the outer one first", "unsupported")
    elif kind:
        raise BadSliceError(f"it is {kind.removeprefix('named:')}, which is not read here", "unsupported")
    else:
        raise BadSliceError("it is neither an image nor DICOM nor NIfTI nor a zip archive", "not-an-image")


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise BadSliceError(f"it has {size / _MB:,.0f} MB (limit {limit // _MB:,} MB)", "too-large")


def _gunzip(packed: BinaryIO, content: BinaryIO) -> None:
    """Unpack a gzip file block by block, so that a bomb is noticed before it fills anything."""
    unpacker, total, block = zlib.decompressobj(16 + zlib.MAX_WBITS), 0, b""
    try:
        while block := block or packed.read(_BLOCK):
            if unpacker.eof:
                if not block.startswith(b"\x1f"):  # what follows the last member is ignored, as gzip does
                    break
                unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)  # another member (RFC 1952), as bgzip writes them
            part = unpacker.decompress(block, _BLOCK)
            total += len(part)
            _check_size(total, _MAX_VOLUME)
            content.write(part)
            block = unpacker.unconsumed_tail or unpacker.unused_data
    except zlib.error as error:
        raise BadSliceError(f"it cannot be unpacked ({brief(error)})") from error
    if not unpacker.eof:
        raise BadSliceError("its packed content ends too early", "truncated")
    content.seek(0)


def _is_dataset(source: Any) -> bool:
    """Whether this is a `pydicom.Dataset`, without importing pydicom for those who have none."""
    pydicom = sys.modules.get("pydicom")
    return pydicom is not None and isinstance(source, pydicom.Dataset)


def _from_picture(picture: Image.Image, limits: InputLimits | None, file: str) -> Iterator[Frame]:
    facts = {"kind": (picture.format or "image").lower(), "mode": picture.mode}
    try:
        plain = to_8_bits(picture)
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # a picture opened lazily from a damaged file
        raise BadSliceError(f"it is damaged or cut short ({brief(error)})") from error
    yield picture_frame(plain, facts, file, 0, limits=limits)
