"""Runs carry an ONNX file that was checked; `lungct export` writes it anew, and 8 bits where they are worth it."""

import hashlib
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from helpers import TINY, run, train, write_cohort
from lungct_hf import LungCT, LungCTClassifier
from lungct_hf.cohort import load_cohort
from lungct_hf.fit import onnx_int8
from lungct_hf.fit.onnx_files import export_again, slices_for_int8


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("data") / "cohort", patients=5, slices=3)


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    ended = train("--data", data, *TINY, "--epochs", "1", "--output-dir", folder)
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def export(*flags: str | Path):
    return run([sys.executable, "-m", "lungct_hf.cli", "export", *map(str, flags)])


def record_of(model: Path) -> dict:
    return json.loads((model / "lungct.json").read_text())["onnx"]


def files_of(model: Path) -> dict[str, str]:
    return {
        str(path.relative_to(model)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in model.rglob("*")
        if path.is_file()
    }


def test_a_run_ends_with_a_checked_onnx_file(finished: Path, data: Path) -> None:
    model = finished / "model"
    record = record_of(model)
    assert record["sha256"] == files_of(model)["onnx/model.onnx"] and record["opset"] == 17
    assert record["parity"]["slices"] == 32 and record["parity"]["largest_difference"]["logits"] < 1e-4
    ours = LungCT.from_pretrained(model)
    assert ours.backend == "onnx"
    paths = sorted(data.glob("*/*.png"))[::5]
    expected = LungCTClassifier.from_pretrained(model).predict(paths, force=True)
    for row, one in zip(ours.predict(paths, force=True), expected, strict=True):
        assert row.label == one.label and row.probabilities == pytest.approx(one.probabilities, abs=1e-4)


def test_exported_again_it_is_the_same_model(copy: Path, data: Path) -> None:
    before = files_of(copy / "model")
    shutil.rmtree(copy / "model" / "onnx")
    ended = export(copy, "--data", data)
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"model\.onnx: \d\.\d MB, opset 17; on 32 slices .* at most \d\.\de-0\d\.", ended.stdout)
    assert files_of(copy / "model") == before


def test_an_older_run_gets_its_record(copy: Path, data: Path) -> None:
    model = copy / "model"
    shutil.rmtree(model / "onnx")
    lungct = json.loads((model / "lungct.json").read_text())
    del lungct["onnx"]
    (model / "lungct.json").write_text(json.dumps(lungct | {"a later entry": 1}))
    assert LungCT.from_pretrained(model).backend == "torch"
    assert export(model, "--data", data).returncode == 0
    assert LungCT.from_pretrained(model).backend == "onnx"
    assert json.loads((model / "lungct.json").read_text())["a later entry"] == 1


def test_weights_that_were_changed_leave_their_onnx_file_behind(copy: Path, tmp_path: Path) -> None:
    classifier = LungCTClassifier.from_pretrained(copy / "model")
    same = classifier.save_pretrained(tmp_path / "same")
    assert record_of(same) == record_of(copy / "model") and LungCT.from_pretrained(same).backend == "onnx"
    with torch.no_grad():
        classifier.network.classifier.bias += 0.1
    changed = classifier.save_pretrained(tmp_path / "changed")
    assert not (changed / "onnx").exists() and "onnx" not in json.loads((changed / "lungct.json").read_text())


def test_a_wrong_call_is_one_sentence(copy: Path, data: Path, tmp_path: Path) -> None:
    for flags, code, sentence in (
        ((copy,), 2, "--data"),
        ((tmp_path / "nowhere", "--data", data), 2, "There is no directory"),
        ((copy, "--data", tmp_path / "nothing"), None, "nothing"),
        ((copy, "--data", data, "--on-bad-file", "eat"), 2, "refuse or skip"),
    ):
        ended = export(*flags)
        assert ended.returncode in ((code,) if code else (1, 2)), ended.stderr
        assert "Traceback" not in ended.stderr and sentence in ended.stderr.splitlines()[-1]


def test_other_data_cannot_judge_8_bits(copy: Path, tmp_path: Path) -> None:
    other = write_cohort(tmp_path / "other", patients=5, slices=3, seed=9)
    before = files_of(copy / "model")
    ended = export(copy, "--data", other, "--int8")
    assert ended.returncode == 2 and re.search(r"lacks \d+ of the \d+ slices", ended.stderr)
    assert files_of(copy / "model") == before


def test_weights_that_disagree_change_nothing(copy: Path, data: Path) -> None:
    model = copy / "model"
    state = safetensors.torch.load_file(model / "model.safetensors")
    state["classifier.weight"] *= 1e9  # beyond what 32 bits can agree about to 1e-4
    safetensors.torch.save_file(state, model / "model.safetensors")
    before = files_of(model)
    ended = export(copy, "--data", data)
    assert ended.returncode == 1 and "was not written" in ended.stderr and "Traceback" not in ended.stderr
    assert files_of(model) == before and not list(copy.glob(".*tmp"))


@pytest.mark.parametrize(("drop", "gain", "written"), [(0.0, 1.5, True), (0.02, 3.0, False), (0.0, 1.05, False)])
def test_8_bits_are_kept_only_if_as_good_and_faster(
    copy: Path, data: Path, monkeypatch: pytest.MonkeyPatch, drop: float, gain: float, written: bool
) -> None:
    """The quantised network is real; how well it answers and how fast it is here are given."""
    model, cohort, balanced = copy / "model", load_cohort(str(data), progress=False), iter([0.8, 0.8 - drop])
    monkeypatch.setattr(onnx_int8, "score", lambda *_: {"balanced_accuracy": next(balanced)})
    monkeypatch.setattr(onnx_int8, "compare_speed", lambda *_: (gain, {"float": 3.0, "int8": 3.0 / gain}))
    record = export_again(model, cohort, slices_for_int8(model, cohort))["int8"]
    assert record == record_of(model)["int8"] and record["written"] is written
    assert (model / "onnx" / "model_int8.onnx").exists() is written
    assert ("was written" in record["sentence"]) is written and f"{gain:.2f} times" in record["sentence"]
    if written:
        assert record["sha256"] == files_of(model)["onnx/model_int8.onnx"]
        assert record["bytes"] < 0.5 * record_of(model)["bytes"]
        export_again(model, cohort)
        assert not (model / "onnx" / "model_int8.onnx").exists() and "int8" not in record_of(model)


def test_8_bits_are_calibrated_on_training_slices_and_judged_on_others(copy: Path, data: Path) -> None:
    cohort = load_cohort(str(data), progress=False)
    slices = slices_for_int8(copy / "model", cohort)
    assert len(slices.calibration) and not set(slices.calibration.tolist()) & set(slices.evaluation.tolist())
    assert not set(cohort.groups[slices.calibration]) & set(cohort.groups[slices.evaluation])
    assert np.array_equal(slices.labels, cohort.labels[slices.evaluation])
    assert slices.groups == len(set(cohort.groups[slices.evaluation]))


@pytest.mark.slow
def test_the_command_says_what_became_of_8_bits(copy: Path, data: Path) -> None:
    ended = export(copy, "--data", data, "--int8")
    assert ended.returncode == 0, ended.stderr
    sentence = ended.stdout.splitlines()[-1]
    assert record_of(copy / "model")["int8"]["sentence"] == sentence
    assert re.match(r"onnx/model_int8\.onnx was (not )?written: balanced accuracy [\d.]+ in float", sentence)
