"""The stored predictions: what other people's readers find in the file, and what ours refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from simulated import rows

from lungct_hf.decision import tempering
from lungct_hf.errors import LungCTError
from lungct_hf.evaluation import write_predictions
from lungct_hf.evaluation.predictions import logits_of, read_predictions, uncalibrated_logits


def test_rows_without_ring_logits_are_empty_and_no_list_is_of_fixed_size(tmp_path: Path) -> None:
    made = rows(np.random.default_rng(0))
    made[0]["ring_logits"] = [1.0, 2.0, 3.0]
    write_predictions(path := tmp_path / "predictions.parquet", made)
    table, _, logits = read_predictions(path)
    ring = logits_of(table, "ring_logits")
    assert np.isfinite(logits).all() and np.isfinite(ring).all(1).sum() == 1
    assert not any(pa.types.is_fixed_size_list(kind) for kind in pq.read_schema(path).types)


def test_logits_before_calibration_where_not_every_row_has_two_temperatures(tmp_path: Path) -> None:
    raw = np.random.default_rng(1).normal(size=(3, 3))
    temperatures = [
        (2.0, 5.0),
        (1.0, None),
        (0.5, None),
    ]  # folds that could not be calibrated, and old ones
    made = [
        row
        | {
            "temperature": one,
            "benign_temperature": two,
            "logits": logits @ tempering(3, one, two or one, ((0, 1), (2,))),
        }
        for row, logits, (one, two) in zip(rows(np.random.default_rng(0)), raw, temperatures, strict=False)
    ]
    write_predictions(path := tmp_path / "predictions.parquet", made)
    table, _, _ = read_predictions(path)
    wanted = {row["id"]: logits for row, logits in zip(made, raw, strict=True)}
    found = uncalibrated_logits(table)
    assert found == pytest.approx(np.array([wanted[name] for name in table["id"].to_pylist()]), abs=1e-5)
    assert uncalibrated_logits(table.drop_columns("temperature")) is None


def test_a_row_without_one_logit_for_each_class_is_named(tmp_path: Path) -> None:
    made = rows(np.random.default_rng(0))
    made[2]["logits"] = [0.5, 0.5]
    write_predictions(path := tmp_path / "predictions.parquet", made)
    with pytest.raises(LungCTError, match="2 logits in a row; needed: 3"):
        read_predictions(path)
