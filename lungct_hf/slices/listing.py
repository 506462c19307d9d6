"""The one order in which files are listed, and the files that are none of ours."""

from __future__ import annotations

import os
import re

_HIDDEN_FILES = {"thumbs.db", "desktop.ini", "__macosx"}
# Files that describe slices and lie beside them in data sets.
_SIDE_SUFFIXES = (
    ".csv",
    ".tsv",
    ".json",
    ".jsonl",
    ".txt",
    ".md",
    ".xml",
    ".yaml",
    ".yml",
    ".html",
    ".parquet",
    ".log",
    ".journal",  # of a run of `lungct predict` that writes into the folder it reads
)
_SIDE_FILES = {"dicomdir", "license", "readme", "version", "lockfile"}


def is_hidden(name: str) -> bool:
    """Whether an operating system left this file or folder behind (.DS_Store, ._x.jpg, Thumbs.db, __MACOSX)."""
    return name.startswith(".") or name.lower() in _HIDDEN_FILES


def is_side_file(name: str) -> bool:
    """Whether a file in a folder or archive only describes others: tables, notes, the index of a DICOM disc."""
    return name.lower().endswith(_SIDE_SUFFIXES) or name.lower() in _SIDE_FILES


def natural_key(name: str) -> tuple[list[tuple[bool, int, str]], str]:
    """A sort key in which "case (9)" comes before "case (10)"; ties are broken by the plain text."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [(part.isdecimal(), int(part) if i % 2 else 0, part) for i, part in enumerate(parts)], name


def printable(path: str) -> str:
    """`path` with the bytes that are not UTF-8 replaced, so that it can be shown and stored."""
    return os.fsencode(path).decode("utf-8", "replace")
