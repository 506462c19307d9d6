"""What was found out about one input: reason codes, each with the sentence a person reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .image_type import LEFT_OUT

# Why a slice that could be read is refused, most telling first: a report lists its codes in this order.
CODES: tuple[str, ...] = (
    "other-series",
    "too-small",
    "colour-photograph",
    "burned-in-text",
    "not-ct",
    "not-hu",
    "not-axial",
    "inverted",
    "wrong-window",
    "no-lung",
    "unlike-training-view",
)

# The codes that compare a slice to those that a model learned from; the others are absolute.
COMPARED: tuple[str, ...] = ("wrong-window", "unlike-training-view")

# Why there is no slice at all.
UNREADABLE: tuple[str, ...] = (
    "not-an-image",
    "truncated",
    "damaged",
    "too-large",
    "unsupported",
    "not-found",
    "no-permission",
)

# Why there is no decision about a study, beside the reasons of its slices.
STUDY: tuple[str, ...] = ("several-series", "only-derived")

SENTENCES: dict[str, str] = {
    "other-series": "It belongs to another series than the one that was asked for.",
    "several-series": "There are several series here, and slices of different scans make no decision together.",
    "only-derived": "There are only localizers, projections and series made from others (--series judges these).",
    "too-small": "The picture is too small to show a lung slice.",
    "colour-photograph": "The picture is in colour; a CT slice is grey.",
    "burned-in-text": "The picture is a document or a screenshot, or has text burned into it.",
    "not-ct": "This does not look like a CT slice, or the file says that it is none.",
    "not-hu": "The values are not Hounsfield units: the file says so, or no CT of a body has such values.",
    "not-axial": "This is not an axial slice; only slices across the body, seen from the feet, are read.",
    "inverted": "Black and white are swapped: air must be dark and the body bright.",
    "wrong-window": "The grey levels are not those of the window that the model's own slices were shown in.",
    "no-lung": "No lung is in view.",
    "unlike-training-view": "The slice is framed unlike those that the model learned from.",
    "not-an-image": "The file holds no picture.",
    "truncated": "The file is cut short; copy it again.",
    "damaged": "The file is damaged; copy it again.",
    "too-large": "The file is larger than a CT slice or series can be, so it is not opened.",
    "unsupported": "The file is of a kind that is not read here.",
    "not-found": "The file does not exist.",
    "no-permission": "The file may not be read.",
}

WARNINGS: dict[str, str] = {
    "little-lung": "Only a small part of the lungs is in view.",
    "unusual-window": "The grey levels differ from the window the model was trained with.",
    "low-resolution": "The picture has fewer pixels than a CT slice usually has.",
    "no-rescale": "The file has no rescale slope and intercept; its values were taken as HU.",
    "unit-unknown": "The file leaves open what its values measure; they were taken as HU.",
    "modality-unknown": "The file does not say that it is CT.",
    "body-part": "The file names another body part than the chest.",
    "unusual-orientation": "The slice was not stored with the front of the body up and its right side at the left; it "
    "was turned to that view.",
    "pixels-not-square": "The pixels are not as high as wide in millimetres; the slice was resampled to square ones.",
    "orientation-unknown": "The file does not say how the slice lies in the body.",
    "derived": "The file says that the picture was computed from others.",
    "localizer": "The file says that it is a localizer (scout), so no decision about a study rests on it.",
    "projection": "The file says that it is a projection of many slices (MIP, MinIP), so no decision rests on it.",
    "derived-series": "The file says that its series was made from another one (MPR), so no decision rests on it.",
    "marks": "There may be a letter or a mark in the picture.",
    "header-overruled": "The header is wrong about the sign or the bits of its values; they were read in the one way "
    "in which they can be Hounsfield units.",
    "photometric": "The file says MONOCHROME1; its polarity was decided by its values.",
}


@dataclass(frozen=True)
class InputReport:
    """What was found out about one slice.

    `codes` are reasons to refuse (of `CODES`, most telling first; empty = fine), `warnings` what was noticed and not
    refused (of `WARNINGS`). `facts` is JSON-able: `kind` ("png", "dicom", ...), `width`, `height`, and what the rules
    measured; never anything about a patient.
    """

    codes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def reason(self) -> str | None:
        """The most telling code, or None."""
        return self.codes[0] if self.codes else None

    def may_be_asked(self, force: bool) -> bool:
        """Whether the network is to see the slice; `force`: also one that is refused, if it was asked for at all."""
        return not self.codes or (force and "other-series" not in self.codes)

    @property
    def left_out(self) -> str | None:
        """The warning for which no decision about a study rests on this slice, or None."""
        return next((code for code in LEFT_OUT if code in self.warnings), None)

    @property
    def sentence(self) -> str | None:
        """The reason in plain words, or None; with the model's own range where that is what the slice was held to."""
        reason = self.reason
        if reason is None:
            return None
        if reason not in COMPARED or not self.facts.get("model_range"):
            return SENTENCES[reason]
        name, (low, high) = next(iter(self.facts["model_range"].items()))
        here, lowest, highest = (_shown(name, value) for value in (self.facts[name], low, high))
        return f"{SENTENCES[reason]} {_MEASURED[name]} {here} here and {lowest} to {highest} in the model's slices."


# The facts by which slices are compared to a model's own (limits.py), as the beginning of a sentence.
_MEASURED: dict[str, str] = {
    "tissue_grey": "Soft tissue has the grey level (of 0 to 255)",
    "lung_grey": "Lung has the grey level (of 0 to 255)",
    "haze": "The share of the body that is neither bright nor dark is",
    "aspect": "The width over the height is",
    "body_fraction": "The share of the picture that is body is",
    "lung_fraction": "The share of the body that is lung is",
    "dark_border": "The share of the border that is air is",
}


def _shown(name: str, value: float) -> str:
    if name.endswith("_grey"):
        return f"{max(value, 0):.0f}"
    return f"{value:.2f}" if name == "aspect" else f"{100 * value:.0f} %"


def ordered(codes: set[str]) -> tuple[str, ...]:
    """`codes` in the order of `CODES`."""
    return tuple(code for code in CODES if code in codes)
