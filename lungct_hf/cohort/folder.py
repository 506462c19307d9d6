"""List image folders: class folders as downloaded, split/class folders, and either with a metadata file."""

from __future__ import annotations

import os
import stat
from collections import Counter
from pathlib import Path
from posixpath import join
from typing import TYPE_CHECKING

from ..errors import BadSliceError, LungCTError
from ..labels import LABELS, canonical_label
from ..slices.listing import is_hidden, natural_key, printable
from .listing import BadFile, Listing, Row
from .metadata import Metadata, read_metadata
from .names import (
    KNOWN_CLASSES,
    LABEL_COLUMNS,
    METADATA_NAMES,
    SPLIT_COLUMNS,
    canonical_split,
    check_classes,
    find_column,
    find_group_column,
    first_few,
)
from .walk import is_dicom, is_image, subfolders, walk_files

if TYPE_CHECKING:
    import datasets

_NOT_AN_IMAGE = "it is not an image file (PNG, JPEG, TIFF, WebP or BMP needed)"
EXPORT = (
    "save each slice as PNG in the lung window first (`lungct_hf.slices.source.open_slices` reads DICOM and gives "
    "such pictures)"
)
LAYOUTS = (
    "one folder per class (normal, benign, malignant), or train/ and test/ folders that hold such folders, or a "
    "metadata.csv with the columns file_name and label"
)


def has_image_layout(root: Path) -> bool:
    """Whether `root` holds class folders or a metadata file, itself or in its split folders."""
    sections = [root, *(root / name for name in subfolders(root) if canonical_split(name))]
    return any(
        any(canonical_label(name) for name in subfolders(section))
        or any((section / name).is_file() for name in METADATA_NAMES)
        for section in sections
    )


def list_folder(root: Path, source: str, group_column: str | None, kind: str = "folder") -> Listing:
    """List the slices below `root`, an existing folder, in one of the `LAYOUTS`.

    Folders with other names are refused when they hold images and ignored when they do not (notes, masks in other
    formats). Hidden files are ignored; other files that are no images become bad files.

    Raises:
        LungCTError: the layout is none of those, a class is missing, or the metadata contradict the folders.
    """
    split_of = {name: split for name in subfolders(root) if (split := canonical_split(name))}
    classes = [name for name in subfolders(root) if canonical_label(name)]
    if split_of and classes:
        raise LungCTError(
            f'"{source}" holds both split folders ({", ".join(split_of)}) and class folders ({", ".join(classes)}). '
            f"Fix: keep one of the two layouts."
        )
    meta = read_metadata(root, list(split_of))
    column = find_group_column(meta.columns, group_column, " and ".join(meta.files) or f'"{source}"')
    rows: list[Row] = []
    bad: list[BadFile] = []
    empty: list[str] = []
    for section in split_of or [""]:
        folders = [name for name in subfolders(root / section) if canonical_label(name)]
        if folders:
            _check_strays(root, section, folders)
            found = _rows_of_classes(root, section, folders, meta, bad)
            empty += [
                join(section, name)
                for name in folders
                if not any(row.id.startswith(join(section, name, "")) for row in found)
            ]
        elif meta.files:
            found = _rows_of_metadata(root, section, meta, bad)
        else:
            raise _no_layout(root, section, source)
        for row in found:
            row.group = meta.get(row.id, column)
            named = meta.get(row.id, find_column(meta.columns, SPLIT_COLUMNS))
            row.split = split_of[section] if section else canonical_split(named) or ""
            row.name = row.id.removeprefix(f"{section}/") if section else row.id
        rows += found
    if split_of:
        _check_strays(root, "", list(split_of))
    known = {row.id for row in rows} | {entry.id for entry in bad}
    bad += [BadFile(name, "it is listed in the metadata but not there") for name in meta.rows if name not in known]
    rows = [row for row in rows if _has_utf8_name(row, bad)]
    rows.sort(key=lambda row: natural_key(row.id))
    hint = f"The class folder {first_few(empty)} holds no images. Fix: {_fill(root, empty)}." if empty else ""
    counts = Counter(LABELS[row.label] for row in rows)
    check_classes(counts, f'"{source}"', hint or f"Folder names that are known: {KNOWN_CLASSES}.")
    paths = [str(root.resolve() / row.id) for row in rows]
    return Listing(kind, source, rows, lambda i: file_bytes(paths[i]), lambda: dataset_of_paths(paths), column, bad)


def _fill(root: Path, empty: list[str]) -> str:
    """What to do about folders without images."""
    dicom = sum(is_dicom(name) for folder in empty for name in walk_files(root / folder))
    return f"DICOM files lie there ({dicom}); {EXPORT}" if dicom else "fill it"


def dataset_of_paths(paths: list[str]) -> datasets.Dataset:
    """A Dataset with the column image that points at `paths`."""
    import datasets

    return datasets.Dataset.from_dict({"image": paths}, features=datasets.Features({"image": datasets.Image()}))


def file_bytes(path: str | Path) -> bytes:
    """The file's content; BadSliceError with the reason if it cannot be read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe waits for somebody to write into it
            raise BadSliceError("it is a pipe, a socket or a device, not a regular file")
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise BadSliceError("the file does not exist") from error
    except OSError as error:
        raise BadSliceError(f"it cannot be read ({error.strerror})") from error


def _rows_of_classes(root: Path, section: str, folders: list[str], meta: Metadata, bad: list[BadFile]) -> list[Row]:
    rows = []
    label_column = find_column(meta.columns, LABEL_COLUMNS)
    for folder in folders:
        label = canonical_label(folder)
        assert label is not None
        for name in walk_files(root / section / folder):
            path = join(section, folder, name)
            if not is_image(name):
                bad.append(BadFile(printable(path), _NOT_AN_IMAGE))
                continue
            said = canonical_label(meta.get(path, label_column))
            if said not in (None, label):
                raise LungCTError(
                    f'"{path}" lies in a folder for {label} slices, but {meta.files[0]} calls it {said}. Fix: correct '
                    f"one of them."
                )
            rows.append(Row(path, LABELS.index(label)))
    return rows


def _rows_of_metadata(root: Path, section: str, meta: Metadata, bad: list[BadFile]) -> list[Row]:
    column = find_column(meta.columns, LABEL_COLUMNS)
    if column is None:
        raise LungCTError(
            f"{meta.files[0]} has no label column (it has: {', '.join(meta.columns)}) and there are no class folders. "
            f"Fix: add a column label with normal, benign or malignant."
        )
    listed = [name for name in meta.rows if not section or name.startswith(f"{section}/")]
    unknown = sorted({meta.get(name, column) for name in listed if canonical_label(meta.get(name, column)) is None})
    if unknown:
        raise LungCTError(
            f'The label column "{column}" of {meta.files[0]} has unknown values: '
            f"{first_few([repr(v) for v in unknown])}. Known: {KNOWN_CLASSES}. Fix: rename them or remove those rows."
        )
    files = {join(section, name) for name in walk_files(root / section)}
    unlisted = sorted((name for name in files if is_image(name) and name not in meta.rows), key=natural_key)
    if unlisted:
        raise LungCTError(
            f"{len(unlisted)} images have no row in {meta.files[0]}: {first_few(unlisted, 5)}. Fix: add rows for them "
            f"or move them away."
        )
    bad += [BadFile(name, _NOT_AN_IMAGE) for name in listed if name in files and not is_image(name)]
    labels = {name: LABELS.index(str(canonical_label(meta.get(name, column)))) for name in listed}
    return [Row(name, label) for name, label in labels.items() if name in files and is_image(name)]


def _check_strays(root: Path, section: str, folders: list[str]) -> None:
    """Raise if images lie beside the folders that are read: nobody said what they are."""
    here = root / section
    for folder in subfolders(here):
        if folder in folders:
            continue
        images = sum(map(is_image, walk_files(here / folder)))
        if images:
            raise LungCTError(
                f'Unknown folder "{join(section, folder)}" with {images} images beside {first_few(folders)}. Class '
                f"folder names that are known: {KNOWN_CLASSES}. Fix: rename it or move it away."
            )
    loose = sorted(e.name for e in os.scandir(here) if e.is_file() and is_image(e.name) and not is_hidden(e.name))
    if loose:
        raise LungCTError(
            f"{len(loose)} images lie outside the folders {first_few(folders)}: {first_few(loose, 5)}. Fix: move them "
            f"into the folder of their class, or away."
        )


def _no_layout(root: Path, section: str, source: str) -> LungCTError:
    shown = f'"{join(source, section) if section else source}"'
    images = [name for name in walk_files(root / section) if is_image(name)]
    if not images:
        dicom = sum(map(is_dicom, walk_files(root / section)))
        fix = f" Fix: DICOM files lie there ({dicom}); {EXPORT}." if dicom else ""
        return LungCTError(f"{shown} holds no images and no parquet file. Needed: {LAYOUTS}.{fix}")
    # Downloads often come wrapped in one or two folders more.
    inside = sorted({name.rsplit("/", 2)[0] for name in images if name.count("/") > 1})
    inner = next((name for name in inside if any(canonical_label(f) for f in subfolders(root / section / name))), None)
    if inner is not None:
        return LungCTError(f'{shown} has no class folders, but "{inner}" in it has. Fix: pass that folder.')
    folders = subfolders(root / section)
    found = f"it holds the folders {first_few(folders)}" if folders else f"it holds {len(images)} images"
    return LungCTError(f"{shown} has no class folders: {found}. Known names: {KNOWN_CLASSES}. Needed: {LAYOUTS}.")


def _has_utf8_name(row: Row, bad: list[BadFile]) -> bool:
    shown = printable(row.id)
    if shown != row.id:
        bad.append(BadFile(shown, "its file name is not valid UTF-8"))
    return shown == row.id
