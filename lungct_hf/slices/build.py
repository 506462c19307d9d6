"""Make frames: bring pixels to an 8-bit picture, run the input checks, write the report."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from .checks import check_picture
from .dicom_header import Header
from .frame import Frame
from .geometry import is_turned, to_usual_view, with_square_pixels
from .grey import one_channel
from .hounsfield import Fault, find_fault
from .limits import InputLimits
from .report import InputReport, ordered
from .window import Window


def picture_frame(
    picture: Image.Image,
    facts: dict[str, Any],
    file: str,
    frame: int,
    *,
    limits: InputLimits | None,
    header: Header | None = None,
    fault: Fault | None = None,
    **place: Any,
) -> Frame:
    """A frame of a picture, L or RGB, taken to be in the model's window, checked against the model's `limits`.

    `fault` says why its values cannot be HU; `place` is its `series`, `position`, `instance` and `names`.
    """
    picture = one_channel(picture)
    header = header or Header()
    is_ct = header.facts.get("modality") == "CT"
    found = check_picture(picture, is_hu=header.is_hu, is_ct=is_ct and header.is_hu, limits=limits)
    if fault and "not-ct" not in header.codes and (fault.certain or "no-lung" not in found.codes):
        header.codes.add("not-hu")
        found.facts["not_hu"] = fault.text
    facts = facts | {"width": picture.width, "height": picture.height} | found.facts
    # What a header says outright explains the picture; its look then adds nothing but noise.
    codes = header.codes if header.codes & {"not-ct", "not-hu", "not-axial"} else header.codes | found.codes
    report = InputReport(ordered(codes), tuple(sorted(header.warnings | found.warnings)), facts)
    return Frame(file, frame, picture, report, **place)


def hu_frame(
    hu: np.ndarray,
    facts: dict[str, Any],
    file: str,
    frame: int,
    window: Window,
    *,
    header: Header | None = None,
    **place: Any,
) -> Frame:
    """A frame of HU, shape (height, width), brought to the usual view and to square pixels as its header says.

    NaN is outside the scan and becomes black.
    """
    return judged_hu_frame(hu, find_fault(hu), facts, file, frame, window, header=header, **place)


def judged_hu_frame(
    hu: np.ndarray,
    fault: Fault | None,
    facts: dict[str, Any],
    file: str,
    frame: int,
    window: Window,
    *,
    header: Header | None = None,
    **place: Any,
) -> Frame:
    """`hu_frame` where the reader had to ask for their `fault` already, to know what they are."""
    header = header or Header()
    if np.isnan(hu.max()):  # one NaN wins over every number
        hu = np.where(np.isnan(hu), -np.inf, hu)
    values, pixel_mm = to_usual_view(hu, header.orientation), header.pixel_mm
    if pixel_mm is not None and is_turned(header.orientation):
        pixel_mm = pixel_mm[::-1]
    picture = Image.fromarray(window.apply(np.ascontiguousarray(values)))
    return picture_frame(
        with_square_pixels(picture, pixel_mm), facts, file, frame, header=header, fault=fault, **place
    )
