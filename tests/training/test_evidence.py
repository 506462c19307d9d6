"""A run that came to its end is never lost because something could not be measured; what is missing is said."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from helpers import write_cohort
from lungct_hf.cohort import Cohort, Split, load_cohort, make_split
from lungct_hf.contract import Contract
from lungct_hf.decision import Calibration
from lungct_hf.evaluation import VIEWS
from lungct_hf.fit.evidence import Answers, calibrate, fold_into, write_evidence
from lungct_hf.fit.model_repo import write_model_repo
from lungct_hf.model import LungCTClassifier, build_network
from lungct_hf.slices.preprocess import Preprocessing

ARCHITECTURE = "mobilenetv2_035"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, Split]:
    cohort = load_cohort(str(write_cohort(tmp_path_factory.mktemp("c") / "data", patients=4, slices=2)))
    return cohort, make_split(cohort, folds=3)


def answers(split: Split, *, sure: float = 0.0, spread: float = 1.0, constant: bool = False) -> Answers:
    """Noise plus `sure` for the true class; features that scatter by `spread`."""
    rng, made = np.random.default_rng(0), {}
    for name in ("train", "validation", "test"):
        labels = split.labels[split.indices(name)]
        logits = (0.0 if constant else 1.0) * rng.normal(size=(len(labels), 3)) + sure * np.eye(3)[labels]
        features = spread * (rng.normal(size=(len(labels), 1280)) + labels[:, None])
        made[name] = (logits.astype(np.float32), features.astype(np.float32))
    made["ring"] = made["test"]
    return made


@pytest.mark.parametrize("case", ["noise", "no errors", "all the same", "equal features", "one class named"])
def test_every_end_of_a_run_gives_a_model_that_loads(data: tuple[Cohort, Split], tmp_path: Path, case: str) -> None:
    cohort, split = data
    found = answers(split, sure=9.0 if case == "no errors" else 0.0, constant=case == "all the same")
    if case == "equal features":
        found = {name: (logits, np.ones_like(features)) for name, (logits, features) in found.items()}
    if case == "one class named":
        found = {name: (logits + np.float32([0, 50, 0]), features) for name, (logits, features) in found.items()}
    calibration = calibrate(cohort, split, found)
    assert calibration.temperature > 0 and calibration.folded and calibration.abstain is not None
    assert (calibration.abstain.distance is None) == (case == "equal features")
    assert ("all equal" in (calibration.not_fitted or "")) == (case == "equal features")
    metrics = write_model_repo(
        tmp_path / "model",
        build_network(ARCHITECTURE),
        Contract(ARCHITECTURE, Preprocessing(size=64)),
        cohort=cohort,
        split=split,
        answers=found,
        calibration=calibration,
    )
    assert json.loads((tmp_path / "model" / "evaluation" / "metrics.json").read_text()) == json.loads(
        json.dumps(metrics)
    )
    stored = LungCTClassifier.from_pretrained(tmp_path / "model").contract.calibration
    assert stored is not None and stored.to_json() == calibration.to_json()
    card = (tmp_path / "model" / "README.md").read_text()
    assert ("Not everything could be fitted" in card) == (case == "equal features")
    assert not re.search(r"\b(None|nan|inf)\b", card.split("## How to use it")[0])


def test_a_calibration_that_cannot_be_fitted_leaves_the_weights_alone(data: tuple[Cohort, Split]) -> None:
    cohort, split = data
    found = answers(split)
    found["validation"][0][0, 0] = np.nan
    calibration = calibrate(cohort, split, found)
    assert calibration.temperature == 1 and calibration.abstain is None and "finite logits" in calibration.not_fitted
    network = build_network(ARCHITECTURE)
    before = network.classifier.weight.detach().clone()
    fold_into(network, calibration)
    assert (network.classifier.weight == before).all()
    assert Calibration.from_json(calibration.to_json()).not_fitted == calibration.not_fitted


def test_the_test_fold_decides_nothing(data: tuple[Cohort, Split], tmp_path: Path) -> None:
    cohort, split = data
    found = answers(split)
    first = calibrate(cohort, split, found)
    other = {**found, "test": (-found["test"][0], found["test"][1] + 3)}
    assert calibrate(cohort, split, other).to_json() == first.to_json()
    metrics = write_evidence(tmp_path, cohort, split, found, first)
    assert set(metrics["baselines"]) == {*VIEWS, "model_ring"}
    assert metrics["split"]["hash"] == split.hash and metrics["test"]["uncalibrated"]["ece"] is not None
