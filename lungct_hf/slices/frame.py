"""What readers hand on: a slice in the model's window with its report, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from .grey import three_channels
from .report import InputReport
from .series import SeriesNames


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice, ready for the model's preprocessing.

    `file` is what its row is called (a path, `archive.zip/inner/name.dcm`, `<bytes>`, ...), `frame` its 0-based number
    in that file. `pixels` is the slice in the model's window: 8-bit L where it is grey, else RGB. `series` groups the
    slices of one scan under a key that cannot be traced to a patient; `position` is mm along the slice normal,
    upwards, or the order in the file. `instance` is what a slice and its copies have in common where the file says
    so, `names` what the file calls its series: neither shows the file's own identifiers.
    """

    file: str
    frame: int
    pixels: Image.Image
    report: InputReport
    series: str | None = None
    position: float | None = None
    instance: str | None = None
    names: SeriesNames = SeriesNames()

    @property
    def description(self) -> str | None:
        """What the file calls its series, without the words that may be names."""
        return self.names.shown

    @property
    def image(self) -> Image.Image:
        """The slice as 8-bit RGB."""
        return three_channels(self.pixels)


@dataclass(frozen=True)
class Unreadable:
    """A file that gives no slice: `reason` is a code of `report.SENTENCES`, `detail` one sentence about this file."""

    file: str
    reason: str
    detail: str
