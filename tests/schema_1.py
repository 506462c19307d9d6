"""Model repos as lungct_hf wrote them before they said which classes they have (schema 1)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from lungct_hf.files import write_json

LABELS = ("normal", "benign", "malignant")


def as_schema_1(model: Path) -> Path:
    """Rewrite the files of a model directory of these three classes; card and figures are left to `finish`.

    Weights, ONNX file, config.json and split.csv were the same then.
    """
    path = model / "lungct.json"
    write_json(path, lungct_of_schema_1(json.loads(path.read_text())))
    _predictions(model / "evaluation" / "predictions.parquet", json.loads(path.read_text())["calibration"])
    return model


def lungct_of_schema_1(lungct: dict[str, Any]) -> dict[str, Any]:
    """lungct.json with the keys, and in the order, of then."""
    found = {"schema_version": 1, "labels": list(lungct["classes"]["names"])}
    assert tuple(found["labels"]) == LABELS
    found |= {name: lungct[name] for name in ("window", "geometry", "provenance", "onnx") if name in lungct}
    if record := lungct.get("calibration"):
        kept = ("folded_into_weights", "fitted_on", "abstain", "not_fitted")
        temperatures = {"temperature": record["temperature"], "benign_temperature": record["within_temperature"]}
        found["calibration"] = temperatures | {name: record[name] for name in kept if name in record}
    return found


def _predictions(path: Path, calibration: dict[str, Any]) -> None:
    """No classes beside the rows, and the temperatures in place of the logits from before calibration."""
    import numpy as np
    import pyarrow as pa

    table = pq.read_table(path)
    place = table.column_names.index("raw_logits")
    table = table.drop_columns(["raw_logits"]).replace_schema_metadata(None)
    for offset, name in enumerate(("temperature", "benign_temperature")):
        values = np.full(len(table), calibration[name], np.float32)
        table = table.add_column(place + offset, name, pa.array(values))
    pq.write_table(table, path, compression="zstd")
