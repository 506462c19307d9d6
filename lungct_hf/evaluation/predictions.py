"""Every prediction is stored with its logits, so that anyone can recompute every figure."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import LungCTError
from ..files import write_atomic
from ..labels import LABELS

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("sha256", pa.string()),
        ("group", pa.string()),
        ("split", pa.string()),
        ("fold", pa.int32()),
        ("label", pa.string()),
        ("logits", pa.list_(pa.float32(), len(LABELS))),
    ]
)


def write_predictions(path: Path, rows: list[dict[str, object]]) -> None:
    """Write rows with the columns of SCHEMA (label by name, logits in the order of LABELS), sorted by split and id."""
    ordered = sorted(rows, key=lambda row: (str(row["split"]), str(row["id"])))
    table = pa.Table.from_pylist(ordered, schema=SCHEMA)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    write_atomic(path, sink.getvalue())


def read_predictions(path: Path) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """The table, the labels as class numbers (N,) and the logits (N, 3) float32.

    Raises LungCTError when the file is not a predictions file of this package.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise LungCTError(f"{path.name} cannot be read as parquet ({error}).") from error
    missing = sorted(set(SCHEMA.names) - set(table.column_names))
    if missing:
        raise LungCTError(f"{path.name} lacks the columns {missing}; it was not written by this package.")
    labels = np.array([LABELS.index(name) for name in table["label"].to_pylist()], dtype=np.int64)
    logits = np.array(table["logits"].to_pylist(), dtype=np.float32).reshape(-1, len(LABELS))
    return table, labels, logits
