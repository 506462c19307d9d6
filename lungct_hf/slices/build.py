"""Make frames: bring pixels to an 8-bit picture and write the report about it."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from .frame import Frame
from .report import InputReport
from .window import Window


def picture_frame(picture: Image.Image, facts: dict[str, Any], file: str, frame: int) -> Frame:
    """A frame of an RGB picture that is taken to be in the model's window."""
    facts = facts | {"width": picture.width, "height": picture.height}
    return Frame(file, frame, picture, InputReport(facts=facts))


def hu_frame(hu: np.ndarray, facts: dict[str, Any], file: str, frame: int, window: Window, **place: Any) -> Frame:
    """A frame of HU, shape (height, width); `place` is the frame's `series` and `position`."""
    picture = Image.fromarray(window.apply(hu)).convert("RGB")
    facts = facts | {"width": picture.width, "height": picture.height}
    return Frame(file, frame, picture, InputReport(facts=facts), **place)
