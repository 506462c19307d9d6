"""Model repos as lungct_hf wrote them before they said which classes they have (schema 1)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from lungct_hf.contract import ONNX_FILE
from lungct_hf.files import write_json

LABELS = ("normal", "benign", "malignant")


def as_schema_1(model: Path) -> Path:
    """Rewrite the files of a model directory of these three classes; card and figures are left to `finish`.

    Weights, config.json and split.csv were the same then. There was no guard that sees the source: the ONNX file had
    no output for it, and a run like this no rule to abstain.
    """
    path = model / "lungct.json"
    lungct = json.loads(path.read_text())
    lungct["calibration"]["abstain"] = None
    lungct["onnx"] |= _without_source(model / ONNX_FILE)
    write_json(path, lungct_of_schema_1(lungct))
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


def _without_source(path: Path) -> dict[str, Any]:
    """Take the output `source` out of an ONNX file; what its record says then."""
    import onnx

    model = onnx.load_model_from_string(path.read_bytes())
    kept = [output for output in model.graph.output if output.name != "source"]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    content = model.SerializeToString()
    path.write_bytes(content)
    outputs = [output.name for output in kept]
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "outputs": outputs}


def _predictions(path: Path, calibration: dict[str, Any]) -> None:
    """No classes beside the rows, and the temperatures in place of the logits from before calibration."""
    import numpy as np
    import pyarrow as pa

    table = pq.read_table(path)
    place = table.column_names.index("raw_logits")
    table = table.drop_columns(["raw_logits", "distance", "abstained"]).replace_schema_metadata(None)
    for offset, name in enumerate(("temperature", "benign_temperature")):
        values = np.full(len(table), calibration[name], np.float32)
        table = table.add_column(place + offset, name, pa.array(values))
    pq.write_table(table, path, compression="zstd")
