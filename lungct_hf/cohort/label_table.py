"""Tables beside slices: metadata.csv, labels.csv and the like, with labels, groups and splits by file or by header."""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LungCTError, UsageError
from .names import KEY_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS, cell, find_column, first_few
from .text import decoded, separator_of

if TYPE_CHECKING:
    from .identity import Identity
    from .tree import Opener, Tree

_KEYS = "file_name, SOPInstanceUID, SeriesInstanceUID, StudyInstanceUID or PatientID"
_MAX_BYTES = 256 * 2**20  # of a table


@dataclass
class LabelTable:
    """Rows of one or more tables, by the path of their file or by what stands in a DICOM header.

    `files` holds rows by path below the data root, or "PATH#FRAME" for one slice of a file; `headers` rows by kind of
    key (sop, series, study, patient), then by its value. Nothing of `headers` may be shown. `columns` is in the
    tables' order, without repeats; `tables` are their names.
    """

    columns: list[str] = field(default_factory=list)
    files: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    headers: dict[str, dict[str, Mapping[str, Any]]] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)

    @property
    def shown(self) -> str:
        """What the tables are called in errors."""
        return " and ".join(self.tables)

    @property
    def label_column(self) -> str | None:
        return find_column(self.columns, LABEL_COLUMNS)

    @property
    def split_column(self) -> str | None:
        return find_column(self.columns, SPLIT_COLUMNS)

    @property
    def lists_slices(self) -> bool:
        """Whether its rows are about files or single slices, and not about scans or people."""
        return bool(self.files) or "sop" in self.headers

    def get(self, path: str, column: str | None) -> str:
        """The cell of `column` for the file `path` as text, "" where there is none."""
        return self.cell(self.files.get(path), column)

    @staticmethod
    def cell(row: Mapping[str, Any] | None, column: str | None) -> str:
        """The cell of `column` in a row as text, "" where there is none."""
        return cell(row.get(column)) if row is not None and column is not None else ""

    def labels(self) -> list[str]:
        """All labels, once each, in the tables' order."""
        if self.label_column is None:
            return []
        rows = [*self.files.values(), *(row for rows in self.headers.values() for row in rows.values())]
        return list(dict.fromkeys(filter(None, (cell(row.get(self.label_column)) for row in rows))))

    def find(self, identity: Identity | None) -> Mapping[str, Any] | None:
        """The row about a file with this header, the finest key first, or None."""
        if identity is None:
            return None
        values = {
            "sop": identity.sop,
            "series": identity.series,
            "study": identity.study,
            "patient": identity.patient,
        }
        for kind, value in values.items():
            if value and (row := self.headers.get(kind, {}).get(value)) is not None:
                return row
        return None

    def add(self, shown: str, content: bytes, section: str) -> None:
        """Add a table that lies in the folder `section` ("" is the root).

        Raises:
            LungCTError: it is damaged, names nothing by which to find a slice, names a file twice or one outside the
                data, or gives two labels to one patient, study, series or slice.
        """
        columns, rows = _read(shown, content)
        key, column = next(
            ((kind, found) for kind, names in KEY_COLUMNS.items() if (found := find_column(columns, names))),
            ("", ""),
        )
        if not key:
            raise LungCTError(
                f"{shown} has no column file_name (it has: {', '.join(columns) or 'none'}). Fix: add file_name with "
                f"each picture's path relative to {shown}, or for DICOM files one of {_KEYS.partition(', ')[2]}."
            )
        self.tables.append(shown)
        self.columns += [name for name in columns if name not in self.columns]
        if key == "file":
            self._add_files(shown, rows, column, section)
        else:
            self._add_headers(shown, rows, key, column, find_column(columns, LABEL_COLUMNS))

    def _add_files(self, shown: str, rows: list[dict[str, Any]], column: str, section: str) -> None:
        for number, row in enumerate(rows, start=1):
            name = cell(row.get(column)).replace("\\", "/")
            path = posixpath.normpath(posixpath.join(section, name)) if name else ""
            # A path out of the folder would let a downloaded data set read any file of this machine.
            if not name or posixpath.isabs(path) or path.split("/")[0] == ".." or "://" in name:
                raise LungCTError(
                    f'{shown}, row {number}: file_name is "{name}"; the path of a picture below that folder is needed.'
                )
            if path in self.files:
                raise LungCTError(
                    f'{shown} names "{path}" a second time (row {number}). Fix: keep one row per picture.'
                )
            self.files[path] = row

    def _add_headers(
        self, shown: str, rows: list[dict[str, Any]], key: str, column: str, label_column: str | None
    ) -> None:
        # What these columns hold may name a patient: rows are named by number.
        found = self.headers.setdefault(key, {})
        first: dict[str, int] = {}
        for number, row in enumerate(rows, start=1):
            value = cell(row.get(column))
            if not value:
                raise LungCTError(f"{shown}, row {number}: {column} is empty. Fix: fill it in, or remove the row.")
            before = found.setdefault(value, row)
            one, other = (cell(each.get(label_column)) if label_column else "" for each in (before, row))
            if one != other:
                raise LungCTError(
                    f"{shown}, rows {first.get(value, 1)} and {number} give two labels ({one} and {other}) to one "
                    f"{column}. Fix: keep one, or label by a finer column ({_KEYS})."
                )
            first.setdefault(value, number)


def read_tables(tree: Tree, sections: list[str]) -> LabelTable:
    """Gather the table of each folder in `sections`, paths below the root. Raises LungCTError."""
    found = LabelTable()
    for section in dict.fromkeys(sections):
        here = [name for name in tree.tables if posixpath.dirname(name) == section]
        if len(here) > 1:
            names = [posixpath.basename(name) for name in here]
            raise LungCTError(f'"{section or "the data folder"}" holds {" and ".join(names)}. Fix: keep one of them.')
        for name in here:
            found.add(name, _content(tree.tables[name], name), section)
    return found


def read_labels_file(path: Path) -> LabelTable:
    """Read the table that --labels names; paths in it are below the data root.

    Raises:
        UsageError: there is no such file, or it is no table.
        LungCTError: as `LabelTable.add`, or it has no labels.
    """
    if path.suffix.lower() not in (".csv", ".jsonl", ".parquet") or not path.is_file():
        raise UsageError(f"--labels {path.name}: a .csv, .jsonl or .parquet file that exists is needed.")
    found = LabelTable()
    found.add(path.name, path.read_bytes(), "")
    if found.label_column is None:
        raise LungCTError(f"{path.name} has no label column (it has: {', '.join(found.columns)}). Fix: add label.")
    return found


def _content(opener: Opener, shown: str) -> bytes:
    try:
        with opener() as handle:
            content = handle.read(_MAX_BYTES + 1)
    except OSError as error:
        raise LungCTError(f"{shown} cannot be read: {error}. Fix: repair it or take it away.") from error
    if len(content) > _MAX_BYTES:
        raise LungCTError(f"{shown} has more than {_MAX_BYTES >> 20} MB, which no table of labels has.")
    return content


def _read(shown: str, content: bytes) -> tuple[list[str], list[dict[str, Any]]]:
    try:
        if shown.lower().endswith(".parquet"):
            import pyarrow.parquet as pq

            table = pq.read_table(io.BytesIO(content))
            return list(table.column_names), table.to_pylist()
        text = decoded(content)
        if shown.lower().endswith(".jsonl"):
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
            if not all(isinstance(row, dict) for row in rows):
                raise ValueError("every line must be a JSON object")
            return list(dict.fromkeys(key for row in rows for key in row)), rows
        mark = separator_of(text, [name for names in KEY_COLUMNS.values() for name in names])
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=mark)
        columns, lines = list(reader.fieldnames or []), list(reader)
        ragged = [str(i) for i, row in enumerate(lines, start=1) if None in row or None in row.values()]
        if ragged:
            raise ValueError(f"rows of another length than the header: {first_few(ragged, 5)}")
        return columns, lines
    except (OSError, ValueError, csv.Error) as error:
        # pyarrow's and the decoders' errors are all ValueError or OSError.
        raise LungCTError(f"{shown} cannot be read: {error}. Fix: repair it or take it away.") from error
