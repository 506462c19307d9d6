"""The data sets that are known by name, read from known_sets.toml: their classes, and what a card must say of them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

from .classes import Classes, spelling


@dataclass(frozen=True)
class KnownSet:
    """One table of known_sets.toml, where its entries are described. `name` is the table's, safe to publish."""

    name: str
    title: str
    classes: Classes
    folders: tuple[str, ...] = ()
    sources: str = ""
    licence: str = ""
    cite: str = ""
    caveats: tuple[str, ...] = ()
    nodules: Mapping[str, str] = field(default_factory=dict)

    def is_source(self, source: str) -> bool:
        """Whether data that are called `source` are this set."""
        return bool(self.sources) and re.search(self.sources, source, re.IGNORECASE) is not None


@cache
def known_sets() -> dict[str, KnownSet]:
    """All of them, by name, in the file's order."""
    tables = tomllib.loads(files(__package__).joinpath("known_sets.toml").read_text(encoding="utf-8"))
    return {name: _read(name, table) for name, table in tables.items()}


def phantoms() -> KnownSet:
    """What slices/phantom.py draws."""
    return known_sets()["phantom"]


def schema_1_classes() -> Classes:
    """The classes of models and predictions that were written before these stored their own."""
    return known_sets()["iq-oth-nccd"].classes


def set_of_source(source: str) -> KnownSet | None:
    """The set that data called `source` (a folder, file or Hub id) are, or None."""
    return next((known for known in known_sets().values() if known.is_source(source)), None)


def set_of_folders(names: Iterable[str]) -> KnownSet | None:
    """The set whose own folder names are among `names`, or None."""
    found = {spelling(name) for name in names}
    return next((k for k in known_sets().values() if found & {spelling(folder) for folder in k.folders}), None)


def known_classes(names: Iterable[str]) -> Classes | None:
    """The classes of the first known set that knows every name of `names`, without those that none of them means.

    None where no set knows them all, or they mean fewer than two classes.
    """
    wanted = list(names)
    for known in known_sets().values():
        meant = [known.classes.find(name) for name in wanted]
        if None not in meant and len(set(meant)) > 1:
            return known.classes.only(name for name in meant if name)
    return None


def _read(name: str, table: dict[str, object]) -> KnownSet:
    spelled: dict[str, list[str]] = table["classes"]  # type: ignore[assignment]
    aliases = tuple((other, label) for label, others in spelled.items() for other in others)
    classes = Classes(tuple(spelled), tuple(table["positive"]), aliases)  # type: ignore[arg-type]
    rest = {key: value for key, value in table.items() if key not in ("classes", "positive")}
    rest |= {key: tuple(rest[key]) for key in ("folders", "caveats") if key in rest}  # type: ignore[arg-type]
    return KnownSet(name=name, classes=classes, **rest)  # type: ignore[arg-type]
