"""What stands beside every answer, whichever door it leaves by: what the model is worth, and that phantoms made it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import timm
from transformers import AutoConfig

from command_here import run_here
from helpers import run
from lungct_hf import LungCT, LungCTClassifier
from lungct_hf.files import write_json
from lungct_hf.hub.worth import NOTHING_KNOWN, ON_PHANTOMS
from lungct_hf.runtime.prediction import WHAT_TO_DO, said

LUNGCT = str(Path(sys.executable).with_name("lungct"))


@pytest.fixture
def phantom_model(model_dir: Path, tmp_path: Path) -> Path:
    """The small model as one that phantoms made, with figures."""
    model = Path(shutil.copytree(model_dir, tmp_path / "model"))
    record = json.loads((model / "lungct.json").read_text())
    write_json(model / "lungct.json", record | {"provenance": {"data": {"kind": "phantom"}}})
    test = {"n": 30, "groups": 9, "balanced_accuracy": 0.5}
    write_json(model / "evaluation" / "metrics.json", {"protocol": "linked", "split": {}, "test": test})
    return model


def test_every_loader_says_it_in_every_answer(phantom_model: Path, slices: list[Path]) -> None:
    for loader in (LungCT, LungCTClassifier):
        model = loader.from_pretrained(phantom_model)
        rows = [*model.predict(slices, force=True), *model.predict(b"text")]
        assert {row.note for row in rows} == {ON_PHANTOMS} == {row.to_json()["note"] for row in rows}
        study = model.predict_study(slices)
        assert study.note == study.to_json()["note"] == ON_PHANTOMS
        assert "50.0 % on 30 slices of 9 unseen groups" in model.worth
    (phantom_model / "evaluation" / "metrics.json").write_text("{")
    assert LungCT.from_pretrained(phantom_model).worth == NOTHING_KNOWN


def test_the_other_libraries_carry_it_in_their_configuration(phantom_model: Path, tmp_path: Path) -> None:
    saved = LungCTClassifier.from_pretrained(phantom_model).save_pretrained(tmp_path / "saved")
    network = timm.create_model(f"local-dir:{saved}", pretrained=True)
    assert any("useless on patients" in note for note in network.pretrained_cfg["notes"])
    assert "useless on patients" in str(AutoConfig.from_pretrained(saved).to_dict())
    assert "useless on patients" in (saved / "README.md").read_text()


def test_every_format_of_the_command_says_it(phantom_model: Path, slices: list[Path], tmp_path: Path) -> None:
    rows = {}
    for form in ("csv", "json", "parquet"):
        out = tmp_path / f"rows.{form}"
        code, told = run_here(["predict", *slices[:2], "--model", phantom_model, "--output", out], tmp_path, {})
        assert code == 0 and ON_PHANTOMS in told and "What this model is worth" in told, told
        manifest = json.loads(out.with_name(f"{out.name}.manifest.json").read_text())
        assert manifest["note"] == ON_PHANTOMS and "50.0 %" in manifest["worth"]
        rows[form] = out
    assert rows["csv"].read_text().splitlines()[0].endswith(",note")
    assert all(line.endswith(ON_PHANTOMS) for line in rows["csv"].read_text().splitlines()[1:])
    assert all(row["note"] == ON_PHANTOMS for row in json.loads(rows["json"].read_text()))
    assert set(pq.read_table(rows["parquet"])["note"].to_pylist()) == {ON_PHANTOMS}
    done = run([LUNGCT, "predict", str(slices[0]), "--model", str(phantom_model)])
    assert done.returncode == 0 and ON_PHANTOMS in done.stderr and "What this model is worth" in done.stderr


def test_what_to_do_stands_where_a_class_would(phantom_model: Path) -> None:
    advice = WHAT_TO_DO["unlike-training-source"]
    assert advice in str(said("unlike-training-source")) and "made differently" in str(said("unlike-training-source"))
    assert said("low-confidence") and advice not in str(said("low-confidence")) and said("not-ct") is None
