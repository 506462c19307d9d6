"""Rows as a table to read, CSV, JSON or parquet: the same rows, one after the other."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import UsageError, require
from ..runtime.prediction import columns

FORMATS = ("table", "csv", "json", "parquet")
_SUFFIXES = {".csv": "csv", ".json": "json", ".parquet": "parquet"}
_ROW_GROUP = 10_000  # rows
_NAME, _DECISION = 60, 30  # characters of a file's name and of a decision in a table
_CHANCES = 60  # characters that the probabilities of all classes may take there
_TOP = 3  # classes that are shown where they take more

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


def write_rows(rows: Iterable[Row], form: str, handle: BinaryIO, classes: Sequence[str]) -> None:
    """Write rows to a binary file, never holding more than a part of them.

    `rows` are as `Prediction.to_json` or `Study.to_json` makes them for a model with these classes. All formats but
    JSON keep only `columns(classes)`, and of many classes a table shows only the most probable ones. A run that an
    earlier version began has rows without the columns that came later.
    """
    if form == "parquet":
        _write_parquet(rows, handle, classes)
        return
    lines = {"table": _table, "csv": _csv, "json": _json}[form](rows, classes)
    for line in lines:
        handle.write(line.encode("utf-8", "replace"))


def flat(study: Row, classes: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of a study (`Study.to_json` with its `file`), then the case as a row without a frame number."""
    yield from study["slices"]
    case = {name: study.get(name) for name in columns(classes)}
    case |= {"series": study.get("series_key"), "warnings": " ".join(study.get("warnings") or ()) or None}
    yield case | {"forced": any(row["forced"] for row in study["slices"])}


def _json(rows: Iterable[Row], _: Sequence[str]) -> Iterator[str]:
    yield "["
    for number, row in enumerate(rows):
        yield ("," if number else "") + "\n" + json.dumps(row, ensure_ascii=False, allow_nan=False)
    yield "\n]\n"


def _csv(rows: Iterable[Row], classes: Sequence[str]) -> Iterator[str]:
    buffer, names = io.StringIO(), columns(classes)
    writer = csv.writer(buffer, lineterminator="\n")
    for values in chain([names], ([_cell(row.get(name)) for name in names] for row in rows)):
        writer.writerow(values)
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def _cell(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _table(rows: Iterable[Row], classes: Sequence[str]) -> Iterator[str]:
    """Lines that fit a terminal; the middle of a long name is left out, and so are improbable ones of many classes."""
    rows = iter(rows)
    first = list(islice(rows, 200))
    width = max([4, *(min(len(row["file"]), _NAME) for row in first)])
    reason = max([6, *(len(row["reason"] or "") for row in first)])
    decision = max(9, *(min(len(name), _DECISION) for name in classes))
    fits = sum(len(name) + 4 for name in classes) <= _CHANCES
    chances = [f"p_{name}" for name in classes] if fits else ["most probable"]
    head = [f"{'file':{width}}", "frame", f"{'decision':{decision}}", f"{'reason':{reason}}"]
    # Their width varies from row to row, so the most probable ones stand last.
    tail = ["revision", "warnings"] if fits else ["warnings"]
    yield "  ".join([*head, *chances, *tail] if fits else [*head, "revision", *chances, *tail]) + "\n"
    for row in chain(first, rows):
        cells = [f"{_short(row['file'], width):{width}}", f"{'all' if row['frame'] is None else row['frame']:>5}"]
        cells += [f"{_short(row['decision'], decision):{decision}}"]
        cells += [f"{(row['reason'] or '') + ('*' if row['forced'] else ''):{reason}}"]
        revision, values = (row["revision"] or "-")[:8], {name: row[f"p_{name}"] for name in classes}
        if fits:
            cells += [f"{'' if p is None else format(p, '.3f'):>{len(name) + 2}}" for name, p in values.items()]
            cells += [f"{revision:8}"]
        else:
            top = sorted((-p, name) for name, p in values.items() if p is not None)[:_TOP]
            cells += [f"{revision:8}", ", ".join(f"{_short(name, _DECISION)} {-p:.3f}" for p, name in top)]
        noticed = row.get("warnings") or ""
        if row["frame"] is None and row.get("detail"):
            noticed = f"{noticed} ({row['detail']})".strip()
        yield "  ".join([*cells, noticed]).rstrip() + "\n"


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width // 3]}…{text[-(width - width // 3 - 1) :]}"


def _write_parquet(rows: Iterable[Row], handle: BinaryIO, classes: Sequence[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {name: pa.string() for name in columns(classes)} | {"frame": pa.int32(), "forced": pa.bool_()}
    kinds |= {f"p_{name}": pa.float64() for name in classes} | {"position": pa.float64()}
    schema = pa.schema(kinds)
    rows = iter(rows)
    with pq.ParquetWriter(handle, schema) as writer:
        while part := list(islice(rows, _ROW_GROUP)):
            table = {name: [row.get(name) for row in part] for name in kinds}
            writer.write_table(pa.table(table, schema=schema))
