"""List tables of slices: parquet files on disk and the splits of a Hub data set."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ..errors import BadSliceError, LungCTError
from ..labels import LABELS, canonical_label
from .folder import dataset_of_paths, file_bytes
from .listing import BadFile, Listing, Row
from .names import (
    IMAGE_COLUMNS,
    KNOWN_CLASSES,
    LABEL_COLUMNS,
    SPLIT_COLUMNS,
    canonical_split,
    cell,
    find_column,
    find_group_column,
    first_few,
)

if TYPE_CHECKING:
    import datasets


def list_parquet(root: Path, files: list[Path], source: str, group_column: str | None) -> Listing:
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
        tables = datasets.load_dataset("parquet", data_files=parts)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        cause = error.__cause__ or error
        raise LungCTError(f'"{source}" cannot be read as one table: {_first_line(cause)}') from error
    return list_tables(dict(tables), "parquet", source, group_column, root)


def list_tables(
    tables: dict[str, datasets.Dataset], kind: str, source: str, group_column: str | None, root: Path | None
) -> Listing:
    """List the rows of `tables`, {split name: Dataset}, in that order.

    Rows take their id from the picture's own path where these are unique, else "split/row". `root` is where pictures
    that are stored as paths lie; None refuses them.
    """
    import datasets

    columns = list(next(iter(tables.values())).column_names)
    image = _image_column(columns, source)
    label = find_column(columns, LABEL_COLUMNS)
    if label is None:
        raise LungCTError(
            f'"{source}" has no label column (it has: {", ".join(columns)}). Fix: add a column label with normal, '
            f"benign or malignant."
        )
    column = find_group_column(columns, group_column, f'"{source}"')
    split_column = find_column(columns, SPLIT_COLUMNS)
    encoded = [_undecoded(table, image, source) for table in tables.values()]
    keys, labels, groups, splits = [], [], [], []
    for key, table in tables.items():
        keys += [f"{key}/{i}" for i in range(len(table))]
        labels += _labels(table, label, source)
        groups += [cell(value) for value in (table[column][:] if column else [""] * len(table))]
        named = table[split_column][:] if split_column and split_column != label else [key] * len(table)
        splits += [canonical_split(cell(value)) or "" for value in named]
    pictures = datasets.concatenate_datasets(encoded)
    paths, embedded = _paths(pictures)
    keep = [i for i, value in enumerate(labels) if value is not None]
    ids = _ids(paths, splits, keys)
    rows = [Row(ids[i], int(labels[i] or 0), _own_name(paths[i]), groups[i], splits[i]) for i in keep]
    bad = [BadFile(ids[i], "it has no label") for i, value in enumerate(labels) if value is None]
    if any(embedded) or root is None:
        raw = pictures.select(keep) if bad else pictures
        images = raw.cast_column("image", datasets.Image())
        return Listing(kind, source, rows, lambda i: _embedded(raw[i]["image"]), lambda: images, column, bad)
    # As `Dataset.to_parquet` writes pictures that lie in files: their paths, often absolute.
    files = [root.resolve() / paths[i] if paths[i] else None for i in keep]
    whole = [str(file) if file else "" for file in files]
    return Listing(kind, source, rows, lambda i: _file_bytes(files[i]), lambda: dataset_of_paths(whole), column, bad)


def _image_column(columns: list[str], source: str) -> str:
    image = find_column(columns, IMAGE_COLUMNS)
    if image is None:
        raise LungCTError(
            f'"{source}" has no image column (it has: {", ".join(columns)}). Fix: name it image (datasets.Image, the '
            f"encoded bytes, or a path relative to the parquet file)."
        )
    return image


def _undecoded(table: datasets.Dataset, image: str, source: str) -> datasets.Dataset:
    import datasets

    feature = table.features[image]
    plain = getattr(feature, "dtype", "") in {"binary", "large_binary", "string", "large_string"}
    struct = isinstance(feature, dict) and {"bytes", "path"} & set(feature)
    if not (isinstance(feature, datasets.Image) or plain or struct):
        raise LungCTError(
            f'The image column "{image}" of "{source}" is {feature}; needed: datasets.Image, encoded bytes, or paths.'
        )
    only = table.select_columns([image])
    only = only if image == "image" else only.rename_column(image, "image")
    return only.cast_column("image", datasets.Image(decode=False))


def _labels(table: datasets.Dataset, column: str, source: str) -> list[int | None]:
    """Indices into `LABELS`; None for rows without a label."""
    import datasets

    feature, values = table.features[column], table[column][:]
    if isinstance(feature, datasets.ClassLabel):
        # The test splits of some Hub data sets are unlabelled: -1.
        values = [None if value is None or value < 0 else feature.int2str(value) for value in values]
    elif getattr(feature, "dtype", "") not in {"string", "large_string", "null"}:
        raise LungCTError(
            f'The label column "{column}" of "{source}" holds plain {getattr(feature, "dtype", feature)} without '
            f"names, so their meaning is unknown. Fix: store the names normal, benign, malignant as text, or add them "
            f'with dataset.cast_column("{column}", datasets.ClassLabel(names=[...])).'
        )
    named = {value: canonical_label(value) for value in {cell(value) for value in values} if value}
    unknown = sorted(value for value, label in named.items() if label is None)
    if unknown:
        raise LungCTError(
            f'The label column "{column}" of "{source}" has unknown values: '
            f"{first_few([repr(v) for v in unknown])}. Known: {KNOWN_CLASSES}. Fix: rename them or remove those rows."
        )
    return [LABELS.index(str(named[cell(value)])) if cell(value) else None for value in values]


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


def _file_bytes(file: Path | None) -> bytes:
    if file is None:
        raise BadSliceError("its row has no image")
    return file_bytes(file)


def _embedded(picture: dict[str, Any] | None) -> bytes:
    if not picture or picture["bytes"] is None:
        raise BadSliceError("its row holds no image bytes (a path is not enough here: embed the pictures)")
    return bytes(picture["bytes"])


def _split_of_file(file: Path, root: Path) -> str | None:
    below = file.relative_to(root)
    for name in (file.stem, *reversed(below.parts[:-1])):
        if split := canonical_split(re.split(r"[-_.]", name)[0]):
            return split
    return None


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
