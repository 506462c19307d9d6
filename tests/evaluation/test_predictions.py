"""The stored predictions: what other people's readers find in the file, and what ours refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from simulated import rows

from lungct_hf.errors import LungCTError
from lungct_hf.evaluation import write_predictions
from lungct_hf.evaluation.predictions import logits_of, read_predictions


def test_rows_without_ring_logits_are_empty_and_no_list_is_of_fixed_size(tmp_path: Path) -> None:
    made = rows(np.random.default_rng(0))
    made[0]["ring_logits"] = [1.0, 2.0, 3.0]
    write_predictions(path := tmp_path / "predictions.parquet", made)
    table, _, logits = read_predictions(path)
    ring = logits_of(table, "ring_logits")
    assert np.isfinite(logits).all() and np.isfinite(ring).all(1).sum() == 1
    assert not any(pa.types.is_fixed_size_list(kind) for kind in pq.read_schema(path).types)


def test_a_row_without_one_logit_for_each_class_is_named(tmp_path: Path) -> None:
    made = rows(np.random.default_rng(0))
    made[2]["logits"] = [0.5, 0.5]
    write_predictions(path := tmp_path / "predictions.parquet", made)
    with pytest.raises(LungCTError, match="2 logits in a row; needed: 3"):
        read_predictions(path)
