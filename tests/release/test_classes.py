"""Releases of models with other classes: two, and four of a known set; and what it means that they changed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lungct_hf.classes import Classes
from lungct_hf.decision import OperatingPoint
from lungct_hf.errors import UsageError
from lungct_hf.evaluation import read_predictions, write_predictions
from lungct_hf.evaluation.operating import fit_operating
from lungct_hf.files import write_json
from lungct_hf.hub import ModelRepo
from lungct_hf.known_sets import known_sets, phantoms
from lungct_hf.release.canaries import read_canaries
from lungct_hf.release.compare import compare, other_classes, rows
from lungct_hf.release.evidence import read_evidence
from lungct_hf.release.prepare import Prepared, prepare
from lungct_hf.release.verify import verify
from release_runs import finish, write_run

MANY = {"two": Classes(("absent", "present"), ("present",)), "four": known_sets()["chest-ct-kaggle"].classes}


@pytest.fixture(scope="module", params=MANY)
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Classes, Prepared]:
    folder = tmp_path_factory.mktemp(request.param)
    return MANY[request.param], prepare(write_run(folder / "run", classes=MANY[request.param]), folder)


def test_what_was_prepared_verifies(other: tuple[Classes, Prepared]) -> None:
    classes, prepared = other
    assert prepared.reasons == []
    found = verify(str(prepared.folder))
    assert not found.false, found.false
    card = (prepared.folder / "README.md").read_text()
    assert all(f"| {name} | " in card for name in classes) and f"| chance | {100 / len(classes):.1f} % |" in card
    written = json.loads((prepared.folder / "evaluation" / "metrics.json").read_text())
    assert written["classes"] == classes.to_json()


def test_canaries_are_phantoms_with_a_logit_for_each_class(other: tuple[Classes, Prepared]) -> None:
    classes, prepared = other
    found = read_canaries(prepared.folder)
    assert found.golden.shape == (2 * len(phantoms().classes), len(classes))
    record = json.loads((prepared.folder / "canaries" / "canaries.json").read_text())
    assert record["labels"] == list(classes)
    assert {row["label"] for row in record["slices"]} == set(phantoms().classes)


def test_a_model_is_compared_by_the_figures_its_classes_have(other: tuple[Classes, Prepared]) -> None:
    classes, prepared = other
    found = read_evidence(ModelRepo(prepared.folder), replicates=100)
    names = [name for name, *_ in rows(compare(found, found, replicates=100))]
    assert names[5 - 1 :][-len(classes) :] == [f"sensitivity, {name}, %" for name in classes]
    assert ("AUROC, %" in names, "macro AUROC, %" in names) == (len(classes) == 2, len(classes) > 2)


def test_predictions_of_other_classes_are_found(other: tuple[Classes, Prepared], tmp_path: Path) -> None:
    classes, prepared = other
    folder = tmp_path / "run"
    model = write_run(folder, classes=classes) / "model"
    path = model / "evaluation" / "predictions.parquet"
    table = read_predictions(path)[0]
    write_predictions(path, table.to_pylist(), Classes(classes.names, classes.names[:1]))
    false = {reason.code: reason.sentence for reason in verify(str(folder)).false}
    assert "is of the classes" in false["metrics-mismatch"] and f"disease: {classes.names[0]}" in str(false)


def test_classes_in_metrics_are_compared(other: tuple[Classes, Prepared], tmp_path: Path) -> None:
    classes, _ = other
    model = write_run(tmp_path / "run", classes=classes) / "model"
    metrics = json.loads((model / "evaluation" / "metrics.json").read_text())
    metrics["classes"]["positive"] = []
    write_json(model / "evaluation" / "metrics.json", metrics)
    assert "metrics-mismatch" in {reason.code for reason in verify(str(model)).false}


def test_models_of_other_classes_are_not_compared(other: tuple[Classes, Prepared], clean_run: Path) -> None:
    _, prepared = other
    one, two = (read_evidence(ModelRepo(path), replicates=100) for path in (prepared.folder, clean_run / "model"))
    with pytest.raises(UsageError, match="do not tell the same classes apart"):
        compare(one, two, replicates=100)


def test_how_classes_differ() -> None:
    a, b = Classes(("a", "b", "c")), Classes(("a", "c", "b"))
    assert other_classes(a, a) == "" and "in the order a, b, c" in other_classes(a, b)
    assert other_classes(a, Classes(("a", "b"))).endswith("(only one has c)")
    said = other_classes(a, Classes(("a", "d", "e")))
    assert "only one has b, c" in said and "only the other has d, e" in said


def test_cuts_for_disease_must_be_those_of_the_validation_slices(tmp_path: Path) -> None:
    model = write_run(tmp_path / "run", classes=MANY["four"], signal=1.5) / "model"
    record = json.loads((model / "lungct.json").read_text())
    table, labels, logits = read_predictions(model / "evaluation" / "predictions.parquet")
    held_out = np.array(table["split"].to_pylist()) == "validation"
    groups, calibration = np.array(table["group"].to_pylist()), ModelRepo(model).contract.calibration
    assert calibration is not None
    chances = calibration.probabilities(logits)[held_out]
    points = fit_operating(chances, labels[held_out], groups[held_out], MANY["four"])

    def false(operating: tuple[OperatingPoint, ...]) -> set[str]:
        changed = replace(calibration, operating=operating).to_json()
        write_json(model / "lungct.json", record | {"calibration": changed})
        finish(model)
        return {reason.code for reason in verify(str(model)).false}

    assert len(points) == 4 and false(points) == set()
    card = (model / "README.md").read_text()
    block = json.loads((model / "evaluation" / "metrics.json").read_text())["operating"]["slices"]
    for name, point in block["points"].items():
        figure, _, share = name.partition("-")
        shown = [f"{100 * point[side]['value']:.1f} % [" for side in ("sensitivity", "specificity")]
        row = next(line for line in card.splitlines() if line.startswith(f"| cut for {share} % {figure}, by slice |"))
        assert all(text in row for text in shown)
    assert f"AUROC {block['auroc']['value']:.3f} [" in card and "roc_positive.png" not in card
    assert false((replace(points[0], threshold=points[0].threshold / 3), *points[1:])) == {"calibration-mismatch"}
