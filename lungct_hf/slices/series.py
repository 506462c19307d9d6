"""Which scan a slice belongs to, what that is called, and where the slice lies in it."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import UsageError

_AXIAL = 0.8  # of the slice normal along the body: gantries tilt by up to 30 degrees (cosine 0.87)


def series_key(uid: Any, patient: Any = None) -> str | None:
    """A key of 16 hex digits that groups the slices of a series without showing its SeriesInstanceUID.

    Two patients whose files have one UID are two series. The key is a one-way hash without a secret: somebody who has
    the UID and the patient's number already can tell that the key is theirs.
    """
    text, whose = str(uid or "").strip(), str(patient or "").strip()
    if not text:
        return None
    return hashlib.sha256(f"lungct-hf series {text}{whose and f' of {whose}'}".encode()).hexdigest()[:16]


def instance_key(uid: Any, frame: int) -> str | None:
    """16 hex digits that a slice and its copies have in common, from its SOPInstanceUID and its number in the file."""
    text = str(uid or "").strip()
    return hashlib.sha256(f"lungct-hf slice {text} {frame}".encode()).hexdigest()[:16] if text else None


def numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """`value` as `count` finite floats, or None."""
    try:
        found = tuple(float(item) for item in value)
    except (TypeError, ValueError):
        return None
    return found if len(found) == count and all(map(math.isfinite, found)) else None


def slice_normal(orientation: Sequence[float] | None) -> np.ndarray | None:
    """The unit normal of a slice, turned to point towards the head, from its six direction cosines (PS3.3 C.7.6.2)."""
    if orientation is None:
        return None
    normal = np.cross(orientation[:3], orientation[3:])
    length = float(np.linalg.norm(normal))
    if length < 0.5:  # the two axes are not at right angles: not an orientation
        return None
    return normal / length * (1.0 if normal[2] >= 0 else -1.0)


def is_axial(normal: np.ndarray) -> bool:
    return bool(abs(normal[2]) >= _AXIAL)


def is_upright(orientation: Sequence[float]) -> bool:
    """Whether the patient's left is at the picture's right and the back below, as usual."""
    return orientation[0] > 0.7 and orientation[4] > 0.7


def position_along(normal: np.ndarray | None, corner: Sequence[float] | None) -> float | None:
    """Millimetres along the slice normal, growing towards the head, or None where the file does not say."""
    if normal is None or corner is None:
        return None
    return round(float(np.dot(normal, corner)), 4)


def parse_positions(text: str) -> tuple[float, float] | None:
    """The range of positions that --slices names, or None for "all" and "listed". Raises UsageError."""
    if text in ("all", "listed"):
        return None
    match = re.fullmatch(r"([01]?\.?[0-9]*)-([01]?\.?[0-9]*)", text.strip())
    try:
        low, high = (float(part) for part in match.groups()) if match else (1.0, 0.0)
    except ValueError:
        low, high = 1.0, 0.0
    if not 0 <= low < high <= 1:
        raise UsageError(f'--slices is "{text}"; all, listed, or a range of positions like 0.2-0.8 is needed.')
    return low, high


# What descriptions of series say about a scan. Other words may be names that somebody typed there.
_WORDS = frozenset(
    """abd abdomen acq adc angio aorta app art arterial average avg axial ax b bone br brain breath c cap cardiac
    chest cm contrast cor coronal ct cta ctpa cv delay delayed diagnostic dose ed es exp expiration fbp fc
    filter fine full gantry gating hd head helical high hr hrct i idose imr insp inspiration inf iterative
    kernel kv kvp late lcad localizer low lower lung lungs ma mas max maxip med mediast mediastinal mediastinum
    medium min minip mip mm monitoring mono mpr native ncct nc neck no non noncontrast o of p parenchyma pe
    pelvis phase pfs plain plus portal post pre premonitoring prone pulm pulmonary qr recon reformat reg routine
    s safire sag sagittal scan scano scout screening sd sec secs series sharp slice smooth soft spine spiral std
    standard supine surview sw tap test thick thin thins thorax thx tissue to topo topogram tra trans transverse
    upper v venous vol volume w wb with without wo""".split()
)


_SIZE = re.compile(r"[\[(]?\d{1,2}(\.\d{1,3})?([x*]\d{1,2}(\.\d{1,3})?)?(mm|sec|s|kv|%)?[\])]?")
_KERNEL = re.compile(r"(b|bf|bl|bm|br|bv|d|fc|h|hf|hr|i|j|q|qr|t|u|ya|yb|yc)\d{2}[a-z]?\d?")


@dataclass(frozen=True)
class SeriesNames:
    """What a file calls its series: for choosing one, and never written down as it is."""

    uid: str = field(default="", repr=False)
    description: str = field(default="", repr=False)

    @property
    def shown(self) -> str | None:
        """The description without the words that need not be about the scan ("Smith Thorax 1.0 B60f": "... Thorax
        1.0 B60f"), or None where nothing is left."""
        parts = [part for part in re.split(r"[\s/,;_^|]+", self.description) if part]
        kept = [part if _is_technical(part) else "..." for part in parts]
        text = re.sub(r"(\.\.\. )+\.\.\.", "...", " ".join(kept))[:64]
        return text if any(part != "..." for part in text.split()) else None


def _is_technical(part: str) -> bool:
    """A word about scans, a size ("1.0", "2.5mm", "5x5"), or a kernel ("B60f", "Br40d3", "FC51", "I70")."""
    words = re.findall(r"[a-z]+", part.casefold())
    if len(part) > 24 or not part.isascii() or not part.isprintable():
        return False
    if _SIZE.fullmatch(part.casefold()) or _KERNEL.fullmatch(part.casefold()):
        return True
    return bool(words) and all(word in _WORDS for word in words) and sum(map(str.isdigit, part)) <= 3


@dataclass(frozen=True)
class SeriesChoice:
    """Which series a study is to be decided by: the largest one, or those that a text names."""

    text: str

    @property
    def is_largest(self) -> bool:
        return self.text.casefold() == "largest"

    @classmethod
    def parse(cls, text: str | None) -> SeriesChoice | None:
        """What --series says. Raises UsageError."""
        if text is None:
            return None
        if not text.strip():
            raise UsageError(
                "--series is empty; the start of a SeriesInstanceUID, a part of a description, or largest is needed."
            )
        return cls(text.strip())

    def fits(self, key: str | None, names: SeriesNames) -> bool:
        """Whether a series is meant: by the beginning of its UID or of its key, or by a part of its description."""
        if self.is_largest:
            return True
        if re.fullmatch(r"[0-9]+(\.[0-9]+)+\.?", self.text) and names.uid.startswith(self.text):
            return True
        by_key = len(self.text) >= 4 and key is not None and key.startswith(self.text.casefold())
        return by_key or self.text.casefold() in names.description.casefold()


def scan_order(positions: Sequence[float | None], numbers: Sequence[int | None]) -> list[int]:
    """The order of the slices of one series: by position; by number where none has a position, or between the others
    where one lacks it; in the order given where there is neither."""
    known = [i for i, position in enumerate(positions) if position is not None]
    if not known:
        return sorted(range(len(numbers)), key=lambda i: (numbers[i] is None, numbers[i] or 0, i))
    places = list(positions)
    marks = sorted((numbers[i], positions[i]) for i in known if numbers[i] is not None)
    steps = np.diff([position for _, position in marks]) if len(marks) > 1 else np.zeros(1)
    if bool(np.all(steps > 0) or np.all(steps < 0)):  # numbers run along the body, up or down
        at, along = zip(*marks, strict=True)
        for i, number in enumerate(numbers):
            if places[i] is None and number is not None and at[0] <= number <= at[-1]:
                places[i] = float(np.interp(number, at, along))
    return sorted(range(len(places)), key=lambda i: (places[i] is None, places[i] or 0.0, i))
