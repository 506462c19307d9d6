"""The names that data sets give to splits and columns."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from ..errors import LungCTError
from ..slices.listing import one_name

SPLITS: tuple[str, ...] = ("train", "validation", "test")

SPLIT_ALIASES: dict[str, str] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}

# In order of trust: a patient is the safest unit to keep together, a study or series of theirs the least.
PATIENT_COLUMNS: tuple[str, ...] = ("patient_id", "patient", "case_id", "case", "subject_id", "subject")
SERIES_COLUMNS: tuple[str, ...] = ("SeriesInstanceUID", "series_uid", "series_id", "series")
STUDY_COLUMNS: tuple[str, ...] = ("StudyInstanceUID", "study_uid", "study_id", "study")
GROUP_COLUMNS: tuple[str, ...] = (*PATIENT_COLUMNS, "group", "series_id", "series", "study_id")
LABEL_COLUMNS: tuple[str, ...] = ("label", "class", "diagnosis")
SPLIT_COLUMNS: tuple[str, ...] = ("split",)
FILE_COLUMNS: tuple[str, ...] = ("file_name", "file", "path")
IMAGE_COLUMNS: tuple[str, ...] = ("image", "img", *FILE_COLUMNS)
VOLUME_COLUMNS: tuple[str, ...] = ("nifti", "volume", "dicom", "scan")
# By which a table of labels may name what it labels, the finest first.
KEY_COLUMNS: dict[str, tuple[str, ...]] = {
    "file": FILE_COLUMNS,
    "sop": ("SOPInstanceUID", "sop_uid", "instance_uid"),
    "series": SERIES_COLUMNS,
    "study": STUDY_COLUMNS,
    "patient": PATIENT_COLUMNS,
}
METADATA_NAMES: tuple[str, ...] = tuple(
    f"{stem}.{ending}" for stem in ("metadata", "labels") for ending in ("csv", "jsonl", "parquet")
)


def canonical_split(name: str) -> str | None:
    """The split that a folder, file or column means by `name` ("val" is validation), or None."""
    return SPLIT_ALIASES.get(name.strip().lower())


def find_column(columns: Iterable[str], wanted: Sequence[str]) -> str | None:
    """The first of `wanted` that is among `columns`; case, spaces and punctuation do not matter ("Patient ID")."""
    plain = {_plain(column): column for column in columns}
    return next((plain[_plain(name)] for name in wanted if _plain(name) in plain), None)


def find_group_column(columns: Sequence[str], requested: str | None, where: str) -> str | None:
    """The column that says which slices belong together: the one asked for, else the first recognised, else None.

    Raises:
        LungCTError: `requested` is not among `columns`.
    """
    if requested is None:
        return find_column(columns, GROUP_COLUMNS)
    if requested in columns:
        return requested
    present = f"it has the columns {', '.join(columns)}" if columns else "it has no columns at all"
    raise LungCTError(
        f'There is no group column "{requested}" in {where}: {present}. Fix: name one that is there, add it '
        f"(for image folders: in a metadata.csv with the columns file_name and {requested}), or leave the option out."
    )


def cell(value: Any) -> str:
    """A table cell as text in composed form (NFC); nothing, NaN and blanks are the empty string."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return one_name(str(value).strip())


def first_few(items: Sequence[str], limit: int = 10) -> str:
    """ "a, b, c" or "a, b, ... and 7 more"."""
    shown = ", ".join(items[:limit])
    return shown if len(items) <= limit else f"{shown}, ... and {len(items) - limit} more"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
