"""Read slices from an image file (PNG, JPEG, TIFF, WebP, BMP) into pictures of 8 bits, grey or RGB."""

from __future__ import annotations

import io
import logging
import os
import re
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from ..errors import BadSliceError, brief, shown
from .deep import hu_of
from .grey import three_channels
from .jpeg import check_jpeg

IMAGE_SUFFIXES: tuple[str, ...] = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
_MAX_PIXELS = 32_000_000  # a CT slice has 0.26 million; decoding more than this would take above 1 GB
_MAX_PAGES = 5_000  # of one TIFF
_MIN_SIDE = 16
# What no other kind of file begins with.
_UNMISTAKABLE = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
_ORIENTATION = 0x0112  # an EXIF tag
_LIBTIFF = re.compile(r"[\w.]+: \S|.*(TIFF|[Ss]trip|[Tt]ile|scanline)")  # "TIFFFillStrip: Read error on strip 0"
# Pillow tells its own log of odd TIFF tags, which without a handler lands on the terminal; the error says it too.
logging.getLogger("PIL.TiffImagePlugin").addHandler(logging.NullHandler())
_BLOCK_ROWS = 256  # deep pixels are scaled in blocks, so that a large picture is not held in four bytes a pixel


def read_slice(source: str | Path | bytes | BinaryIO) -> Image.Image:
    """Decode one slice wholly and return it as a PIL image of mode RGB.

    16-bit grey is scaled by its full range (65535 becomes 255); the EXIF orientation is applied; an alpha channel is
    dropped. The same pixels come out of transformers' own image loader for 8-bit files.

    Raises:
        BadSliceError: the file is empty, not one of the formats, cut short, too small or too large. The text has no
            file name: the caller knows it.
    """
    if source == b"":
        raise BadSliceError("it is empty", "truncated")
    handle: str | Path | BinaryIO = io.BytesIO(source) if isinstance(source, bytes) else source
    with _pillow_errors(), quiet(), Image.open(handle, formats=_FORMATS) as image:
        if min(image.size) < _MIN_SIDE:
            raise BadSliceError(
                f"it is too small ({image.width} x {image.height}, at least {_MIN_SIDE} x {_MIN_SIDE} needed)",
                "too-small",
            )
        return three_channels(to_8_bits(image))


def read_pages(
    handle: BinaryIO, hu_offset: float | None = None
) -> Iterator[tuple[Image.Image | np.ndarray, dict[str, str]]]:
    """Decode an image file of any size above nothing, page by page (only TIFF files have more than one).

    Yields the page as `read_slice` would give it, only that one stored in grey stays L, and facts: `kind` ("png", ...)
    and `mode` as stored. A page of 16 or 32 bits that holds HU comes as float32 HU instead: where `hu_offset` says
    that it holds HU plus that, or the file says so (`hu_of`).

    Raises:
        BadSliceError: as `read_slice`, except for small pictures.
    """
    with _pillow_errors(), _opened(handle) as image:
        kind = "jpeg" if image.format == "MPO" else str(image.format).lower()
        mode = image.mode
        if kind != "tiff":
            # Nobody else holds this picture, so one that is L or RGB already need not be copied: the copy took a third
            # of the time of decoding, most of it for fresh memory.
            upright = _decoded(image)
            if kind == "jpeg":
                handle.seek(0)
                check_jpeg(handle.read())
            hu = hu_of(upright, hu_offset)
            if hu is not None:
                yield hu, {"kind": kind, "mode": mode}
                return
            yield upright if upright.mode in ("L", "RGB") else to_8_bits(upright), {"kind": kind, "mode": mode}
            return
        yield _tiff_page(image, hu_offset), {"kind": kind, "mode": mode}
        for page in range(1, _MAX_PAGES):
            try:
                with quiet():
                    image.seek(page)
            except EOFError:
                return
            yield _tiff_page(image, hu_offset), {"kind": kind, "mode": image.mode}
        raise BadSliceError(f"it has more pages than {_MAX_PAGES:,}", "too-large")


def _tiff_page(image: Image.Image, hu_offset: float | None) -> Image.Image | np.ndarray:
    """One page of a TIFF as `to_8_bits` gives it, or its HU; what libtiff prints about it becomes the reason."""
    page: Image.Image | np.ndarray = image
    error = None
    with _overheard() as said:
        try:
            decoded = _decoded(image)
            hu = hu_of(decoded, hu_offset)
            page = to_8_bits(decoded) if hu is None else hu
        except (OSError, SyntaxError, ValueError, EOFError, MemoryError, IndexError, TypeError, KeyError) as met:
            error = met
    if said:
        text = shown("; ".join(said[:2]), 160)
        reason = "truncated" if "Read error" in text or "Invalid Read" in text else "damaged"
        raise BadSliceError(f"its decoder reports: {text}", reason) from error
    if error is not None:
        raise error
    return page


@contextmanager
def _overheard() -> Iterator[list[str]]:
    """Keep from standard error what libtiff prints there, and yield those lines once the block has been left.

    Standard error belongs to the process: one thread at a time listens, and what others wrote meanwhile is passed on.
    """
    said = list[str]()
    with _terminal, tempfile.TemporaryFile() as kept:
        try:
            terminal = os.dup(2)
        except OSError:  # a process without one: nothing can land there
            yield said
            return
        os.dup2(kept.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            kept.seek(0)
            for line in kept.read().decode("utf-8", "replace").splitlines():
                if _LIBTIFF.match(line):
                    said.append(line)
                else:
                    os.write(2, f"{line}\n".encode())


def to_8_bits(image: Image.Image) -> Image.Image:
    """A copy of any PIL image, decoded, turned upright and brought to 8 bits: L where it has only greys, else RGB.

    Raises:
        BadSliceError: it has too many pixels, or a mode (LAB) that has no plain way to RGB.
    """
    image = _decoded(image)
    if image.mode.startswith("I") or image.mode == "F":
        return _scale_deep(image)
    try:
        return image.convert("L" if image.mode in ("1", "L") else "RGB")
    except ValueError as error:
        raise BadSliceError(f"pixels of mode {image.mode} have no RGB values", "unsupported") from error


def _decoded(image: Image.Image) -> Image.Image:
    """`image` with its pixels read, turned upright; the same object where it is upright."""
    if image.width * image.height > _MAX_PIXELS:
        raise BadSliceError(
            f"it has too many pixels ({image.width} x {image.height}, limit {_MAX_PIXELS:,})", "too-large"
        )
    with quiet():
        image.load()
        if image.getexif().get(_ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
    return image


def _scale_deep(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and float grey to 8 bits: by the full range of 16 bits; floats up to 255 are left as they are."""
    values = np.asarray(image)
    top = 65535.0 if image.mode != "F" or values.max() > 255 else 255.0
    grey = np.empty(values.shape, np.uint8)
    for row in range(0, len(values), _BLOCK_ROWS):
        block = np.nan_to_num(values[row : row + _BLOCK_ROWS].astype(np.float64), nan=0.0)
        grey[row : row + _BLOCK_ROWS] = np.clip(np.rint(block * (255.0 / top)), 0, 255)
    return Image.fromarray(grey)


@contextmanager
def quiet() -> Iterator[list[str]]:
    """Silence Pillow and pydicom, which warn of each value that is not quite by the book; what they said is yielded.

    Warning filters belong to the process: of several threads that read at once, the first switches them off and the
    last brings them back, or one would restore what another had just set. Each thread hears only its own warnings.
    """
    global _silenced, _filters
    with _lock:
        if not _silenced:
            _filters = warnings.catch_warnings()
            _filters.__enter__()
            warnings.simplefilter("always")
            warnings.showwarning = _note
        _silenced += 1
    outer, said = getattr(_thread, "said", None), list[str]()
    _thread.said = said
    try:
        yield said
    finally:
        _thread.said = outer
        with _lock:
            _silenced -= 1
            if not _silenced:
                _filters.__exit__(None, None, None)


def _note(message: Warning | str, *_: object, **__: object) -> None:
    """In place of `warnings.showwarning` while any thread is quiet; the others' warnings are dropped meanwhile."""
    said = getattr(_thread, "said", None)
    if said is not None:
        said.append(str(message))


_lock, _thread, _terminal = threading.Lock(), threading.local(), threading.Lock()
_silenced = 0
_filters: warnings.catch_warnings[None]


@quiet()
def _opened(handle: BinaryIO) -> Image.Image:
    try:
        return Image.open(handle, formats=_FORMATS)
    except Image.UnidentifiedImageError as error:
        handle.seek(0)
        head = handle.read(8)
        name = next((name for magic, name in _UNMISTAKABLE.items() if head.startswith(magic)), None)
        if name is None:
            raise
        raise BadSliceError(f"it begins as a {name} file, but its header is damaged") from error


@contextmanager
def _pillow_errors() -> Iterator[None]:
    try:
        yield
    except BadSliceError:
        raise
    except FileNotFoundError as error:
        raise BadSliceError("the file does not exist", "not-found") from error
    except PermissionError as error:
        raise BadSliceError("the file may not be read (permission denied)", "no-permission") from error
    except Image.DecompressionBombError as error:
        raise BadSliceError(f"it has too many pixels (limit {_MAX_PIXELS:,})", "too-large") from error
    except Image.UnidentifiedImageError as error:
        raise BadSliceError(f"it is not a readable {', '.join(_FORMATS)} image", "not-an-image") from error
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, IndexError, TypeError, KeyError) as error:
        # Pillow's decoders raise all of these on damaged files.
        reason = "truncated" if "truncated" in str(error).lower() else "damaged"
        raise BadSliceError(f"it is damaged or cut short ({brief(error)})", reason) from error
