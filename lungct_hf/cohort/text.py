"""The text of a table as spreadsheets save it: which encoding, and what stands between its cells."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from .names import find_column

# Longest first: the mark of UTF-32 begins as that of UTF-16 does.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SEPARATORS = (",", ";", "\t")  # a spreadsheet's in countries that write 0,5; and in its "Unicode text"
_SAMPLE = 2_000  # bytes


def decoded(content: bytes) -> str:
    """The text of a table in UTF-8, UTF-16 or UTF-32, with a mark of its encoding or without.

    Raises:
        ValueError: it is in none of them. Which of the older code pages it is, cannot be told from the bytes, and a
            guess would change names and labels silently.
    """
    mark, encoding = next((found for found in _MARKS if content.startswith(found[0])), (b"", _unmarked(content)))
    try:
        return content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        where = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"line {where} is not {encoding.upper()}, so it is in an older code page such as Windows-1252; save it as "
            '"CSV UTF-8"'
            if not mark and encoding == "utf-8"
            else f"it begins as {encoding.upper()} and does not go on so"
        ) from error


def _unmarked(content: bytes) -> str:
    """UTF-16 without its mark shows by a zero in every other byte of what is mostly ASCII."""
    sample = content[:_SAMPLE]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if len(sample) >= 4 and max(even, odd) > 0.4 * len(sample) // 2:
        return "utf-16-le" if odd > even else "utf-16-be"
    return "utf-8"


def separator_of(text: str, wanted: Sequence[str]) -> str:
    """What stands between the cells: a comma, unless only another one leaves a header with one of the columns
    `wanted`."""
    header = text.lstrip("\r\n").split("\n", 1)[0].rstrip("\r")
    found = [mark for mark in _SEPARATORS if find_column([one.strip('" ') for one in header.split(mark)], wanted)]
    return next((mark for mark in found if mark in header), ",")
