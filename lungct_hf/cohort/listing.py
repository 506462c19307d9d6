"""What a source of slices says before any picture is decoded: one row per slice, in a fixed order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .names import first_few

if TYPE_CHECKING:
    import datasets

from ..errors import LungCTError


@dataclass(frozen=True)
class BadFile:
    """A file that is not a usable slice, and why."""

    id: str
    reason: str


@dataclass
class Row:
    """One slice as its source lists it.

    `id` is the path below the data root with forward slashes, or "split/row"; `name` is the path whose file number
    linking may use, empty when the slice has no file name of its own; `split` is "", train, validation or test.
    """

    id: str
    label: int
    name: str = ""
    group: str = ""
    split: str = ""


@dataclass
class Listing:
    """All rows of one source, and how to get at their pictures.

    `read_bytes(i)` returns row i's encoded file (thread-safe; raises OSError or BadSliceError); `images()` returns a
    Dataset with the single column `image` (undecoded), aligned with `rows`. `source` is safe to publish.
    """

    kind: str
    source: str
    rows: list[Row]
    read_bytes: Callable[[int], bytes]
    images: Callable[[], datasets.Dataset]
    group_column: str | None = None
    bad: list[BadFile] = field(default_factory=list)


def check_groups(rows: list[Row], column: str | None) -> None:
    """Raise if the group column leaves any slice without a group."""
    if column is None:
        return
    empty = [row.id for row in rows if not row.group]
    if empty:
        raise LungCTError(
            f'The group column "{column}" is empty for {len(empty)} of {len(rows)} slices: {first_few(empty, 5)}. '
            f"Every slice needs a group. Fix: fill them in (a slice that belongs to nobody else: a value of its own)."
        )
