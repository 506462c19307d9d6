"""The stored predictions: what other people's readers find in the file, and what ours refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from simulated import SETS, THREE, rows

from lungct_hf.classes import Classes
from lungct_hf.decision import tempering
from lungct_hf.errors import LungCTError
from lungct_hf.evaluation import write_predictions
from lungct_hf.evaluation.predictions import (
    CLASSES_KEY,
    SCHEMA,
    classes_of_table,
    logits_of,
    read_predictions,
    uncalibrated_logits,
)


def test_rows_without_ring_logits_are_empty_and_no_list_is_of_fixed_size(tmp_path: Path) -> None:
    made = rows(np.random.default_rng(0))
    made[0]["ring_logits"] = [1.0, 2.0, 3.0]
    write_predictions(path := tmp_path / "predictions.parquet", made, THREE)
    table, _, logits = read_predictions(path)
    ring = logits_of(table, "ring_logits")
    assert np.isfinite(logits).all() and np.isfinite(ring).all(1).sum() == 1
    assert not any(pa.types.is_fixed_size_list(kind) for kind in pq.read_schema(path).types)


@pytest.mark.parametrize("classes", SETS.values())
def test_the_classes_travel_with_the_predictions(tmp_path: Path, classes: Classes) -> None:
    made = rows(np.random.default_rng(0), classes=classes, groups=10)
    for row in made:
        row["raw_logits"] = [2 * value for value in row["logits"]]  # type: ignore[attr-defined]
    write_predictions(path := tmp_path / "predictions.parquet", made, classes)
    table, labels, logits = read_predictions(path)
    assert classes_of_table(table) == Classes(classes.names, classes.positive)
    assert [classes[label] for label in labels] == table["label"].to_pylist()
    assert uncalibrated_logits(table) == pytest.approx(2 * logits)
    kept = table.filter(pc.equal(table["split"], "test")).take([3, 1]).select(["label", "logits"])
    assert classes_of_table(kept) == classes_of_table(table)


def test_a_file_whose_classes_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    write_predictions(path := tmp_path / "predictions.parquet", rows(np.random.default_rng(0)), THREE)
    for said in ('{"names": ["one"], "positive": []}', "[]", "{"):
        pq.write_table(
            pq.read_table(path).replace_schema_metadata({CLASSES_KEY: said}), other := tmp_path / "o.parquet"
        )
        with pytest.raises(LungCTError, match="do not say which classes"):
            read_predictions(other)


def test_logits_before_calibration_in_files_that_have_temperatures_instead(tmp_path: Path) -> None:
    """Of several folds, some of which could not be calibrated, and from before files named their classes."""
    raw = np.random.default_rng(1).normal(size=(3, 3))
    temperatures = [(2.0, 5.0), (1.0, None), (0.5, None)]
    made = [
        row
        | {
            "temperature": one,
            "benign_temperature": two,
            "logits": logits @ tempering(3, one, two or one, ((0, 1), (2,))),
        }
        for row, logits, (one, two) in zip(rows(np.random.default_rng(0)), raw, temperatures, strict=False)
    ]
    older = pa.schema([*SCHEMA, ("temperature", pa.float32()), ("benign_temperature", pa.float32())])
    pq.write_table(pa.Table.from_pylist(made, schema=older), path := tmp_path / "predictions.parquet")
    table, _, _ = read_predictions(path)
    assert classes_of_table(table) == THREE
    wanted = {row["id"]: logits for row, logits in zip(made, raw, strict=True)}
    found = uncalibrated_logits(table)
    assert found == pytest.approx(np.array([wanted[name] for name in table["id"].to_pylist()]), abs=1e-5)
    assert uncalibrated_logits(table.drop_columns("temperature")) is None


def test_a_row_without_one_logit_for_each_class_is_named(tmp_path: Path) -> None:
    made = rows(np.random.default_rng(0))
    made[2]["logits"] = [0.5, 0.5]
    write_predictions(path := tmp_path / "predictions.parquet", made, THREE)
    with pytest.raises(LungCTError, match="2 logits in a row; needed: 3"):
        read_predictions(path)
