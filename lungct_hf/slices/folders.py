"""One walk over a folder for every reader: natural order, links followed once, any depth, whatever lies in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .listing import is_hidden, natural_key

_Identity = tuple[int, int]  # device and inode


@dataclass
class Visited:
    """One folder: its path below the root with forward slashes ("" is the root), its files by name, and what is none.

    `bad` is (name, reason code, sentence); `error` says why the folder itself could not be listed.
    """

    name: str
    files: list[tuple[str, Path]] = field(default_factory=list)
    bad: list[tuple[str, str, str]] = field(default_factory=list)
    error: OSError | None = None

    def path_of(self, name: str) -> str:
        """The path of one of its files below the root."""
        return f"{self.name}/{name}" if self.name else name


def walk(root: Path) -> Iterator[Visited]:
    """The folder `root`, then those below it, each before its own subfolders, in natural order of names.

    What systems and tools leave behind is passed over. A link to a folder is followed once: one that leads to where
    the walk has been, or will be under the folder's own name, is bad. So links in a circle end, and two links to each
    of thirty folders are not a billion paths.
    """
    real: set[_Identity] | None = None
    seen: set[_Identity] = set()
    waiting = [("", root)]
    while waiting:
        name, folder = waiting.pop()
        visited = Visited(name)
        inside: list[tuple[str, Path]] = []
        try:
            seen.add(_identity(folder))
            entries = _entries(folder)
        except OSError as error:
            visited.error = error
            yield visited
            continue
        for entry in entries:
            path, below = Path(entry.path), visited.path_of(entry.name)
            try:
                if entry.is_dir():
                    if entry.is_symlink():
                        real = _real_folders(root) if real is None else real
                        identity = _identity(path)
                        if identity in real or identity in seen:
                            sentence = "It is a link to a folder that is read under another name."
                            visited.bad.append((entry.name, "unsupported", sentence))
                            continue
                        seen.add(identity)
                    inside.append((below, path))
                elif entry.is_file():
                    visited.files.append((entry.name, path))
                elif entry.is_symlink():
                    visited.bad.append((entry.name, "not-found", "It is a link that leads nowhere."))
                else:  # opening a pipe waits for somebody to write into it
                    sentence = "It is a pipe, a socket or a device, not a regular file."
                    visited.bad.append((entry.name, "unsupported", sentence))
            except OSError as error:  # a link to itself, above all
                how = "It is a link that leads nowhere" if entry.is_symlink() else "It cannot be looked at"
                visited.bad.append((entry.name, "not-found", f"{how} ({error.strerror})."))
        yield visited
        waiting += reversed(inside)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if not is_hidden(entry.name)]
    return sorted(found, key=lambda entry: natural_key(entry.name))


def _identity(folder: Path) -> _Identity:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _real_folders(root: Path) -> set[_Identity]:
    """Every folder that the walk reaches without a link."""
    found, waiting = set[_Identity](), [root]
    while waiting:
        folder = waiting.pop()
        try:
            found.add(_identity(folder))
            waiting += [Path(entry.path) for entry in _entries(folder) if entry.is_dir(follow_symlinks=False)]
        except OSError:  # the walk itself says so
            continue
    return found
