"""Read one slice from an image file (PNG, JPEG, TIFF, WebP, BMP) into an 8-bit RGB picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from ..errors import BadSliceError

IMAGE_SUFFIXES: tuple[str, ...] = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
_MAX_PIXELS = 64_000_000  # a CT slice has 0.26 million; more than this is a decompression bomb or a slide scan
_MIN_SIDE = 16


def read_slice(source: str | Path | bytes | BinaryIO) -> Image.Image:
    """Decode one slice wholly and return it as a PIL image of mode RGB.

    16-bit grey is scaled by its full range (65535 becomes 255); the EXIF orientation is applied; an alpha channel is
    dropped. The same pixels come out of transformers' own image loader for 8-bit files.

    Raises:
        BadSliceError: the file is empty, not one of the formats, cut short, too small or too large. The text has no
            file name: the caller knows it.
    """
    if source == b"":
        raise BadSliceError("it is empty")
    handle: str | Path | BinaryIO = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(handle, formats=_FORMATS) as image:
            _check_size(image)
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except BadSliceError:
        raise
    except FileNotFoundError as error:
        raise BadSliceError("the file does not exist") from error
    except PermissionError as error:
        raise BadSliceError("the file may not be read (permission denied)") from error
    except Image.DecompressionBombError as error:
        raise BadSliceError(f"it has too many pixels (limit {_MAX_PIXELS:,})") from error
    except Image.UnidentifiedImageError as error:
        raise BadSliceError(f"it is not a readable {', '.join(_FORMATS)} image") from error
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, IndexError, TypeError, KeyError) as error:
        # Pillow's decoders raise all of these on damaged files.
        raise BadSliceError(f"it is damaged or cut short ({error})") from error


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > _MAX_PIXELS:
        raise BadSliceError(f"it has too many pixels ({width} x {height}, limit {_MAX_PIXELS:,})")
    if min(width, height) < _MIN_SIDE:
        raise BadSliceError(f"it is too small ({width} x {height}, at least {_MIN_SIDE} x {_MIN_SIDE} needed)")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        top = 65535.0 if image.mode != "F" or values.max() > 255 else 255.0
        image = Image.fromarray(np.clip(np.rint(values * (255.0 / top)), 0, 255).astype(np.uint8))
    return image.convert("RGB")
