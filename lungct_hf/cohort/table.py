"""List tables of slices or volumes: parquet files on disk and the splits of a Hub data set."""

from __future__ import annotations

import atexit
import io
import re
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from ..errors import BadSliceError, LungCTError
from ..files import check_no_pointer
from .folder import UNLABELLED, Wanted
from .listing import BadFile, Entry, Listing
from .names import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    SPLIT_COLUMNS,
    VOLUME_COLUMNS,
    canonical_split,
    cell,
    find_column,
    find_group_column,
)
from .tree import DiskFile

if TYPE_CHECKING:
    import datasets


def list_parquet(root: Path, files: list[Path], source: str, wanted: Wanted) -> Listing:
    """List parquet `files`; pictures given as paths are looked for below `root`.

    A file belongs to the split that its own or its folder's name begins with ("train-00000-of-00002.parquet").

    Raises:
        LungCTError: a file is damaged, or a column is missing or unclear.
    """
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts: dict[str, list[str]] = {}
    for file in files:
        check_no_pointer(file)
        try:
            if not file.is_file():  # opening a pipe waits for somebody to write into it
                raise OSError("it is no regular file")
            pq.read_metadata(file)
        except (OSError, pa.ArrowException) as error:
            raise LungCTError(
                f'"{file.name}" is not a readable parquet file: {error}. Fix: write it again.'
            ) from error
        parts.setdefault(_split_of_file(file, root) or "rows", []).append(str(file))
    try:
        # A cache of this call alone: the one of `datasets` knows a file by its path and time, and gave the table of
        # before for a file that was replaced under both.
        tables = datasets.load_dataset("parquet", data_files=parts, cache_dir=_scratch())
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        cause = error.__cause__ or error
        raise LungCTError(f'"{source}" cannot be read as one table: {_first_line(cause)}') from error
    return list_tables(dict(tables), "parquet", source, wanted, root)


def _scratch() -> str:
    """A new folder for tables, deleted when the process ends."""
    folder = tempfile.mkdtemp(prefix="lungct-tables-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def list_tables(
    tables: dict[str, datasets.Dataset], kind: str, source: str, wanted: Wanted, root: Path | None
) -> Listing:
    """List the rows of `tables`, {split name: Dataset}, in that order: pictures, DICOM files or NIfTI volumes.

    Rows take their id from the file's own path where these are unique, else "split/row". `root` is where files that
    are stored as paths lie; None refuses them.
    """
    import datasets

    columns = list(next(iter(tables.values())).column_names)
    image = _image_column(columns, source)
    label = find_column(columns, LABEL_COLUMNS) if wanted.unlabelled != "all" else None
    if label is None and wanted.unlabelled == "refuse":
        raise LungCTError(
            f'"{source}" has no label column (it has: {", ".join(columns)}). Fix: add a column label with the name of '
            f"each slice's class."
        )
    column = find_group_column(columns, wanted.group_column, f'"{source}"')
    split_column = find_column(columns, SPLIT_COLUMNS)
    encoded = [_undecoded(table, image, source) for table in tables.values()]
    keys, labels, groups, splits = [], [], [], []
    for key, table in tables.items():
        keys += [f"{key}/{i}" for i in range(len(table))]
        labels += _labels(table, label) if label is not None else [UNLABELLED] * len(table)
        groups += [cell(value) for value in (table[column][:] if column else [""] * len(table))]
        named = table[split_column][:] if split_column and split_column != label else [key] * len(table)
        splits += [canonical_split(cell(value)) or "" for value in named]
    pictures = datasets.concatenate_datasets(encoded)
    paths, embedded = _paths(pictures)
    ids = _ids(paths, splits, keys)
    names: dict[str, list[str]] = {}
    listing = Listing(kind, source, [], names, group_column=column, numbers=_numbers(label or LABEL_COLUMNS[0]))
    for i, said in enumerate(labels):
        if not said:
            listing.bad.append(BadFile(ids[i], "it has no label"))
            continue
        # As `Dataset.to_parquet` writes pictures that lie in files: their paths, often absolute.
        is_path = root is not None and not embedded[i] and paths[i] and not any(embedded)
        content = _PathOfRow(root.resolve() / paths[i]) if root and is_path else _BytesOfRow(pictures, i)
        listing.entries.append(Entry(ids[i], content, said, _own_name(paths[i]), groups[i], splits[i]))
        names.setdefault(splits[i], []).append(said)
    return listing


@dataclass(frozen=True)
class _PathOfRow:
    """Opens the file that a row names."""

    path: Path

    def __call__(self) -> BinaryIO:
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):  # opening a pipe waits for somebody to write into it
                raise BadSliceError("it is a pipe, a socket or a device, not a regular file")
        except FileNotFoundError as error:
            raise BadSliceError("the file does not exist") from error
        return DiskFile(self.path)()


@dataclass(frozen=True)
class _BytesOfRow:
    """Opens the bytes that a row holds."""

    files: datasets.Dataset
    row: int

    def __call__(self) -> BinaryIO:
        content = self.files[self.row]["image"]
        if not content or (content["bytes"] is None and not content["path"]):
            raise BadSliceError("its row has no image bytes")
        if content["bytes"] is None:
            raise BadSliceError("its row holds no image bytes (a path is not enough here: embed the pictures)")
        return io.BytesIO(content["bytes"])


def _image_column(columns: list[str], source: str) -> str:
    image = find_column(columns, (*IMAGE_COLUMNS[:2], *VOLUME_COLUMNS, *IMAGE_COLUMNS[2:]))
    if image is None:
        raise LungCTError(
            f'"{source}" has no image column (it has: {", ".join(columns)}). Fix: name it image (datasets.Image, '
            f"datasets.Nifti, the encoded bytes, or a path relative to the parquet file)."
        )
    return image


def _undecoded(table: datasets.Dataset, image: str, source: str) -> datasets.Dataset:
    import datasets

    feature = table.features[image]
    plain = getattr(feature, "dtype", "") in {"binary", "large_binary", "string", "large_string"}
    struct = isinstance(feature, dict) and {"bytes", "path"} & set(feature)
    nifti = getattr(datasets, "Nifti", None)  # datasets has it from version 4.5 on
    is_nifti = nifti is not None and isinstance(feature, nifti)
    if not (isinstance(feature, datasets.Image) or is_nifti or plain or struct):
        raise LungCTError(
            f'The image column "{image}" of "{source}" is {feature}; needed: datasets.Image, datasets.Nifti, encoded '
            f"bytes, or paths."
        )
    only = table.select_columns([image])
    only = only if image == "image" else only.rename_column(image, "image")
    # Both features are stored alike, and nothing here decodes them.
    return only.cast_column("image", nifti(decode=False) if nifti and is_nifti else datasets.Image(decode=False))


def _labels(table: datasets.Dataset, column: str) -> list[str]:
    """The names of the classes as the table writes them; "" for rows without a label."""
    import datasets

    feature, values = table.features[column], table[column][:]
    if isinstance(feature, datasets.ClassLabel):
        # The test splits of some Hub data sets are unlabelled: -1.
        return ["" if value is None or value < 0 else feature.int2str(value) for value in values]
    return [cell(value) for value in values]


def _numbers(column: str) -> str:
    return f'store names as text, add them with dataset.cast_column("{column}", datasets.ClassLabel(names=[...])), or '


def _paths(pictures: datasets.Dataset) -> tuple[list[str], list[bool]]:
    """Each row's own path ("" if none) and whether its bytes are embedded, without touching the bytes."""
    import pyarrow.compute as pc

    column = pictures.data.column("image")  # memory-mapped; these tables have no index mapping
    paths = pc.struct_field(column, "path").to_pylist()
    return [cell(path).replace("\\", "/") for path in paths], pc.is_valid(pc.struct_field(column, "bytes")).to_pylist()


def _own_name(path: str) -> str:
    """The path as far as it may be shown: one that leaves the data set would tell about its author's machine."""
    absolute = path.startswith("/") or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", path)
    return PurePosixPath(path).name if absolute or ".." in PurePosixPath(path).parts else path


def _ids(paths: list[str], splits: list[str], keys: list[str]) -> list[str]:
    names = [_own_name(path) for path in paths]
    for candidate in (names, [f"{split}/{name}" for split, name in zip(splits, names, strict=True)]):
        if all(names) and len(set(candidate)) == len(candidate):
            return candidate
    return keys


def _split_of_file(file: Path, root: Path) -> str | None:
    below = file.relative_to(root)
    for name in (file.stem, *reversed(below.parts[:-1])):
        if split := canonical_split(re.split(r"[-_.]", name)[0]):
            return split
    return None


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
