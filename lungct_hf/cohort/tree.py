"""A folder or a zip archive as a tree of files that can be opened, in an order that no file system has a say in."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ..errors import BadSliceError
from ..slices.archive import ZipMember, beside_of, named_by_headers, zip_members
from ..slices.folders import walk
from ..slices.frame import Unreadable
from ..slices.kind import HEAD, VOLUME_SUFFIXES, VOLUMES, sniff
from ..slices.listing import is_side_file, natural_key, one_name, printable
from ..slices.read import IMAGE_SUFFIXES
from .listing import BadFile
from .names import METADATA_NAMES

_SMALL_FILE = 2 * 2**20  # bytes
_SLICE_SUFFIXES = (*IMAGE_SUFFIXES, *VOLUME_SUFFIXES, ".dcm", ".dicom", ".ima", ".zip")
Opener = Callable[[], BinaryIO]


@dataclass(frozen=True)
class DiskFile:
    """Opens a file of the disk: a small one by one read, which decoders are then spared the many of."""

    path: Path

    def __call__(self) -> BinaryIO:
        with self.path.open("rb", buffering=0) as handle:
            content = handle.read(_SMALL_FILE + 1)
        return io.BytesIO(content) if len(content) <= _SMALL_FILE else self.path.open("rb")

    def beside(self, name: str) -> BinaryIO:
        """Open a file of this name in the same folder. Raises FileNotFoundError."""
        return beside_of(self.path)(name)


@dataclass
class Tree:
    """Paths with forward slashes below the root, in natural order and in composed form (NFC), and how to open each.

    `files` leaves out what operating systems leave behind and what only describes slices; of the latter, `tables` are
    those that may hold labels, `side` the names of the others. `folders` are all, empty ones too; `bad` what can be no
    file.
    """

    files: dict[str, Opener] = field(default_factory=dict)
    tables: dict[str, Opener] = field(default_factory=dict)
    side: list[str] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)
    bad: list[BadFile] = field(default_factory=list)
    _is_slice: dict[str, bool] = field(default_factory=dict, repr=False)
    _holding: set[str] | None = field(default=None, repr=False)

    @classmethod
    def of_folder(cls, root: Path) -> Tree:
        """The tree below a folder. Links are followed, but not in circles. Raises OSError."""
        tree = cls()
        for visited in walk(root):
            if visited.error is not None:
                if not visited.name or isinstance(visited.error, PermissionError):
                    raise visited.error
                tree.bad.append(BadFile(printable(visited.name), f"it cannot be read ({visited.error.strerror})"))
                continue
            if visited.name:
                tree.folders.add(one_name(visited.name))
            bad = {name: sentence for name, _, sentence in visited.bad}
            for name, path in [*visited.files, *((name, None) for name in bad)]:
                if name.endswith(".parquet") and name not in METADATA_NAMES:
                    tree.side.append(visited.path_of(name))  # whatever it is: reading it as a table says what is wrong
                elif path is None:
                    tree.bad.append(BadFile(printable(visited.path_of(name)), plain_reason(bad[name])))
                else:
                    tree._add(visited.path_of(name), DiskFile(path))
        tree.files = dict(sorted(tree.files.items(), key=lambda found: natural_key(found[0])))
        tree.side.sort(key=natural_key)
        return tree._without_voxels()

    @classmethod
    def of_zip(cls, path: Path) -> Tree:
        """The tree in a zip archive, which is not unpacked. Raises BadSliceError where it is damaged or a bomb."""
        tree = cls()
        for name, member in zip_members(path):
            if isinstance(member, Unreadable):
                tree.bad.append(BadFile(name, plain_reason(member.detail)))
                continue
            tree.folders |= {str(parent) for parent in PurePosixPath(one_name(name)).parents} - {"."}
            tree._add(name, member)
        return tree._without_voxels()

    def _without_voxels(self) -> Tree:
        """This tree without the files that only hold the voxels of a header beside them."""
        if any(name.lower().endswith((".mhd", ".nhdr")) for name in self.files):
            folders: dict[str, dict[str, Opener]] = {}
            for name, opener in self.files.items():
                folder, _, own = name.rpartition("/")
                folders.setdefault(folder, {})[own] = opener
            for folder, inside in folders.items():
                for own in named_by_headers(inside):
                    del self.files[f"{folder}/{own}" if folder else own]
        return self

    def _add(self, name: str, opener: DiskFile | ZipMember) -> None:
        shown, key = printable(name), one_name(name)
        if shown != name:
            self.bad.append(BadFile(shown, "its file name is not valid UTF-8, or has control characters in it"))
        elif key in self.files or key in self.tables:
            self.bad.append(BadFile(shown, "another file has this name, its accents written in another way"))
        elif PurePosixPath(name).name in METADATA_NAMES:
            self.tables[key] = opener
        elif is_side_file(PurePosixPath(name).name):
            self.side.append(name)
        else:
            self.files[key] = opener

    def subfolders(self, folder: str) -> list[str]:
        """Names of the folders directly in `folder` ("" is the root), in natural order."""
        prefix = f"{folder}/" if folder else ""
        names = {name.removeprefix(prefix) for name in self.folders if name.startswith(prefix) and name != folder}
        return sorted((name for name in names if "/" not in name), key=natural_key)

    def below(self, folder: str) -> list[str]:
        """Paths of all files below `folder`."""
        return [name for name in self.files if name.startswith(f"{folder}/")] if folder else list(self.files)

    def loose(self, folder: str) -> list[str]:
        """Names of the slices that lie directly in `folder`."""
        depth = folder.count("/") + 1 if folder else 0
        found = [name for name in self.below(folder) if name.count("/") == depth and self.is_slice(name)]
        return [name.rsplit("/", 1)[-1] for name in found]

    def is_slice(self, name: str) -> bool:
        """Whether a file may hold slices: by its ending, or where that says nothing, by its first bytes."""
        if name not in self._is_slice:
            self._is_slice[name] = is_slice_name(name) or _begins_like_slices(self.files[name])
        return self._is_slice[name]

    def holds_slices(self, folder: str) -> bool:
        """Whether a file below `folder` may hold slices."""
        if self._holding is None:
            self._holding = set()
            for name in self.files:
                parents = [str(parent) for parent in PurePosixPath(name).parents]
                if not set(parents) <= self._holding and self.is_slice(name):
                    self._holding |= set(parents)
        return (folder or ".") in self._holding


def is_slice_name(name: str) -> bool:
    """Whether a file's ending says that it holds slices."""
    return name.lower().endswith(_SLICE_SUFFIXES)


def plain_reason(detail: str) -> str:
    """A reader's sentence as part of a longer one."""
    return f"{detail[:1].lower()}{detail[1:].rstrip('.')}"


def _begins_like_slices(opener: Opener) -> bool:
    try:
        with opener() as handle:
            return sniff(handle.read(HEAD)) in ("image", "dicom", "zip", *VOLUMES)
    except (OSError, BadSliceError):
        return False
