"""The one order in which files are listed, the files that are none of ours, and how names are compared and shown."""

from __future__ import annotations

import re
import unicodedata

# What systems, network disks and tools leave behind without a dot in front. A name ends in a carriage return (macOS'
# folder icons), which servers of Windows shares write as U+F00D.
_LEFT_BEHIND = {
    "thumbs.db",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "icon\r",
    "icon\uf00d",
    "__macosx",
    "$recycle.bin",
    "recycler",
    "recycled",
    "system volume information",
    "msocache",
    "found.000",
    "lost+found",
    "network trash folder",
    "temporary items",
    "@eadir",  # Synology
    "@tmp",
    "@sharebin",
    "@sharesnap",
    "#recycle",
    "#snapshot",
    "@recycle",  # QNAP
    "@recently-snapshot",
    "__pycache__",
}
# Index files of Synology's thumbnails, owner files of open documents, halves of downloads.
_LEFT_STARTS = ("synofile_thumb", "syno@", "~$")
_LEFT_ENDS = ("@synoeastream", "@synoresource", ".crdownload", ".part", ".partial")
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
    """Whether a system, disk or tool left this file or folder behind (.DS_Store, ._x.jpg, Thumbs.db, @eaDir)."""
    lower = name.lower()
    return lower.startswith((".", *_LEFT_STARTS)) or lower.endswith(_LEFT_ENDS) or lower in _LEFT_BEHIND


def one_name(text: str) -> str:
    """`text` in the composed form (NFC): macOS and some archives write an accented letter as two characters."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def is_side_file(name: str) -> bool:
    """Whether a file in a folder or archive only describes others: tables, notes, the index of a DICOM disc."""
    return name.lower().endswith(_SIDE_SUFFIXES) or name.lower() in _SIDE_FILES


def natural_key(name: str) -> tuple[list[tuple[bool, int, str]], str]:
    """A sort key in which "case (9)" comes before "case (10)"; ties are broken by the plain text."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [(part.isdecimal(), int(part) if i % 2 else 0, part) for i, part in enumerate(parts)], name


def printable(path: str) -> str:
    """`path` as it can be shown and stored, on one line: bytes that are no UTF-8 are replaced, control characters
    (line ends, escapes of a terminal, marks that turn the direction of writing) written as \\x0d."""
    if path.isprintable():
        return path
    try:
        text = path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:  # half a pair, as from JSON: no name of a file
        text = path.encode("utf-8", "replace").decode()
    return "".join(map(_shown, text))


def _shown(letter: str) -> str:
    if letter.isprintable() or unicodedata.category(letter) in ("Zs", "Co", "Cn"):
        return letter
    return letter.encode("unicode_escape").decode("ascii")
