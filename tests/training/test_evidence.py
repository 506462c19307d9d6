"""A run that came to its end is never lost because something could not be measured; what is missing is said."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pytest

from helpers import write_cohort
from lungct_hf import LungCTClassifier
from lungct_hf.cohort import Cohort, Split, load_cohort, make_split
from lungct_hf.contract import Contract
from lungct_hf.decision import Calibration
from lungct_hf.errors import UsageError
from lungct_hf.evaluation import VIEWS, read_predictions, uncalibrated_logits
from lungct_hf.fit.evidence import Answers, HeldOut, calibrate, fold_into, write_evidence
from lungct_hf.fit.model_repo import write_model_repo
from lungct_hf.fit.probes import Probes
from lungct_hf.model import build_network
from lungct_hf.slices.preprocess import Preprocessing

ARCHITECTURE = "mobilenetv2_035"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, Split]:
    cohort = load_cohort(str(write_cohort(tmp_path_factory.mktemp("c") / "data", patients=4, slices=2)))
    return cohort, make_split(cohort, folds=3)


def sources(features: np.ndarray) -> np.ndarray:
    """All slices are from one place."""
    return np.full(len(features), "clinic")


@dataclass
class Said:
    """Logits and features of each side of a split."""

    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]

    def judged(self, split: Split) -> tuple[Answers, Calibration]:
        training = self.train[1], sources(self.train[1])
        sides = {"validation": self.validation, "test": self.test}
        found = {name: HeldOut.of(split.indices(name), *said, training) for name, said in sides.items()}
        answers = Answers(**found, probes=Probes({"ring_logits": self.test[0]}))
        return answers, calibrate(split, found["validation"], training)


def answers(split: Split, *, sure: float = 0.0, spread: float = 1.0, constant: bool = False) -> Said:
    """Noise plus `sure` for the true class; features that scatter by `spread` (0: they are all equal)."""
    rng, made = np.random.default_rng(0), {}
    for name in ("train", "validation", "test"):
        labels = split.labels[split.indices(name)]
        logits = (0.0 if constant else 1.0) * rng.normal(size=(len(labels), 3)) + sure * np.eye(3)[labels]
        features = 1 + spread * (rng.normal(size=(len(labels), 1280)) + labels[:, None])
        made[name] = (logits.astype(np.float32), features.astype(np.float32))
    return Said(**made)


@pytest.mark.parametrize("case", ["noise", "no errors", "all the same", "equal features", "one class named"])
def test_every_end_of_a_run_gives_a_model_that_loads(data: tuple[Cohort, Split], tmp_path: Path, case: str) -> None:
    cohort, split = data
    said = answers(
        split,
        sure=9.0 if case == "no errors" else 0.0,
        spread=0.0 if case == "equal features" else 1.0,
        constant=case == "all the same",
    )
    if case == "one class named":
        for logits, _ in (said.validation, said.test):
            logits += np.float32([0, 50, 0])
    found, calibration = said.judged(split)
    assert calibration.temperature > 0 and calibration.folded and calibration.abstain is not None
    assert (calibration.abstain.distance is None) == (case == "equal features")
    assert ("all look the same" in (calibration.not_fitted or "")) == (case == "equal features")
    metrics = write_model_repo(
        tmp_path / "model",
        build_network(ARCHITECTURE, 3),
        Contract(ARCHITECTURE, cohort.classes, Preprocessing(size=64)),
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
    split = data[1]
    said = answers(split)
    said.validation[0][0, 0] = np.nan
    calibration = said.judged(split)[1]
    assert calibration.temperature == 1 and calibration.abstain is None and "finite logits" in calibration.not_fitted
    network = build_network(ARCHITECTURE, 3)
    before = network.classifier.weight.detach().clone()
    fold_into(network, calibration)
    assert (network.classifier.weight == before).all()
    assert Calibration.from_json(calibration.to_json()).not_fitted == calibration.not_fitted


def test_the_test_fold_decides_nothing(data: tuple[Cohort, Split], tmp_path: Path) -> None:
    cohort, split = data
    said = answers(split)
    first = said.judged(split)[1]
    said.test = -said.test[0], said.test[1] + 3
    found, second = said.judged(split)
    assert second.to_json() == first.to_json()
    metrics = write_evidence(tmp_path, cohort, split, found, first)
    assert set(metrics["baselines"]) == {*VIEWS, "model_ring"}
    assert metrics["split"]["hash"] == split.hash and metrics["test"]["uncalibrated"]["ece"] is not None
    # before calibration the stored logits are what the network said
    table, _, _ = read_predictions(tmp_path / "predictions.parquet")
    tested = table.filter(pa.compute.equal(table["split"], "test"))
    order = np.argsort(split.ids[split.indices("test")])
    assert uncalibrated_logits(tested) == pytest.approx(said.test[0][order], abs=1e-4)


def test_several_networks_each_measure_their_own_slices(data: tuple[Cohort, Split]) -> None:
    split = data[1]
    turns = split.rotated()
    with pytest.raises(UsageError, match="no folds that could take turns. Fix: --no-rotate-validation"):
        replace(split, protocol="given", fold_of=np.full(len(split.fold_of), -1)).rotated()
    assert len(turns) == 2 and turns[0] is split and all((turn.split == "test").sum() == 8 for turn in turns)
    sides = [set(turn.indices("validation").tolist()) for turn in turns]
    assert not sides[0] & sides[1] and sides[0] | sides[1] == set(np.flatnonzero(split.split != "test").tolist())
    assert all(len(set(turn.fold_of[turn.indices("validation")])) == 1 for turn in turns)
    parts = []
    for scale, turn in zip((1.0, 50.0), turns, strict=True):  # features of the second network are fifty times as large
        said = answers(turn)
        rows, training = turn.indices("validation"), (scale * said.train[1], sources(said.train[1]))
        parts.append(HeldOut.of(rows, said.validation[0], scale * said.validation[1], training))
    found = HeldOut.joined(parts)
    assert found.rows.tolist() == np.flatnonzero(split.split != "test").tolist() and found.distances is not None
    assert found.distances.max() < 5  # each in units of its own network
    final = answers(split)
    calibration = calibrate(split, found, (final.train[1], sources(final.train[1])))
    assert calibration.fitted_on["slices"] == len(found.rows) and calibration.abstain.max_distance < 5
