"""List the slices of any data set: those of our three classes as everywhere, others by the names of their folders."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from posixpath import join

from ..cohort.folder import EXPORT, dataset_of_paths, file_bytes
from ..cohort.listing import BadFile, Listing, Row, check_groups
from ..cohort.metadata import read_metadata
from ..cohort.names import LABEL_COLUMNS, METADATA_NAMES, canonical_split, find_column, find_group_column, first_few
from ..cohort.sources import list_source
from ..cohort.walk import is_dicom, is_image, subfolders, walk_files
from ..errors import LungCTError
from ..labels import LABELS, canonical_label
from ..slices.listing import is_hidden, natural_key, printable


@dataclass(frozen=True)
class Source:
    """A listing whose labels are indices into `classes`; `notes` say what was assumed about the folders."""

    listing: Listing
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def list_any(data: str, group_column: str | None) -> Source:
    """List what `data` names: a folder, parquet or a Hub id of our three classes, or a folder of any classes.

    An audit must be possible before anybody has renamed a class, so class folders with other names, more or fewer
    than three, are taken as they are; everything else goes the way of `load_cohort`, with its errors.

    Raises:
        UsageError: `data` is none of these forms.
        LungCTError: what it holds cannot be used.
    """
    path = Path(data).expanduser() if data.strip() else Path()
    if not data.strip() or not path.is_dir():
        return Source(list_source(data, group_column), LABELS)
    root = _unwrap(path)
    notes = [] if root == path else [f'read the folder "{root.relative_to(path).as_posix()}" inside it']
    splits = [name for name in subfolders(root) if canonical_split(name) and _has_images(root / name)]
    folders = {section: _class_folders(root / section) for section in splits or [""]}
    found = {name for names in folders.values() for name in names}
    notes += _left_out(root, folders)
    known = {canonical_label(name) for name in found}
    # Where a table names the classes, folders with other names are patients or scans.
    told = not any(known - {None}) and _names_labels(root, [section for section in folders if section])
    if not found or told or known == set(LABELS):
        return Source(list_source(str(root), group_column), LABELS, tuple(notes))
    listing, classes, merged = _list_folders(root, path.resolve().name, folders, group_column)
    ours = "" if set(classes) <= set(LABELS) else f"; training knows only {', '.join(LABELS)}"
    return Source(listing, classes, (*notes, f"classes are the folders' names{ours}", *merged))


def _list_folders(
    root: Path, source: str, folders: dict[str, list[str]], group_column: str | None
) -> tuple[Listing, tuple[str, ...], tuple[str, ...]]:
    """The listing, the classes in natural order, and what was merged."""
    _refuse_strays(root, source, folders)
    class_of = _classes(folders)
    classes = tuple(sorted(set(class_of.values()), key=natural_key))
    merged = tuple(
        f'the folder "{name}" is read as "{label}", its name in another split'
        for name, label in sorted(class_of.items())
        if name != label and canonical_label(name) is None
    )
    meta = read_metadata(root, [section for section in folders if section])
    column = find_group_column(meta.columns, group_column, " and ".join(meta.files) or f'"{source}"')
    rows: list[Row] = []
    bad: list[BadFile] = []
    for section, names in folders.items():
        for folder in names:
            for file in walk_files(root / section / folder):
                inside = f"{folder}/{file}"
                path = f"{section}/{inside}" if section else inside
                if not is_image(file) or printable(path) != path:
                    reason = "it is not an image file" if not is_image(file) else "its file name is not valid UTF-8"
                    bad.append(BadFile(printable(path), reason))
                    continue
                label = classes.index(class_of[folder])
                rows.append(Row(path, label, inside, meta.get(path, column), canonical_split(section) or ""))
    rows.sort(key=lambda row: natural_key(row.id))
    check_groups(rows, column)
    paths = [str(root.resolve() / row.id) for row in rows]
    listing = Listing(
        "folder", source, rows, lambda i: file_bytes(paths[i]), lambda: dataset_of_paths(paths), column, bad
    )
    return listing, classes, merged


def _classes(folders: dict[str, list[str]]) -> dict[str, str]:
    """{folder name: class}. Some data call a class "squamous" in test/ and "squamous_left.hilum_T1" in train/."""
    names = {name for found in folders.values() for name in found}
    class_of = {}
    for name in names:
        shorter = [
            other
            for other in names
            if name.startswith(other) and name[len(other) :][:1] in "_- ." and name != other
            # Side by side in one split, the two names are two classes.
            if not any(name in found and other in found for found in folders.values())
        ]
        base = min(shorter, key=len, default=name)
        class_of[name] = canonical_label(base) or base
    return class_of


def _unwrap(root: Path) -> Path:
    """The folder that holds the classes or splits: downloads often come wrapped in one or two folders more."""
    while not any((root / name).is_file() for name in METADATA_NAMES):
        inside = [name for name in subfolders(root) if _has_images(root / name)]
        if len(inside) != 1 or canonical_split(inside[0]) or canonical_label(inside[0]) or _loose(root):
            return root
        deeper = [name for name in subfolders(root / inside[0]) if _has_images(root / inside[0] / name)]
        if not deeper:
            return root
        root = root / inside[0]
    return root


def _left_out(root: Path, folders: dict[str, list[str]]) -> list[str]:
    """A note for each folder with the name of one of our classes that holds no image."""
    notes = []
    for section, names in folders.items():
        for name in subfolders(root / section):
            if canonical_label(name) and name not in names:
                dicom = sum(map(is_dicom, walk_files(root / section / name)))
                why = f"DICOM files lie there ({dicom}): {EXPORT}" if dicom else "it is left out"
                notes.append(f'the class folder "{join(section, name)}" holds no images; {why}')
    return notes


def _names_labels(root: Path, sections: list[str]) -> bool:
    """Whether a metadata file of the root or of a split folder calls slices by names of our classes."""
    meta = read_metadata(root, sections)
    column = find_column(meta.columns, LABEL_COLUMNS)
    return any(canonical_label(meta.get(path, column)) for path in meta.rows)


def _class_folders(section: Path) -> list[str]:
    return [name for name in subfolders(section) if _has_images(section / name)]


def _has_images(folder: Path) -> bool:
    return any(map(is_image, walk_files(folder)))


def _loose(folder: Path) -> list[str]:
    return sorted(e.name for e in os.scandir(folder) if e.is_file() and is_image(e.name) and not is_hidden(e.name))


def _refuse_strays(root: Path, source: str, folders: dict[str, list[str]]) -> None:
    loose = [f"{section}/{name}" if section else name for section in folders for name in _loose(root / section)]
    if any(folders):
        loose += _loose(root)
        loose += [f"{name}/" for name in subfolders(root) if name not in folders and _has_images(root / name)]
    if loose:
        raise LungCTError(
            f'"{source}" holds images outside its class folders: {first_few(loose, 5)}. Needed: one folder per class, '
            f"or train/ and test/ folders that hold such folders. Fix: move them into a class folder, or away."
        )
