"""Make frames: bring pixels to an 8-bit picture and write the report about it."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from .dicom_header import Header
from .frame import Frame
from .report import InputReport, ordered
from .window import Window


def picture_frame(
    picture: Image.Image, facts: dict[str, Any], file: str, frame: int, *, header: Header | None = None, **place: Any
) -> Frame:
    """A frame of an RGB picture that is taken to be in the model's window; `place` is its `series` and `position`."""
    header = header or Header()
    facts = facts | {"width": picture.width, "height": picture.height}
    report = InputReport(ordered(header.codes), tuple(sorted(header.warnings)), facts)
    return Frame(file, frame, picture, report, **place)


def hu_frame(hu: np.ndarray, facts: dict[str, Any], file: str, frame: int, window: Window, **place: Any) -> Frame:
    """A frame of HU, shape (height, width)."""
    return picture_frame(Image.fromarray(window.apply(hu)).convert("RGB"), facts, file, frame, **place)
