"""What a run works through: files, members of archives and rows of tables, listed before anything is decoded."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BadSliceError, LungCTError, UsageError, brief
from ..slices.archive import folder_items, zip_items
from ..slices.folders import walk
from ..slices.frame import Unreadable
from ..slices.kind import HEAD, sniff
from ..slices.listing import natural_key, printable
from ..slices.read import IMAGE_SUFFIXES
from .table import list_table

FORMS = "a file, a pattern, a folder, a zip archive, a parquet file or a Hub data set (OWNER/NAME[@REVISION])"
_PICTURES = (*IMAGE_SUFFIXES, ".dcm", ".zip")


@dataclass(frozen=True, slots=True)
class Unit:
    """One thing that one reader opens. It gives one slice, or several where the file holds several.

    `kind` is "file", "member" (number `place` of the zip archive at `path`), "row" (number `place` of row group
    `group` of the parquet file there), or "bad", a place where nothing can be read; `note` is then (reason, detail).
    `file` is what its rows are called; `size` and `changed` (ns) are those of the file on the disk, 0 for one on the
    Hub, whose commit is in its name.
    """

    kind: str
    file: str
    path: str
    size: int = 0
    changed: int = 0
    place: int = 0
    group: int = 0
    note: tuple[str, str] | None = None

    @property
    def key(self) -> str:
        """32 hex digits that change with the file's name, size or time of change, and with the place in it."""
        parts = (self.kind, self.file, self.size, self.changed, self.group, self.place)
        return hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=16).hexdigest()


def list_units(sources: Sequence[str]) -> list[list[Unit]]:
    """For each of `sources`, in order, its units in the order of its slices; what is named twice comes once.

    Raises:
        UsageError: a source is nothing that exists, or a pattern that fits nothing.
        LungCTError: the Hub cannot be asked, or a table has no column of pictures.
    """
    seen: set[str] = set()
    found = []
    for source in sources:
        units = []
        for unit in _units_of(source):
            where = f"{os.path.abspath(unit.path)}\0{unit.group}\0{unit.place}"
            if where not in seen:
                seen.add(where)
                units.append(unit)
        found.append(units)
    return found


def _units_of(source: str) -> Iterator[Unit]:
    path = Path(source).expanduser()
    if path.is_dir():
        yield from _folder(path, printable(source))
    elif os.path.lexists(path):
        yield from _file(path, printable(source))
    elif glob.has_magic(source):
        matches = sorted(glob.glob(str(path), recursive=True), key=natural_key)
        if not matches:
            raise UsageError(f"No file fits the pattern {printable(source)}. Needed: {FORMS}.")
        for match in matches:
            # "**" names the files of a folder as well as the folder.
            if not (os.path.isdir(match) and "**" in source):
                yield from _units_of(glob.escape(match) if not os.path.lexists(match) else match)
    else:
        yield from _hub(source)


def _folder(path: Path, label: str) -> Iterator[Unit]:
    count = 0
    for item in folder_items(path, label):
        count += 1
        if isinstance(item, Unreadable):
            yield Unit("bad", item.file, item.file, note=(item.reason, item.detail))
        elif item.path is not None:
            yield from _file(item.path, item.file)
    if count:
        return
    tables = [
        (visited.path_of(name), file)
        for visited in walk(path)
        for name, file in visited.files
        if name.lower().endswith(".parquet")
    ]
    for below, table in sorted(tables, key=lambda found: natural_key(found[0])):
        yield from _file(table, printable(f"{label.rstrip('/')}/{below}"))
    if not tables:
        yield Unit("bad", label, label, note=("not-an-image", "There is no slice in it."))


def _file(path: Path, name: str) -> Iterator[Unit]:
    try:
        state = path.stat()
    except OSError as error:
        reason = "no-permission" if isinstance(error, PermissionError) else "not-found"
        yield Unit("bad", name, str(path), note=(reason, f"It is not there ({brief(error)})."))
        return
    identity: dict[str, Any] = {"path": str(path), "size": state.st_size, "changed": state.st_mtime_ns}
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        yield from _rows(name, **identity)
    elif suffix == ".zip" and _is_zip(path):
        yield from _members(path, name, identity)
    else:
        yield Unit("file", name, **identity)


def _is_zip(path: Path) -> bool:
    """Whether a file is what it is called; what it is instead, its reader finds out."""
    try:
        with path.open("rb") as handle:
            return sniff(handle.read(HEAD)) == "zip"
    except OSError:
        return True  # which says what is wrong with it


def _rows(name: str, path: str, **identity: Any) -> Iterator[Unit]:
    for group, place, row in list_table(path, name):
        yield Unit("row", row, path, **identity, group=group, place=place)


def _members(path: Path, name: str, identity: dict[str, Any]) -> Iterator[Unit]:
    count = 0
    try:
        with path.open("rb") as handle:
            for place, item in enumerate(zip_items(handle, name)):
                count += 1
                yield Unit("member", item.file, **identity, place=place)
    except (BadSliceError, OSError) as error:
        reason = error.reason if isinstance(error, BadSliceError) else "no-permission"
        text = brief(error)
        yield Unit("bad", name, str(path), note=(reason, f"{text[:1].upper()}{text[1:].rstrip('.')}."))
        return
    if not count:
        yield Unit("bad", name, str(path), note=("not-an-image", "There is no slice in it."))


def _hub(source: str) -> Iterator[Unit]:
    """What a data set on the Hub holds at one commit, which is part of the names.

    Its parquet files stay where they are; one of pictures and archives is fetched whole.
    """
    from ..cohort.hub import parse_hub_id, resolve_dataset

    asked = None if source.lower().endswith((*_PICTURES, ".parquet")) else parse_hub_id(source)
    if asked is None:
        raise UsageError(f"There is no file or folder {printable(source)}. Needed: {FORMS}. Fix: correct the path.")
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    repo, revision = asked
    commit, files = resolve_dataset(HfApi(), repo, revision)
    tables = sorted((file for file in files if file.lower().endswith(".parquet")), key=natural_key)
    if tables and not any(file.lower().endswith(_PICTURES) for file in files):
        for table in tables:
            name = f"{repo}@{commit}/{table}"
            yield from _rows(printable(name), f"hf://datasets/{name}")
        return
    try:
        folder = snapshot_download(repo, repo_type="dataset", revision=commit)
    except (HfHubHTTPError, HTTPError, OfflineModeIsEnabled, OSError, ValueError) as error:
        raise LungCTError(f'The Hub data set "{repo}@{commit}" could not be fetched: {brief(error)}') from error
    yield from _folder(Path(folder), f"{repo}@{commit}")
