"""Every code of the gate: one test makes it fire, and a clean run fires none."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from lungct_hf.classes import Classes
from lungct_hf.cohort import Split
from lungct_hf.decision import Calibration
from lungct_hf.errors import RefusedError, UsageError
from lungct_hf.evaluation import write_predictions
from lungct_hf.evaluation.external import rebuilt, table_of, write_sets
from lungct_hf.files import write_json
from lungct_hf.hub import ModelRepo
from lungct_hf.known_sets import schema_1_classes
from lungct_hf.release.canaries import write_canaries
from lungct_hf.release.gate import _calibration, _classes, _regression, judge
from lungct_hf.release.prepare import Prepared, inspect, prepare
from lungct_hf.release.reasons import CODES, HARD, Reason, check_allowed, refuse, sift
from lungct_hf.release.remote import Last, Remote
from lungct_hf.release.version import Version
from release_runs import finish, write_run

V1, V2 = Version.parse("1.0.0"), Version.parse("1.1.0")
FIRED: set[str] = set()  # by the tests of this file


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    record = json.loads(path.read_text())
    change(record)
    write_json(path, record)


def inspected(run: Path, clean: Prepared) -> Prepared:
    """What `prepare` finds without the steps that cost seconds: pictures and loaders."""
    evidence, reasons = inspect(run)
    return replace(clean, evidence=evidence, reasons=reasons)


def codes(
    prepared: Prepared, version: Version = V1, remote: Remote | None = None, last: Last | None = None
) -> set[str]:
    found = {reason.code for reason in judge(prepared, version, remote or Remote("alice/lung"), last)[0]}
    assert found <= set(CODES)
    FIRED.update(found)
    return found


@pytest.fixture(scope="module")
def clean(clean_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(clean_run, tmp_path_factory.mktemp("clean"))


@pytest.fixture
def last(sealed: Path) -> Last:
    return Last("v1.0.0", "a" * 40, ModelRepo(sealed))


def test_a_clean_run_passes_alone_and_beside_its_last_version(clean: Prepared, last: Last, clean_run: Path) -> None:
    assert codes(clean) == set()
    found = Remote("alice/lung", "b" * 40, tags={"v1.0.0": "a" * 40}, history=[("a" * 40, "x")])
    assert codes(clean, V2, found, last) == set()
    assert (clean_run / "model" / "canaries").exists() is False  # the run itself is not touched


def test_the_start_weights_must_be_known_and_pretrained(run_dir: Path, clean: Prepared) -> None:
    for kind, code in (("random", "random-init"), ("stand-in", "stand-in-init"), (None, "unknown-init")):
        edit(
            run_dir / "model" / "lungct.json", lambda record, kind=kind: record["provenance"]["init"].update(kind=kind)
        )
        finish(run_dir / "model")
        assert codes(inspected(run_dir, clean)) == {code}


def test_split_and_data_must_be_those_of_the_weights(run_dir: Path, clean: Prepared) -> None:
    edit(run_dir / "model" / "lungct.json", lambda record: record["provenance"]["split"].update(hash="0" * 64))
    edit(run_dir / "model" / "lungct.json", lambda record: record["provenance"]["data"].update(fingerprint="0" * 64))
    finish(run_dir / "model")
    assert codes(inspected(run_dir, clean)) == {"split-mismatch", "data-mismatch"}


def test_predictions_of_other_slices_are_a_split_mismatch(run_dir: Path, clean: Prepared) -> None:
    predictions = run_dir / "model" / "evaluation" / "predictions.parquet"
    rows = pq.read_table(predictions).to_pylist()
    rows[0]["sha256"] = "0" * 64
    write_predictions(predictions, rows, schema_1_classes())
    finish(run_dir / "model")
    assert codes(inspected(run_dir, clean)) == {"split-mismatch"}
    write_predictions(predictions, rows[1:], schema_1_classes())
    finish(run_dir / "model")
    assert codes(inspected(run_dir, clean)) == {"split-mismatch"}


@pytest.mark.parametrize(
    ("side", "sentence"), [("test", "the score is too high"), ("validation", "calibration and the choice of an epoch")]
)
def test_a_group_on_both_sides_is_refused(run_dir: Path, clean: Prepared, side: str, sentence: str) -> None:
    evaluation = run_dir / "model" / "evaluation"
    split = Split.read(evaluation / "split.csv")
    rows = pq.read_table(evaluation / "predictions.parquet").to_pylist()
    first = next(row for row in rows if row["split"] == side)
    outside = str(split.groups[split.split == "train"][0])
    split.groups[split.ids == first["id"]] = outside
    first["group"] = outside
    split.__dict__.pop("hash", None)
    split.write_csv(evaluation / "split.csv")
    write_predictions(evaluation / "predictions.parquet", rows, schema_1_classes())
    said = Split.read(evaluation / "split.csv").hash
    edit(run_dir / "model" / "lungct.json", lambda record: record["provenance"]["split"].update(hash=said))
    finish(run_dir / "model")
    found = inspected(run_dir, clean)
    assert codes(found) == {"groups-across-split"} and sentence in found.reasons[0].sentence


@pytest.mark.parametrize(
    ("settings", "code"), [({"signal": 0.6}, "regression"), ({"scale": 6.0, "signal": 1.6}, "calibration-worse")]
)
def test_worse_than_the_last_version_is_refused(
    tmp_path: Path, clean: Prepared, last: Last, settings: dict[str, float], code: str
) -> None:
    worse = inspected(write_run(tmp_path / "worse", seed=0, **settings), clean)
    assert code in codes(worse, V2, last=last)
    assert code not in codes(worse, V2)


def test_a_calibration_that_was_lost_is_worse(run_dir: Path, clean: Prepared, last: Last) -> None:
    edit(run_dir / "model" / "lungct.json", lambda record: record.pop("calibration"))
    finish(run_dir / "model")
    assert "calibration-worse" in codes(inspected(run_dir, clean), V2, last=last)


def test_a_calibration_that_could_not_be_fitted_is_lost(run_dir: Path, clean: Prepared, last: Last) -> None:
    """Training writes the block all the same, and says in it why nothing could be fitted."""
    unfitted = Calibration(not_fitted="there are too few groups").to_json()
    edit(run_dir / "model" / "lungct.json", lambda record: record.update(calibration=unfitted))
    finish(run_dir / "model")
    made = inspected(run_dir, clean)
    found = [reason for reason in judge(made, V2, Remote("alice/lung"), last)[0] if reason.code == "calibration-worse"]
    assert len(found) == 1 and "too few groups" in found[0].sentence
    assert "calibration-worse" not in codes(made)


def test_a_rule_for_abstaining_that_was_lost_is_worse(run_dir: Path, clean: Prepared, sealed: Path) -> None:
    last = Last("v1.0.0", "a" * 40, ModelRepo(sealed))
    assert "calibration-worse" not in codes(inspected(run_dir, clean), V2, last=last)
    edit(run_dir / "model" / "lungct.json", lambda record: record["calibration"].update(abstain=None))
    predictions = run_dir / "model" / "evaluation" / "predictions.parquet"
    pq.write_table(pq.read_table(predictions).drop_columns(["distance", "abstained"]), predictions)
    finish(run_dir / "model")
    assert codes(inspected(run_dir, clean), V2, last=last) == {"calibration-worse", "no-guard"}


def test_a_model_must_know_its_source(run_dir: Path, clean: Prepared) -> None:
    """A rule that only looks at the confidence answers for any hospital."""
    assert "no-guard" not in codes(inspected(run_dir, clean))

    def blind(record: dict[str, Any]) -> None:
        record["calibration"]["abstain"] |= {"distance": None, "max_distance": None}

    edit(run_dir / "model" / "lungct.json", blind)
    finish(run_dir / "model")
    assert codes(inspected(run_dir, clean)) == {"no-guard"}


@pytest.mark.parametrize("spoil", ["ring knows", "ring alone knows", "not stored"])
def test_what_sees_only_the_ring_must_know_less(run_dir: Path, clean: Prepared, spoil: str) -> None:
    predictions = run_dir / "model" / "evaluation" / "predictions.parquet"
    rows = pq.read_table(predictions).to_pylist()
    for row in rows:
        if row["split"] == "test" and spoil == "ring knows":
            row["ring_nearest_neighbour"] = row["label"]
        elif row["split"] == "test" and spoil == "ring alone knows":
            row["ring_logits"] = row["logits"]
        elif spoil == "not stored":
            del row["ring_nearest_neighbour"]
    write_predictions(predictions, rows, schema_1_classes())
    finish(run_dir / "model")
    assert codes(inspected(run_dir, clean)) == {"shortcut-probe"}


def test_the_same_weights_must_answer_the_canaries_as_before(clean: Prepared, sealed: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sealed, tmp_path / "last"))
    last = Last("v1.0.0", "a" * 40, ModelRepo(folder))
    write_canaries(folder, clean.canaries.files, clean.canaries.golden + np.float32(0.5e-4), clean.evidence.classes)
    assert codes(clean, V2, last=last) == set()
    write_canaries(folder, clean.canaries.files, clean.canaries.golden + np.float32(3e-4), clean.evidence.classes)
    assert codes(clean, V2, last=last) == {"canary-changed"}


def test_other_classes_make_another_model(clean: Prepared, tmp_path: Path, last: Last) -> None:
    run = write_run(tmp_path / "run", classes=Classes(("absent", "present"), ("present",)))
    made = prepare(run, tmp_path)
    assert codes(made, V2, last=last) == {"classes-changed"}
    reasons, notes = judge(made, V2, Remote("alice/lung"), last)
    assert "only one has absent, present" in str(reasons[0]) and "v1.0.0" in str(reasons[0])
    assert any("other classes, so they are not compared" in note for note in notes)


def test_another_mark_of_disease_is_a_note(clean: Prepared, last: Last) -> None:
    notes: list[str] = []
    names = clean.evidence.classes.names
    assert not list(_classes(Classes(names, names[1:]), clean.evidence.classes, "v1.0.0", notes))
    assert [f"counted {names[2]}, this model counts {names[1]}, {names[2]}:" in note for note in notes] == [True]


def test_tests_elsewhere_must_hold_and_become_no_worse(tested_run: Path, tmp_path: Path, clean: Prepared) -> None:
    last = Last("v1.0.0", "a" * 40, ModelRepo(tested_run / "model"))
    assert "external-missing" in codes(clean, last=last)
    model = Path(shutil.copytree(tested_run, tmp_path / "run")) / "model"
    parquet = model / "evaluation" / "external" / "other.parquet"
    assert not {code for code in codes(replace(clean, folder=model), last=last) if code.startswith("external")}
    before = pq.read_table(parquet)
    rows = before.to_pylist()
    for calm in (True, False):  # of two answers to the same slices the one is the last version's
        for row in rows:
            row["logits"] = [9.0, 0.0, 0.0] if calm or row["label"] != "negative" else [0.0, 0.0, 9.0]
            row["decision"], row["reason"] = ("normal" if calm or row["label"] != "negative" else "malignant"), None
        pq.write_table(table_of(rows, schema_1_classes()), parquet)
        write_sets(model, rebuilt(ModelRepo(model)))
        if calm:
            former = Last("v1.0.0", "a" * 40, ModelRepo(Path(shutil.copytree(model, tmp_path / "former"))))
    assert "external-false-alarms" in codes(replace(clean, folder=model), last=former)
    rows[0]["decision"] = "benign"
    pq.write_table(table_of(rows, schema_1_classes()), parquet)
    content = bytearray((model / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (model / "model.safetensors").write_bytes(content)
    assert {"external-mismatch", "external-stale"} <= codes(inspected(model.parent, clean))


def test_other_weights_may_answer_otherwise(tmp_path: Path, last: Last) -> None:
    assert codes(prepare(write_run(tmp_path / "other", seed=1), tmp_path), V2, last=last) == set()


def test_a_loader_that_disagrees_is_refused(run_dir: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", seed=5)
    shutil.copy(other / "model" / "model.safetensors", run_dir / "model" / "model.safetensors")  # the ONNX file stays
    assert "loader-mismatch" in codes(prepare(run_dir, tmp_path))


def test_versions_only_go_up_and_a_tag_is_for_ever(clean: Prepared) -> None:
    found = Remote("alice/lung", "b" * 40, tags={"v1.0.0": "a" * 40, "v0.9.0+rollback.3": "b" * 40})
    assert codes(clean, V1, found) == {"tag-exists"}
    for text in ("0.9.0", "0.0.1", "0.99.0"):
        assert codes(clean, Version.parse(text), found) == {"version-not-greater"}
    assert codes(clean, Version.parse("1.0.1"), found) == codes(clean, Version.parse("1.10.0"), found) == set()


def test_what_must_not_be_published_is_refused(run_dir: Path, clean: Prepared) -> None:
    (run_dir / "model" / "evaluation" / "state.dat").write_bytes(pickle.dumps({"a": 1}))
    (run_dir / "model" / "notes.txt").write_text("hf_" + "aB3" * 10)
    (run_dir / "model" / "DOE_JANE.txt").write_text("x")
    assert codes(inspected(run_dir, clean)) == {"pickle", "secret", "patient-data"}


def test_a_model_needs_no_program(run_dir: Path, clean: Prepared) -> None:
    """No loader is to run what travels in a repo, whoever put it there."""
    (run_dir / "model" / "modeling_lungct.py").write_text("print('hello')\n", encoding="utf-8")
    assert codes(inspected(run_dir, clean)) == {"code"}


def test_figures_and_card_must_follow_from_the_predictions(run_dir: Path, clean: Prepared) -> None:
    model = run_dir / "model"
    edit(model / "evaluation" / "metrics.json", lambda record: record["test"].update(accuracy=0.99))
    assert codes(inspected(run_dir, clean)) >= {"metrics-mismatch"}
    finish(model)
    card = (model / "README.md").read_text()
    (model / "README.md").write_text(card.replace("Research software", "Certified software"))
    assert codes(inspected(run_dir, clean)) == {"card-mismatch"}
    finish(model)
    (model / "README.md").write_text(card.replace("<!-- author:end -->", "My own 99.9 %.\n<!-- author:end -->"))
    assert codes(inspected(run_dir, clean)) == set()


def test_abstentions_without_a_rule_are_refused(run_dir: Path, clean: Prepared) -> None:
    predictions = run_dir / "model" / "evaluation" / "predictions.parquet"
    rows = pq.read_table(predictions).to_pylist()
    write_predictions(predictions, [row | {"abstained": "low-confidence"} for row in rows], schema_1_classes())
    finish(run_dir / "model")
    assert codes(inspected(run_dir, clean)) == {"calibration-mismatch"}


def test_what_is_published_is_made_anew(run_dir: Path, tmp_path: Path, clean: Prepared) -> None:
    """With the mismatch allowed, the figures that go out are still those of the predictions."""
    edit(run_dir / "model" / "evaluation" / "metrics.json", lambda record: record["test"].update(accuracy=0.99))
    (run_dir / "model" / "evaluation" / "roc.png").write_bytes(b"old")
    made = prepare(run_dir, tmp_path)
    for name in ("evaluation/metrics.json", "evaluation/roc.png", ".eval_results/lungct.yaml", "README.md"):
        assert (made.folder / name).read_bytes() == (clean.folder / name).read_bytes(), name
    assert made.content == clean.content


def test_a_figure_that_no_draw_moves_is_let_through_no_more_than_its_value() -> None:
    def said(value: float) -> tuple[list[str], list[str]]:
        figure = {"value": value, "low": None, "high": None, "constant": True, "a": 0.2, "b": 0.1}
        found = SimpleNamespace(figures={"balanced_accuracy": figure, "ece": figure}, how="paired")
        evidence = SimpleNamespace(calibration={})
        notes: list[str] = []
        reasons = [*_regression(found, "v1.0.0", notes), *_calibration(found, evidence, evidence, "v1.0.0")]
        return [reason.code for reason in reasons], notes

    assert said(-0.3) == (["regression"], []) and said(0.3) == (["calibration-worse"], [])
    assert said(0.0) == ([], [])


def test_overrides_are_by_code_and_not_for_everything() -> None:
    reasons = [Reason("random-init", "a"), Reason("regression", "b")]
    assert sift(reasons, ["regression"]) == (reasons[:1], reasons[1:])
    with pytest.raises(RefusedError) as caught:
        refuse(reasons)
    assert caught.value.exit_code == 3
    assert [line.strip() for line in str(caught.value).splitlines()[1:3]] == ["random-init: a", "regression: b"]
    for code in ("no-such-code", *HARD):
        with pytest.raises(UsageError):
            check_allowed([code])
    check_allowed(sorted(set(CODES) - set(HARD)))


def test_every_code_was_seen(request: pytest.FixtureRequest) -> None:
    chosen = {item.function for item in request.session.items if item.module is request.module}
    if len(chosen) < sum(name.startswith("test_") for name in vars(request.module)):
        pytest.skip("only a part of this file was run")
    assert set(CODES) == FIRED
