"""The classes of a data set and its models: one value that travels from the listing to every answer."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import UsageError

FEWEST, MOST = 2, 100
# What a decision can be instead of a class, so no class may be called so.
RESERVED = ("abstain", "refused", "error")
# What --classes takes, for the help of each command that has it.
HELP = '"a, b, c" in order, "x, y -> z" merges, "+" marks disease, ";" parts, or a YAML file'
_ENDINGS = {"case", "cases", "slice", "slices", "image", "images"}


def spelling(name: str) -> str:
    """`name` without what differs between spellings of one name: case, punctuation, a trailing "cases" or "images"."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    words = re.sub(r"[\W_]+", " ", plain).split()
    while len(words) > 1 and words[-1] in _ENDINGS:
        words.pop()
    return " ".join(words)


@dataclass(frozen=True)
class Classes:
    """The names of 2 to 100 classes in the order of the logits, and which of them count as disease.

    `positive` holds names of `names`, in their order; empty where nobody said. `aliases` are pairs (another spelling,
    name) by which a listing finds the class that a folder or a cell means.

    Raises:
        UsageError: fewer than 2 or more than 100 names, two that are one name, a name that is empty, cannot be printed
            or means something else in a decision, or `positive` names no class, or all of them.
    """

    names: tuple[str, ...]
    positive: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not FEWEST <= len(self.names) <= MOST:
            shown = ", ".join(self.names[:5]) + (", ..." if len(self.names) > 5 else "")
            raise UsageError(
                f"There are {len(self.names)} classes ({shown or 'none'}); {FEWEST} to {MOST} are needed. Fix: merge "
                'or name them with --classes, for example --classes "a, b; c, d -> other".'
            )
        seen: dict[str, str] = {}
        for name in self.names:
            if not spelling(name) or not name.isprintable() or name != name.strip():
                raise UsageError(f"{name!r} is no name for a class. Fix: letters or digits, and nothing unprintable.")
            if spelling(name) in RESERVED:
                raise UsageError(f'A class cannot be called "{name}": that is a decision. Fix: rename it (--classes).')
            if (other := seen.setdefault(spelling(name), name)) != name:
                raise UsageError(f'The classes "{other}" and "{name}" are one name in two spellings. Fix: keep one.')
        if len(set(self.names)) < len(self.names):
            raise UsageError(f"A class is named twice: {', '.join(self.names)}. Fix: name each once.")
        if unknown := [name for name in self.positive if name not in self.names]:
            raise UsageError(f'"{unknown[0]}" is marked positive and is none of the classes {", ".join(self.names)}.')
        if len(set(self.positive)) == len(self.names):
            raise UsageError("All classes are marked positive, so none could be told apart. Fix: mark only disease.")

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __getitem__(self, number: int) -> str:
        return self.names[number]

    def index(self, name: str) -> int:
        """The number of a class. Raises ValueError for a name that is none."""
        return self.names.index(name)

    def find(self, text: str) -> str | None:
        """The class that a folder or a cell means by `text`, whatever its spelling, or None."""
        return self._by_spelling().get(spelling(text))

    def is_positive(self) -> tuple[bool, ...]:
        """For each class whether it counts as disease."""
        return tuple(name in self.positive for name in self.names)

    def only(self, present: Iterable[str]) -> Classes:
        """The same classes without those that are not in `present`. Raises UsageError when fewer than 2 are left.

        Where all that are left count as disease, none is marked: there is nothing to tell disease from.
        """
        kept = set(present)
        names = tuple(name for name in self.names if name in kept)
        positive = tuple(name for name in self.positive if name in kept)
        return Classes(
            names,
            positive if len(positive) < len(names) else (),
            tuple((other, name) for other, name in self.aliases if name in kept),
        )

    def to_json(self) -> dict[str, Any]:
        """For lungct.json, metrics.json and predictions.parquet; how others spell the names stays behind."""
        return {"names": list(self.names), "positive": list(self.positive)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Classes:
        """Read `to_json` back. Raises KeyError, TypeError or UsageError where the record is none."""
        return cls(tuple(record["names"]), tuple(record["positive"]))

    def _by_spelling(self) -> dict[str, str]:
        return {spelling(other): name for other, name in self.aliases} | {spelling(name): name for name in self.names}
