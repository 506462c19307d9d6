"""Read metadata.csv, metadata.jsonl or metadata.parquet: what `datasets`' imagefolder knows beside the pictures."""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import LungCTError
from .names import FILE_COLUMNS, METADATA_NAMES, cell, find_column, first_few


@dataclass
class Metadata:
    """Rows by the path of their picture below the data root. `columns` is in the files' order, without repeats."""

    columns: list[str] = field(default_factory=list)
    rows: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)

    def get(self, path: str, column: str | None) -> str:
        """The cell of `column` for the picture `path` as text, "" where there is none."""
        return cell(self.rows.get(path, {}).get(column)) if column is not None else ""


def read_metadata(root: Path, sections: list[str]) -> Metadata:
    """Gather the metadata file of the root and of each split folder in `sections` (names below the root).

    Raises:
        LungCTError: a file is damaged, has no file_name column, names a picture twice or one outside the data.
    """
    found = Metadata()
    for section in dict.fromkeys(["", *sections]):
        folder = root / section
        names = [name for name in METADATA_NAMES if (folder / name).is_file()]
        if len(names) > 1:
            raise LungCTError(f'"{section or root.name}" holds {" and ".join(names)}. Fix: keep one of them.')
        for name in names:
            _add(found, folder / name, posixpath.join(section, name), section)
    return found


def _add(found: Metadata, path: Path, shown: str, section: str) -> None:
    columns, rows = _read_table(path, shown)
    file_column = find_column(columns, FILE_COLUMNS)
    if file_column is None:
        raise LungCTError(
            f"{shown} has no column file_name (it has: {', '.join(columns) or 'none'}). Fix: add file_name with each "
            f"picture's path relative to {shown}."
        )
    found.files.append(shown)
    found.columns += [column for column in columns if column not in found.columns]
    for number, row in enumerate(rows, start=1):
        name = cell(row.get(file_column)).replace("\\", "/")
        picture = posixpath.normpath(posixpath.join(section, name)) if name else ""
        # A path out of the folder would let a downloaded data set read any file of this machine.
        if not name or posixpath.isabs(picture) or picture.split("/")[0] == ".." or "://" in name:
            raise LungCTError(
                f'{shown}, row {number}: file_name is "{name}"; the path of a picture below that folder is needed.'
            )
        if picture in found.rows:
            raise LungCTError(
                f'{shown} names "{picture}" a second time (row {number}). Fix: keep one row per picture.'
            )
        found.rows[picture] = row


def _read_table(path: Path, shown: str) -> tuple[list[str], list[dict[str, Any]]]:
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            table = pq.read_table(path)
            return list(table.column_names), table.to_pylist()
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
            if not all(isinstance(row, dict) for row in rows):
                raise ValueError("every line must be a JSON object")
            return list(dict.fromkeys(key for row in rows for key in row)), rows
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        columns, lines = list(reader.fieldnames or []), list(reader)
        ragged = [str(i) for i, row in enumerate(lines, start=1) if None in row or None in row.values()]
        if ragged:
            raise ValueError(f"rows of another length than the header: {first_few(ragged, 5)}")
        return columns, lines
    except (OSError, ValueError, csv.Error) as error:
        # pyarrow's and the decoders' errors are all ValueError or OSError.
        raise LungCTError(f"{shown} cannot be read: {error}. Fix: repair it or take it away.") from error
