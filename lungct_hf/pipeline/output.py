"""Rows as a table to read, CSV, JSON or parquet: the same rows, one after the other."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import UsageError, require
from ..labels import LABELS
from ..runtime.prediction import COLUMNS

FORMATS = ("table", "csv", "json", "parquet")
_SUFFIXES = {".csv": "csv", ".json": "json", ".parquet": "parquet"}
_ROW_GROUP = 10_000  # rows
_NAME = 60  # characters of a file's name in a table

Row = Mapping[str, Any]


def choose_format(wanted: str | None, output: Path | None) -> str:
    """The format asked for, else the one that the output's name ends in, else a table.

    Raises UsageError for an unknown one, or parquet without a file; LungCTError where parquet needs an extra.
    """
    chosen = wanted or (_SUFFIXES.get(output.suffix.lower(), "table") if output else "table")
    if chosen not in FORMATS:
        raise UsageError(f"Unknown format {chosen!r}; needed is one of {', '.join(FORMATS)}.")
    if chosen == "parquet":
        if output is None:
            raise UsageError("Parquet is not written to a terminal or pipe. Fix: --output FILE.parquet")
        require("pyarrow", "parquet")
    return chosen


def write_rows(rows: Iterable[Row], form: str, handle: BinaryIO) -> None:
    """Write rows to a binary file, never holding more than a part of them.

    `rows` are as `Prediction.to_json` or `Study.to_json` makes them; all formats but JSON keep only COLUMNS.
    """
    if form == "parquet":
        _write_parquet(rows, handle)
        return
    lines = {"table": _table, "csv": _csv, "json": _json}[form](rows)
    for line in lines:
        handle.write(line.encode("utf-8", "replace"))


def flat(study: Row) -> Iterator[dict[str, Any]]:
    """The rows of a study (`Study.to_json` with its `file`), then the case as a row without a frame number."""
    yield from study["slices"]
    yield {name: study.get(name) for name in COLUMNS} | {"forced": any(row["forced"] for row in study["slices"])}


def _json(rows: Iterable[Row]) -> Iterator[str]:
    yield "["
    for number, row in enumerate(rows):
        yield ("," if number else "") + "\n" + json.dumps(row, ensure_ascii=False, allow_nan=False)
    yield "\n]\n"


def _csv(rows: Iterable[Row]) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for values in chain([COLUMNS], ([_cell(row[name]) for name in COLUMNS] for row in rows)):
        writer.writerow(values)
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def _cell(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _table(rows: Iterable[Row]) -> Iterator[str]:
    """Lines that fit a terminal; the middle of a long name is left out."""
    rows = iter(rows)
    first = list(islice(rows, 200))
    width = max([4, *(min(len(row["file"]), _NAME) for row in first)])
    reason = max([6, *(len(row["reason"] or "") for row in first)])
    head = [f"{'file':{width}}", "frame", f"{'decision':9}", f"{'reason':{reason}}", *(f"p_{name}" for name in LABELS)]
    yield "  ".join([*head, "revision"]) + "\n"
    for row in chain(first, rows):
        name = row["file"]
        short = name if len(name) <= width else f"{name[: width // 3]}…{name[-(width - width // 3 - 1) :]}"
        cells = [f"{short:{width}}", f"{'all' if row['frame'] is None else row['frame']:>5}"]
        cells += [f"{row['decision']:9}", f"{(row['reason'] or '') + ('*' if row['forced'] else ''):{reason}}"]
        for label in LABELS:
            value = row[f"p_{label}"]
            cells.append(f"{'' if value is None else format(value, '.3f'):>{len(label) + 2}}")
        yield "  ".join([*cells, (row["revision"] or "-")[:8]]).rstrip() + "\n"


def _write_parquet(rows: Iterable[Row], handle: BinaryIO) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {name: pa.string() for name in COLUMNS} | {"frame": pa.int32(), "forced": pa.bool_()}
    kinds |= {f"p_{label}": pa.float64() for label in LABELS}
    schema = pa.schema(kinds)
    rows = iter(rows)
    with pq.ParquetWriter(handle, schema) as writer:
        while part := list(islice(rows, _ROW_GROUP)):
            columns = {name: [row[name] for row in part] for name in COLUMNS}
            writer.write_table(pa.table(columns, schema=schema))
