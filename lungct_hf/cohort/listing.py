"""What a source says before anything is decoded: one entry per file or table row, in a fixed order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from ..errors import LungCTError
from .names import first_few

if TYPE_CHECKING:
    from .label_table import LabelTable


@dataclass(frozen=True)
class BadFile:
    """A file that is not a usable slice, and why."""

    id: str
    reason: str


@dataclass
class Entry:
    """One file, or one row of a table of pictures, which may give several slices.

    `id` is its path below the data root with forward slashes, or "split/row"; `label` the class's name as the source
    writes it, None where a table names it by what stands in the file's header; `frames` are labels of single slices
    by their number in the file. `name` is the path whose file number linking may use, "" where there is none; `split`
    is "", train, validation or test. `open` raises OSError or BadSliceError.
    """

    id: str
    open: Callable[[], BinaryIO]
    label: str | None = None
    name: str = ""
    group: str = ""
    split: str = ""
    frames: dict[int, str] = field(default_factory=dict)


@dataclass
class Listing:
    """All entries of one source.

    `names` are the classes' names as the source writes them, by the data's own split; `table` tells labels, groups and
    splits of files by their header. `left_out` counts what the source itself leaves out; `notes` say what was assumed.
    `source` is safe to publish, unless it names a patient. `numbers` is what to do about classes that are numbers.
    """

    kind: str
    source: str
    entries: list[Entry]
    names: Mapping[str, Sequence[str]]
    table: LabelTable | None = None
    group_column: str | None = None
    bad: list[BadFile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    numbers: str = ""


def check_groups(ids: Sequence[str], groups: Sequence[str], column: str) -> None:
    """Raise if the group column leaves any slice without a group."""
    empty = [name for name, group in zip(ids, groups, strict=True) if not group]
    if empty:
        raise LungCTError(
            f'The group column "{column}" is empty for {len(empty)} of {len(ids)} slices: {first_few(empty, 5)}. '
            f"Every slice needs a group. Fix: fill them in (a slice that belongs to nobody else: a value of its own)."
        )
