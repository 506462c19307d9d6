"""Walk folders in an order that no file system has a say in, past what operating systems leave behind."""

from __future__ import annotations

import os
from pathlib import Path

from ..slices.listing import is_hidden, natural_key
from ..slices.read import IMAGE_SUFFIXES


def subfolders(folder: Path) -> list[str]:
    """Names of the visible folders in `folder`, in natural order."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir() and not is_hidden(entry.name)]
    return sorted(names, key=natural_key)


def walk_files(folder: Path, below: str = "", _seen: frozenset[str] = frozenset()) -> list[str]:
    """Paths (below `folder`, forward slashes) of all visible files, in an order no file system has a say in."""
    here = os.path.realpath(folder / below)
    if here in _seen:  # a link that leads back up
        return []
    found: list[str] = []
    with os.scandir(folder / below) as entries:
        for entry in entries:
            name = f"{below}/{entry.name}" if below else entry.name
            if is_hidden(entry.name):
                continue
            found += walk_files(folder, name, _seen | {here}) if entry.is_dir() else [name]
    return sorted(found, key=natural_key)


def is_dicom(name: str) -> bool:
    """Whether the file name has the ending of a DICOM file."""
    return name.lower().endswith((".dcm", ".dicom"))


def is_image(name: str) -> bool:
    """Whether the file name has an image's ending."""
    return name.lower().endswith(IMAGE_SUFFIXES)
