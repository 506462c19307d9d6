"""Slices from folders and zip archives: lazily, in the order of each scan, with limits on what an archive unpacks to.

Nothing is ever unpacked to the disk, so a member's name can lead nowhere; names that try to are refused all the same,
because rows carry them on.
"""

from __future__ import annotations

import io
import os
import re
import stat
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from ..errors import BadSliceError, brief
from .folders import walk
from .frame import Unreadable
from .listing import is_hidden, is_side_file, natural_key, printable
from .order import Item, in_scan_order

MAX_MEMBER = 600 * 2**20  # bytes of one unpacked member
_SMALL_FILE = 2 * 2**20  # bytes
_IN_MEMORY = 64 * 2**20  # bytes of an unpacked member that is not put on the disk
_BLOCK = 2**20
_MAX_MEMBERS = 500_000
_MAX_TOTAL = 256 * 2**30  # bytes of all unpacked members
_MAX_RATIO = 200  # unpacked to packed; slices stay below 20, and blank ones are small
_FREE_RATIO = 16 * 2**20  # bytes below which the ratio does not matter
_HEADER = 64 * 1024  # bytes in which a header names its voxels
_VOXELS = re.compile(rb"(?mi)^[ \t]*(?:ElementDataFile[ \t]*=|data ?file:)[ \t]*([^\r\n]+)")
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError)
# What opening an archive raises; RuntimeError (a subclass of it) for a version of the format that is not known.
BAD_ARCHIVE = (*_DAMAGE, RuntimeError)
# The others are unpacked without a limit by the standard library, whatever size is asked for.
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def folder_items(folder: Path, label: str) -> Iterator[Item | Unreadable]:
    """The files below a folder: each folder's own in scan order, then its subfolders, in natural order (`walk`)."""
    label = label.rstrip("/")
    for visited in walk(folder):
        if visited.error is not None:
            name, why = printable(f"{label}/{visited.name}".rstrip("/")), visited.error
            reason = "no-permission" if isinstance(why, PermissionError) else "not-found"
            yield Unreadable(name, reason, f"The folder cannot be read ({why.strerror}).")
            continue
        for name, reason, sentence in visited.bad:
            yield Unreadable(printable(f"{label}/{visited.path_of(name)}"), reason, sentence)
        heads = {name: _disk_head(path) for name, path in visited.files}
        voxels = named_by_headers(heads)
        yield from in_scan_order(
            [
                Item(printable(f"{label}/{visited.path_of(name)}"), opener(path), heads[name], path, beside_of(path))
                for name, path in visited.files
                if not is_side_file(name) and name not in voxels
            ]
        )


def beside_of(path: Path) -> Callable[[str], BinaryIO]:
    """How a file is opened that the header at `path` names."""
    return lambda name: (path.parent / name).open("rb")


def named_by_headers(files: Mapping[str, Callable[[], BinaryIO]]) -> set[str]:
    """Of the files of one folder, by name, those with the voxels of another one: no slices of their own."""
    found = set()
    for name, open_file in files.items():
        if name.lower().endswith((".mhd", ".nhdr")):
            try:
                with open_file() as handle:
                    said = _VOXELS.search(handle.read(_HEADER))
            except (OSError, BadSliceError):  # reading it for good says why
                continue
            if said is not None:
                found.add(said[1].decode("utf-8", "replace").strip())
    return found & set(files)


def opener(path: Path) -> Callable[[], BinaryIO]:
    """How a file on the disk is opened: a small one by one read, which decoders are then spared the many of."""

    def open_file() -> BinaryIO:
        with path.open("rb", buffering=0) as handle:
            content = handle.read(_SMALL_FILE + 1)
        return io.BytesIO(content) if len(content) <= _SMALL_FILE else path.open("rb")

    return open_file


def _disk_head(path: Path) -> Callable[[], BinaryIO]:
    return lambda: path.open("rb")


def zip_items(handle: BinaryIO, label: str) -> Iterator[Item | Unreadable]:
    """The members of a zip archive, folder by folder, each in scan order.

    Raises:
        BadSliceError: the archive is damaged, or it is a bomb.
    """
    with _opened(handle) as archive:
        folders: dict[str, dict[str, Item]] = {}
        for name, parts, member, problem in _visible(archive.infolist()):
            if problem:
                yield Unreadable(f"{label}/{name}", *problem)
            elif not is_side_file(parts[-1]):
                item = Item(f"{label}/{name}", _member_opener(archive, member), _head_opener(archive, member))
                folders.setdefault("/".join(parts[:-1]), {})[name.rpartition("/")[2]] = item
        for items in folders.values():
            voxels = named_by_headers({name: item.open_head or item.open for name, item in items.items()})
            beside = _among(items)
            yield from in_scan_order(
                [replace(item, beside=beside) for name, item in items.items() if name not in voxels]
            )


def _among(items: Mapping[str, Item]) -> Callable[[str], BinaryIO]:
    def open_member(name: str) -> BinaryIO:
        if name not in items:
            raise FileNotFoundError(name)
        return items[name].open()

    return open_member


def zip_members(path: Path) -> Iterator[tuple[str, ZipMember | Unreadable]]:
    """All visible members of an archive on the disk by name, side files too, in natural order; each opens by itself.

    Raises:
        BadSliceError: the archive is damaged, or it is a bomb.
    """
    with path.open("rb") as handle, _opened(handle) as archive:
        members = archive.infolist()
    for name, _, member, problem in _visible(members):
        yield name, Unreadable(name, *problem) if problem else ZipMember(path, member)


def _opened(handle: BinaryIO) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(handle)
    except BAD_ARCHIVE as error:
        raise BadSliceError(f"the archive is damaged or cut short ({brief(error)})", "truncated") from error
    members = archive.infolist()
    packed = sum(member.compress_size for member in members)
    handle.seek(0, io.SEEK_END)
    if len(members) > _MAX_MEMBERS or sum(member.file_size for member in members) > _MAX_TOTAL:
        raise BadSliceError(f"the archive has {len(members):,} members or unpacks to too much", "too-large")
    if packed > handle.tell():
        raise BadSliceError("members of the archive overlap, as in a decompression bomb", "too-large")
    return archive


@dataclass(frozen=True)
class ZipMember:
    """Opens one member of an archive on the disk, from any thread or process."""

    path: Path
    member: zipfile.ZipInfo

    def __call__(self) -> BinaryIO:
        return _read(_archive(self.path, os.getpid()), self.member, MAX_MEMBER)

    def beside(self, name: str) -> BinaryIO:
        """Open the member of this name in the same folder. Raises FileNotFoundError."""
        folder, mark, _ = self.member.filename.rpartition("/")
        archive = _archive(self.path, os.getpid())
        try:
            return _read(archive, archive.getinfo(f"{folder}{mark}{name}"), MAX_MEMBER)
        except KeyError as error:
            raise FileNotFoundError(name) from error


@lru_cache(maxsize=4)
def _archive(path: Path, process: int) -> zipfile.ZipFile:
    """An archive that stays open: a forked process needs its own, or two would move one place in the file."""
    return zipfile.ZipFile(path)


def _visible(
    members: list[zipfile.ZipInfo],
) -> Iterator[tuple[str, tuple[str, ...], zipfile.ZipInfo, tuple[str, str] | None]]:
    """Name, its parts, the member, and why it is not opened if so, of what no operating system left behind."""
    seen: Counter[str] = Counter()
    for member in sorted(members, key=lambda member: natural_key(member.filename)):
        parts = PurePosixPath(member.filename.replace("\\", "/")).parts
        if member.filename.endswith("/") or any(map(is_hidden, parts)) and ".." not in parts:
            continue
        seen[member.filename] += 1
        again = f"#{seen[member.filename]}" if seen[member.filename] > 1 else ""  # two members of one name
        yield printable(f"{member.filename}{again}"), parts, member, _problem(member, parts)


def _problem(member: zipfile.ZipInfo, parts: tuple[str, ...]) -> tuple[str, str] | None:
    """Why a member is not opened: reason and sentence."""
    if not parts or ".." in parts or member.filename.startswith(("/", "\\")) or ":" in parts[0]:
        return "unsupported", "Its name leads out of the archive, so it is not opened."
    if stat.S_ISLNK(member.external_attr >> 16):
        return "unsupported", "It is a link, and links in archives are not followed."
    if member.flag_bits & 0x1:
        return "unsupported", "It is encrypted; unpack the archive with its password first."
    if member.compress_type not in _PACKINGS:
        return "unsupported", "It is packed in a way that is not read here. Fix: pack the archive with deflate."
    if member.filename.lower().endswith((".zip", ".7z", ".rar", ".tar", ".tgz")):
        return "unsupported", "It is an archive inside an archive; unpack the outer one first."
    if member.file_size > MAX_MEMBER:
        return "too-large", f"It unpacks to {member.file_size / 2**20:,.0f} MB (limit {MAX_MEMBER // 2**20} MB)."
    if member.file_size > _FREE_RATIO and member.file_size > _MAX_RATIO * max(member.compress_size, 1):
        return "too-large", f"It unpacks to more than {_MAX_RATIO} times its size, as a decompression bomb does."
    return None


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> BinaryIO:
    try:
        with archive.open(member) as stream:
            # No more than the member is said to have: the sizes in an archive need not be true.
            size = min(limit, member.file_size)
            if size <= _IN_MEMORY:
                return io.BytesIO(stream.read(size))
            # Its reader holds what it decodes, and would hold all of it twice.
            content = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - whoever opened the member closes it
            while size > 0 and (block := stream.read(min(size, _BLOCK))):
                content.write(block)
                size -= len(block)
            content.seek(0)
            return content
    except RuntimeError as error:
        raise BadSliceError(f"it cannot be unpacked ({brief(error)})", "unsupported") from error
    except _DAMAGE as error:
        raise BadSliceError(f"it cannot be unpacked ({brief(error)})") from error


def _member_opener(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Callable[[], BinaryIO]:
    return lambda: _read(archive, member, MAX_MEMBER)


def _head_opener(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Callable[[], BinaryIO]:
    """Only the beginning of a member, where a DICOM header lies."""
    return lambda: _read(archive, member, 256 * 1024)
