"""Every prediction is stored with its logits, so that anyone can recompute every figure."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..decision import contrasts
from ..errors import LungCTError
from ..files import write_atomic
from ..labels import LABELS

# Not of a fixed size: pyarrow before 25 and other readers stumble over rows without values in such a column.
_LOGITS = pa.list_(pa.float32())
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("sha256", pa.string()),
        ("group", pa.string()),
        ("split", pa.string()),
        ("fold", pa.int32()),
        ("label", pa.string()),
        ("logits", _LOGITS),
    ]
)
# Written when a row has them, so a file may hold several seeds and protocols and what stands beside the model.
OPTIONAL = pa.schema(
    [
        ("protocol", pa.string()),  # "image", or the name of a grouping
        ("seed", pa.int32()),
        ("temperature", pa.float32()),  # what `logits` were calibrated with, decision.tempering
        ("benign_temperature", pa.float32()),  # the same for benign against normal; absent: `temperature`
        ("distance", pa.float32()),  # from the training features, decision.FeatureDistance
        ("abstained", pa.string()),  # the reason not to answer (decision.py), "" where the model answered
        ("nearest_neighbour", pa.string()),  # the class that 1-NN on thumbnails named
        ("ring_nearest_neighbour", pa.string()),  # the same on the outer ring alone
        ("histogram_nearest_neighbour", pa.string()),  # the same on nothing but how many pixels have each grey level
        ("ring_logits", _LOGITS),  # the model's own, shown only the ring
    ]
)


def write_predictions(path: Path, rows: list[dict[str, object]]) -> None:
    """Write rows with the columns of SCHEMA (label by name, logits in the order of LABELS) and any of OPTIONAL.

    Sorted by protocol, seed, split and id. A column of OPTIONAL that no row has is not written.
    """
    ordered = sorted(rows, key=_place)
    used = [column for column in OPTIONAL if any(row.get(column.name) is not None for row in rows)]
    table = pa.Table.from_pylist(ordered, schema=pa.schema([*SCHEMA, *used]))
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
    return table, class_numbers(table, "label"), logits_of(table)


def class_numbers(table: pa.Table, column: str) -> np.ndarray:
    """A column of class names as numbers (N,); -1 where it is empty. Raises LungCTError for any other name."""
    names = table[column].to_pylist()
    unknown = sorted({str(name) for name in names if name is not None and name not in LABELS})
    if unknown:
        raise LungCTError(f"The predictions name the class {unknown[0]!r} in {column}; known: {', '.join(LABELS)}.")
    return np.array([-1 if name is None else LABELS.index(name) for name in names], dtype=np.int64)


def logits_of(table: pa.Table, column: str = "logits") -> np.ndarray:
    """float32 (N, 3); NaN where the row has none. Raises LungCTError where a row has not one for each class."""
    empty = [float("nan")] * len(LABELS)
    rows = [row or empty for row in table[column].to_pylist()]
    if wrong := next((row for row in rows if len(row) != len(LABELS)), None):
        raise LungCTError(f"The predictions have {len(wrong)} {column} in a row; needed: {len(LABELS)}.")
    return np.array(rows, dtype=np.float32).reshape(-1, len(LABELS))


def uncalibrated_logits(table: pa.Table) -> np.ndarray | None:
    """float64 (N, 3): the stored logits as they were before calibration; None where the rows do not say."""
    if "temperature" not in table.column_names or table["temperature"].null_count:
        return None
    temperature = benign = table["temperature"]
    if "benign_temperature" in table.column_names:  # of some folds only where others could not be calibrated
        benign = pc.coalesce(table["benign_temperature"], temperature)
    parts = contrasts(logits_of(table).astype(np.float64), ((0, 1), (2,)))
    return parts[0] * temperature.to_numpy()[:, None] + parts[1] * benign.to_numpy()[:, None]


def _place(row: dict[str, object]) -> tuple[str, int, str, str]:
    seed = row.get("seed")
    return str(row.get("protocol") or ""), int(str(seed)) if seed is not None else 0, str(row["split"]), str(row["id"])
