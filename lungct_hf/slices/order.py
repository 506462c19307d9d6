"""The order of the slices in a folder: scan by scan, from the feet up, as DICOM headers tell it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import BadSliceError
from .dicom_file import element, integer, read_dataset
from .dicom_header import read_orientation
from .kind import HEAD, VOLUME_SUFFIXES, sniff
from .read import IMAGE_SUFFIXES
from .series import numbers, position_along, scan_order, series_key

_MAX_HEADERS = 20_000  # a folder with more is no scan; reading all headers first would only keep its user waiting
_NOT_DICOM = (*IMAGE_SUFFIXES, *VOLUME_SUFFIXES, ".raw", ".zraw", ".zip", ".gif", ".pdf")


@dataclass(frozen=True)
class Item:
    """A file that has not been opened yet: what its rows are called, how to open it, or only its beginning."""

    file: str
    open: Callable[[], BinaryIO]
    open_head: Callable[[], BinaryIO] | None = None
    path: Path | None = None  # of a file on the disk
    beside: Callable[[str], BinaryIO] | None = None  # opens a file of that name in the same folder or archive


@dataclass(frozen=True)
class _Place:
    series: str
    position: float | None
    number: int | None


def in_scan_order(items: list[Item]) -> list[Item]:
    """`items` of one folder, given in natural order, with the DICOM files of each series put into scan order.

    A series is ordered by position along its slice normal, and by InstanceNumber where it has none
    (`scan_order`). Other files stay in front, as do all in a folder of more than 20,000 candidates.
    """
    candidates = [item for item in items if not item.file.lower().endswith(_NOT_DICOM)]
    if len(candidates) < 2 or len(candidates) > _MAX_HEADERS:
        return items
    others, series = [], dict[str, list[tuple[_Place, Item]]]()
    places = {id(item): _place(item) for item in candidates}
    for item in items:
        place = places.get(id(item))
        if place is None:
            others.append(item)
        else:
            series.setdefault(place.series, []).append((place, item))
    return others + [item for group in series.values() for item in _sorted(group)]


def _sorted(group: list[tuple[_Place, Item]]) -> list[Item]:
    order = scan_order([place.position for place, _ in group], [place.number for place, _ in group])
    return [group[i][1] for i in order]


def _place(item: Item) -> _Place | None:
    """Where a file lies, or None when it is no DICOM or cannot be read: its row will say so later."""
    try:
        with (item.open_head or item.open)() as handle:
            if sniff(handle.read(HEAD)) != "dicom":
                return None
            handle.seek(0)
            dataset = read_dataset(handle, pixels=False)
    except (BadSliceError, OSError):
        return None
    _, normal = read_orientation(dataset)
    position = position_along(normal, numbers(element(dataset, "ImagePositionPatient"), 3))
    key = series_key(element(dataset, "SeriesInstanceUID"), element(dataset, "PatientID")) or ""
    return _Place(key, position, integer(dataset, "InstanceNumber"))
