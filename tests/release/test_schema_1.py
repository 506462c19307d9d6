"""Models that were written before models said which classes they have: they load, answer the same and verify."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers import draw_slice
from lungct_hf import LungCT, LungCTClassifier
from lungct_hf.hub import ModelRepo
from lungct_hf.known_sets import schema_1_classes
from lungct_hf.release.gate import judge
from lungct_hf.release.prepare import prepare
from lungct_hf.release.remote import Last, Remote
from lungct_hf.release.verify import verify
from lungct_hf.release.version import Version
from release_runs import finish
from schema_1 import LABELS, as_schema_1


@pytest.fixture(scope="module")
def old(clean_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clean run as it would have been written then. Not to be written to."""
    run = Path(shutil.copytree(clean_run, tmp_path_factory.mktemp("schema1") / "run"))
    finish(as_schema_1(run / "model"))
    return run


def test_the_fixture_is_of_schema_1(old: Path) -> None:
    written = json.loads((old / "model" / "lungct.json").read_text())
    assert list(written)[:2] == ["schema_version", "labels"] and written["schema_version"] == 1
    assert "classes" not in written and "benign_temperature" in written["calibration"]
    assert "classes" not in json.loads((old / "model" / "evaluation" / "metrics.json").read_text())


def test_its_card_is_letter_for_letter_what_it_was(old: Path) -> None:
    """schema_1_card.md is what the last version of then wrote for this run."""
    then = (Path(__file__).parent / "schema_1_card.md").read_text(encoding="utf-8")
    assert (old / "model" / "README.md").read_text(encoding="utf-8") == then


def test_it_verifies(old: Path) -> None:
    found = verify(str(old))
    assert not found.false, found.false
    assert "the card is what the model's files give" in found.held
    assert "metrics.json follows from the 180 stored predictions" in found.held


def test_it_answers_as_the_same_weights_do_today(old: Path, clean_run: Path) -> None:
    squares = np.stack([np.stack([draw_slice(c, np.random.default_rng(c), 64)] * 3, axis=-1) for c in range(3)])
    found = [LungCT.from_pretrained(run / "model").predict_images(squares)[0] for run in (old, clean_run)]
    assert np.array_equal(*found)
    loaded = LungCTClassifier.from_pretrained(old / "model")
    assert loaded.labels == LABELS == schema_1_classes().names
    assert loaded.contract.calibration == LungCT.from_pretrained(old / "model").contract.calibration


def test_it_can_be_released_and_followed(old: Path, clean_run: Path, tmp_path: Path) -> None:
    prepared = prepare(old, tmp_path / "old")
    refused = judge(prepared, Version.parse("1.0.0"), Remote("alice/lung"), None)[0]
    assert [reason.code for reason in refused] == ["no-guard"]  # which is why there is one now
    assert not verify(str(prepared.folder)).false
    new = prepare(clean_run, tmp_path / "new")
    last = Last("v1.0.0", "a" * 40, ModelRepo(prepared.folder))
    assert not judge(new, Version.parse("1.1.0"), Remote("alice/lung"), last)[0]
