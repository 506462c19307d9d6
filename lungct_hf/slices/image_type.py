"""What ImageType says about a picture (DICOM PS3.3 C.7.6.1.1.2, C.8.2.1.1): a slice of a scan, or made from slices."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dicom_header import Header

LOCALIZER, PROJECTION, DERIVED_SERIES = "localizer", "projection", "derived-series"
# Warnings of slices that no decision about a study rests on.
LEFT_OUT: tuple[str, ...] = (LOCALIZER, PROJECTION, DERIVED_SERIES)

_LOCALIZERS = {"LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW", "SCANOGRAM", "SCOUTVIEW"}
_PROJECTIONS = {"MIP", "MINIP", "MIN_IP", "MAXIP", "MAX_IP", "PROJECTION", "THICKSLAB", "RAYSUM"}
_REFORMATS = {"MPR", "MPR3D", "CPR", "CURVED", "REFORMATTED", "REFORMAT", "RESAMPLED", "VOLREN", "VR", "VRT", "SSD"}
_REFORMATS |= {"RENDERED", "VOLUME_RENDERING", "3D", "SUBTRACTION", "SUBTRACT", "FUSION"}
_SCREENS = {"SCREEN", "SCREENSAVE", "SCREENSHOT", "DOSEINFO", "DOSEREPORT", "PROTOCOL", "REPORT", "PASTED"}


def judge_image_type(values: Iterable[Any], header: Header) -> None:
    """Put into `header` what the values of ImageType and FrameType say."""
    found = [str(value or "").strip().upper() for value in values]
    # "MIN IP", "MIN_IP", "CSA MIP", "DOSE_INFO", "SCREEN SAVE": each word, and all of them in one.
    words = {word for value in found for word in (*re.split(r"[^A-Z0-9]+", value), re.sub(r"[^A-Z0-9]+", "", value))}
    words |= {value for value in found if "_" in value}
    if _LOCALIZERS & words:
        header.codes.add("not-axial")
        header.warnings.add(LOCALIZER)
    if _SCREENS & words:
        header.codes.add("burned-in-text")
    if _PROJECTIONS & words:
        header.warnings |= {"derived", PROJECTION}
    elif _REFORMATS & words or found[:2] == ["DERIVED", "SECONDARY"]:
        header.warnings |= {"derived", DERIVED_SERIES}
    elif found[:1] == ["DERIVED"]:  # mostly lossy compression, which the standard wants to be marked so
        header.warnings.add("derived")
