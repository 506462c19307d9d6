"""What a DICOM header says about a frame: whether it is an axial CT slice, where it lies, how values become HU."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .dicom_file import element
from .geometry import check_pixel_size, is_square, letters_to_orientation
from .image_type import judge_image_type
from .series import is_axial, is_upright, numbers, position_along, slice_normal

if TYPE_CHECKING:
    from pydicom import Dataset

_CT_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT Image Storage
}
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # Secondary Capture, and its multi-frame kinds below it
_CHEST = ("CHEST", "THORAX", "LUNG", "TORSO", "BODY", "TRUNK", "CAP", "TAP", "NECK", "ABDOMEN")


@dataclass
class Header:
    """One frame's header: `codes` and `warnings` as in an input report; HU = stored value x `slope` + `intercept`.

    `orientation` is the direction in which the columns run, then that of the rows (geometry.py); `pixel_mm` the height
    and the width of a pixel. Both are None where nobody says them.
    """

    codes: set[str] = field(default_factory=set)
    warnings: set[str] = field(default_factory=set)
    facts: dict[str, Any] = field(default_factory=dict)
    slope: float = 1.0
    intercept: float = 0.0
    is_hu: bool = False
    position: float | None = None
    orientation: tuple[float, ...] | None = None
    pixel_mm: tuple[float, float] | None = None


def read_header(dataset: Dataset, frame: int) -> Header:
    """Judge the header of one frame; the functional groups of enhanced files come before the top level."""
    header = Header()
    _judge_modality(dataset, header)
    _read_rescale(dataset, frame, header)
    _judge_geometry(dataset, frame, header)
    if _word(element(dataset, "BurnedInAnnotation")) == "YES":
        header.codes.add("burned-in-text")
    part = _word(element(dataset, "BodyPartExamined"))
    if part and not any(name in part for name in _CHEST):
        header.warnings.add("body-part")
    return header


def _judge_modality(dataset: Dataset, header: Header) -> None:
    modality, sop = _word(element(dataset, "Modality")), str(element(dataset, "SOPClassUID") or "")
    header.facts |= {"modality": modality or None}
    if modality and modality != "CT":
        header.codes.add("not-ct")
    if not modality:
        header.warnings.add("modality-unknown")
    if sop.startswith(_CAPTURE):
        header.warnings.add("derived")
        # De-identification tools write real slices as captures too; those keep their rescale to HU.
        if element(dataset, "RescaleIntercept") is None:
            header.codes.add("not-ct")
    elif sop and sop not in _CT_CLASSES:
        header.codes.add("not-ct")


def _read_rescale(dataset: Dataset, frame: int, header: Header) -> None:
    group = _group(dataset, frame, "PixelValueTransformationSequence") or dataset
    pair = [numbers([element(group, name)], 1) for name in ("RescaleSlope", "RescaleIntercept")]
    slope, intercept = (value[0] if value else None for value in pair)
    unit = str(element(group, "RescaleType") or _table_unit(dataset) or "").strip().upper()
    if unit in ("US", "UNSPECIFIED"):
        header.warnings.add("unit-unknown")
    elif unit and unit != "HU" and not unit.startswith("HOUNSFIELD"):  # electron density, material maps, ...
        header.codes.add("not-hu")
    if "ModalityLUTSequence" in dataset:
        header.is_hu = True
    elif slope and intercept is not None:
        header.slope, header.intercept, header.is_hu = slope, intercept, True
    else:
        header.slope, header.intercept = slope or 1.0, intercept or 0.0
        header.warnings.add("no-rescale")


def _table_unit(dataset: Dataset) -> str | None:
    tables = element(dataset, "ModalityLUTSequence") or []
    return element(tables[0], "ModalityLUTType") if len(tables) else None


def _judge_geometry(dataset: Dataset, frame: int, header: Header) -> None:
    judge_image_type(_values(element(dataset, "ImageType")), header)
    frame_type = _group(dataset, frame, "CTImageFrameTypeSequence")
    if frame_type is not None:
        judge_image_type(_values(element(frame_type, "FrameType")), header)
    orientation, normal = read_orientation(_group(dataset, frame, "PlaneOrientationSequence") or dataset)
    if orientation is None or normal is None:
        header.warnings.add("orientation-unknown")
    elif not is_axial(normal):
        header.codes.add("not-axial")
    else:
        header.orientation = orientation
        if not is_upright(orientation):
            header.warnings.add("unusual-orientation")
    header.pixel_mm = _pixel_size(dataset, frame)
    if not is_square(header.pixel_mm):
        header.warnings.add("pixels-not-square")
    group = _group(dataset, frame, "PlanePositionSequence") or dataset
    header.position = position_along(normal, numbers(element(group, "ImagePositionPatient"), 3))


def read_orientation(group: Dataset) -> tuple[tuple[float, ...] | None, np.ndarray | None]:
    """How a slice lies in the body, six direction cosines and its normal; None where the file does not say.

    Files without an ImageOrientationPatient may still say it in letters (PatientOrientation).
    """
    orientation = numbers(element(group, "ImageOrientationPatient"), 6)
    normal = slice_normal(orientation)
    if normal is None:
        orientation = letters_to_orientation(_values(element(group, "PatientOrientation")))
        normal = slice_normal(orientation)
    return (None, None) if normal is None else (orientation, normal)


def _pixel_size(dataset: Dataset, frame: int) -> tuple[float, float] | None:
    group = _group(dataset, frame, "PixelMeasuresSequence") or dataset
    found = numbers(element(group, "PixelSpacing"), 2)
    if found is None:  # only the shape of a pixel
        found = numbers(element(dataset, "PixelAspectRatio"), 2)
    return check_pixel_size(found)


def _group(dataset: Dataset, frame: int, name: str) -> Dataset | None:
    """One functional group of a frame: its own, else the one shared by all frames, else None."""
    own = element(dataset, "PerFrameFunctionalGroupsSequence") or []
    shared = element(dataset, "SharedFunctionalGroupsSequence") or []
    for groups in (own[frame : frame + 1], shared[:1]):
        for item in groups:
            if sequence := element(item, name):
                return sequence[0]
    return None


def _values(value: Any) -> list[Any]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _word(value: Any) -> str:
    """A code string in capitals; anything that is none (a name somebody typed there) is cut to nothing."""
    text = str(value or "").strip().upper()
    return text if re.fullmatch(r"[A-Z0-9_ ]{1,16}", text) else ""


def choose_polarity(hu: np.ndarray, inverted: np.ndarray) -> np.ndarray:
    """Of a MONOCHROME1 frame read as it is and with its stored values turned over, the one that can be CT.

    The tag is about display: some writers keep HU and only ask for white air, others store turned values. Only one
    reading has both air or lung (below -600 HU) and soft tissue (-150 to 200 HU).
    """

    def likeness(values: np.ndarray) -> float:
        sample = values[::4, ::4]
        air = np.mean((sample > -1100) & (sample < -600))
        return float(min(air, np.mean((sample > -150) & (sample < 200))))

    return inverted if likeness(inverted) > likeness(hu) else hu
