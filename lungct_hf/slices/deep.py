"""HU in pictures of 16 and 32 bits: where a caller or the file says that they hold them."""

from __future__ import annotations

import re

import numpy as np
from PIL import Image

_AIR = -500.0  # HU: a picture with a sign and values below this holds HU, since grey levels are not negative
_MOST_PIXELS = 4096 * 4096  # of a slice; more is scaled as a picture, if at all
_DESCRIPTION = 270  # a TIFF tag


def hu_of(image: Image.Image, hu_offset: float | None) -> np.ndarray | None:
    """The HU, float32 (height, width), of a decoded picture of 16 or 32 bits, or None where it holds grey levels.

    With `hu_offset` its values are HU plus that. Without it the file may say so itself: by RescaleSlope and
    RescaleIntercept in the text of a PNG or TIFF, by the calibration that ImageJ writes, or by values with a sign
    that reach down to air.
    """
    if not (image.mode.startswith("I") or image.mode == "F") or image.width * image.height > _MOST_PIXELS:
        return None
    values = np.asarray(image)
    slope, intercept = (1.0, -hu_offset) if hu_offset is not None else _rescale(image)
    if slope is None and (values.dtype.kind == "u" or not np.nanmin(values, initial=0) < _AIR):
        return None
    return values.astype(np.float32) * np.float32(slope or 1.0) + np.float32(intercept)


def _rescale(image: Image.Image) -> tuple[float | None, float]:
    """Slope and intercept as the file's own text gives them, (None, 0) where it says nothing that leads to HU."""
    texts = [str(getattr(image, "tag_v2", {}).get(_DESCRIPTION, ""))[:10_000]]
    texts += [f"{key}={value}" for key, value in image.info.items() if isinstance(value, str) and len(value) < 1_000]
    text = "\n".join(texts)
    wanted = r"\b(RescaleSlope|RescaleIntercept|c0|c1)\s*[=:]\s*([-+]?\d+\.?\d*)"
    found = {name: float(number) for name, number in re.findall(wanted, text)}
    if "RescaleIntercept" in found:
        return found.get("RescaleSlope") or 1.0, found["RescaleIntercept"]
    # ImageJ: a straight line (function 0) from stored to shown values; it keeps a sign by such a shift.
    if "ImageJ" in text and re.search(r"\bcf=0\b", text) and found.get("c0", 0.0) <= _AIR:
        return found.get("c1") or 1.0, found["c0"]
    return None, 0.0
