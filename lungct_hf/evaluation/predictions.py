"""Every prediction is stored with its logits, so that anyone can recompute every figure.

The classes stand in the parquet schema's metadata, so that a table of predictions means something by itself.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..classes import Classes
from ..decision import contrasts
from ..errors import LungCTError, UsageError
from ..files import write_atomic
from ..known_sets import schema_1_classes

CLASSES_KEY = b"lungct.classes"  # in the schema's metadata: Classes.to_json() as JSON

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
        ("raw_logits", _LOGITS),  # before calibration
        ("distance", pa.float32()),  # from the training features, decision.FeatureDistance
        ("abstained", pa.string()),  # the reason not to answer (decision.py), "" where the model answered
        ("thresholds", pa.list_(pa.float32())),  # of its fold, in the order of decision.OPERATING_POINTS
        ("nearest_neighbour", pa.string()),  # the class that 1-NN on thumbnails named
        ("ring_nearest_neighbour", pa.string()),  # the same on the outer ring alone
        ("histogram_nearest_neighbour", pa.string()),  # the same on nothing but how many pixels have each grey level
        ("ring_logits", _LOGITS),  # the model's own, shown only the ring
        ("equal_histogram_logits", _LOGITS),  # its own, every slice with the same grey levels (neutral.py)
        ("equal_texture_logits", _LOGITS),  # its own, every slice with the same noise and sharpness
        ("equal_histogram_nearest_neighbour", pa.string()),  # 1-NN on the grey levels after they were made the same
    ]
)


def write_predictions(path: Path, rows: list[dict[str, object]], classes: Classes) -> None:
    """Write rows with the columns of SCHEMA (label by name, logits in the order of `classes`) and any of OPTIONAL.

    Sorted by protocol, seed, split and id. A column of OPTIONAL that no row has is not written.
    """
    ordered = sorted(rows, key=_place)
    used = [column for column in OPTIONAL if any(row.get(column.name) is not None for row in rows)]
    metadata = {CLASSES_KEY: json.dumps(classes.to_json(), ensure_ascii=False)}
    table = pa.Table.from_pylist(ordered, schema=pa.schema([*SCHEMA, *used], metadata=metadata))
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    write_atomic(path, sink.getvalue())


def read_predictions(path: Path) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """The table, the labels as class numbers (N,) and the logits (N, C) float32.

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


def has_classes(table: pa.Table) -> bool:
    """Whether the table says of which classes it speaks; files of this package from before they did do not."""
    return CLASSES_KEY in (table.schema.metadata or {})


def classes_of_table(table: pa.Table) -> Classes:
    """The classes in the order of the logits. Raises LungCTError where the file names none that can be."""
    if not has_classes(table):
        return schema_1_classes()
    try:
        return Classes.from_json(json.loads(table.schema.metadata[CLASSES_KEY]))
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise LungCTError(f"The predictions do not say which classes they are of ({error}).") from error


def class_numbers(table: pa.Table, column: str) -> np.ndarray:
    """A column of class names as numbers (N,); -1 where it is empty. Raises LungCTError for any other name."""
    classes, names = classes_of_table(table), table[column].to_pylist()
    number = {name: place for place, name in enumerate(classes)}
    unknown = sorted({str(name) for name in names if name is not None and name not in number})
    if unknown:
        raise LungCTError(f"The predictions name the class {unknown[0]!r} in {column}; known: {', '.join(classes)}.")
    return np.array([-1 if name is None else number[name] for name in names], dtype=np.int64)


def logits_of(table: pa.Table, column: str = "logits") -> np.ndarray:
    """float32 (N, C); NaN where the row has none. Raises LungCTError where a row has not one for each class."""
    count = len(classes_of_table(table))
    empty = [float("nan")] * count
    rows = [row or empty for row in table[column].to_pylist()]
    if wrong := next((row for row in rows if len(row) != count), None):
        raise LungCTError(f"The predictions have {len(wrong)} {column} in a row; needed: {count}.")
    return np.array(rows, dtype=np.float32).reshape(-1, count)


def uncalibrated_logits(table: pa.Table) -> np.ndarray | None:
    """float64 (N, C): the stored logits as they were before calibration; None where the rows do not say.

    Older files have two temperatures instead: one for the last of the three classes that they always had against the
    rest, one for the first two.
    """
    if "raw_logits" in table.column_names and not table["raw_logits"].null_count:
        return logits_of(table, "raw_logits").astype(np.float64)
    if "temperature" not in table.column_names or table["temperature"].null_count:
        return None
    temperature = within = table["temperature"]
    if "benign_temperature" in table.column_names:  # of some folds only where others could not be calibrated
        within = pc.coalesce(table["benign_temperature"], temperature)
    parts = contrasts(logits_of(table).astype(np.float64), ((0, 1), (2,)))
    return parts[0] * temperature.to_numpy()[:, None] + parts[1] * within.to_numpy()[:, None]


def _place(row: dict[str, object]) -> tuple[str, int, str, str]:
    seed = row.get("seed")
    return str(row.get("protocol") or ""), int(str(seed)) if seed is not None else 0, str(row["split"]), str(row["id"])
