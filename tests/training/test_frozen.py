"""The fast mode: the front is untouched, its stored output gives what the whole network gives, runs resume."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from helpers import TINY, train, wake_up, write_cohort
from lungct_hf.cohort import load_cohort
from lungct_hf.errors import UsageError
from lungct_hf.fit.batches import Squares
from lungct_hf.fit.data import Slices
from lungct_hf.fit.frozen import FeatureSlices, FrontFeatures, Rest, front_modules
from lungct_hf.fit.inference import predict_rows
from lungct_hf.fit.learner import Learner
from lungct_hf.fit.recipe import Recipe
from lungct_hf.fit.schedule import Schedule
from lungct_hf.model import build_network
from lungct_hf.slices.preprocess import Preprocessing

RECIPE = Recipe(architecture="mobilenetv2_035", image_size=64, freeze_stages=5, variants=2, head_epochs=0, epochs=4)
FRONT = ("conv_stem.", "bn1.", *(f"blocks.{stage}." for stage in range(5)))


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Slices:
    cohort = load_cohort(str(write_cohort(tmp_path_factory.mktemp("c") / "data", patients=3)))
    return Slices(cohort, Preprocessing(size=64), Squares(cohort, Preprocessing(size=64)), front={})


def woken() -> torch.nn.Module:
    torch.manual_seed(0)
    return wake_up(build_network(RECIPE.architecture), 64)


def stored(network: torch.nn.Module, slices: Slices) -> FrontFeatures:
    return FrontFeatures(network, slices, RECIPE, seed=3)


def test_stored_features_and_the_rest_give_the_logits_of_the_whole(slices: Slices) -> None:
    network, accelerator = woken(), Accelerator(cpu=True)
    rows = np.array([25, 3, 20])
    whole = predict_rows(network, slices.squares, rows, slices.preprocessing, accelerator)
    assert stored(network, slices).predict(network, rows, accelerator) == pytest.approx(whole, abs=0.02)
    assert np.ptp(whole) > 0.2


def test_variants_differ_from_each_other_and_from_the_slice_and_are_drawn_by_epoch(slices: Slices) -> None:
    features = stored(woken(), slices)
    three = [features[4, variant] for variant in range(3)]
    assert all(not torch.equal(three[a], three[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    data = FeatureSlices(features, np.arange(27) % 3, 2, 3)
    drawn = [data[epoch, 4][0] for epoch in range(24)]
    assert [sum(torch.equal(one, each) for each in drawn) > 2 for one in three] == [True] * 3
    assert torch.equal(drawn[7], data[7, 4][0]) and data[0, 4][1] == 1


def test_training_leaves_the_front_and_its_statistics_alone(slices: Slices) -> None:
    network = woken()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    schedule = Schedule(steps=20, head_steps=0, lr=1e-2, head_lr=1e-2, warmup=0.1)
    learner = Learner(network, RECIPE, Accelerator(cpu=True), schedule=schedule, loss_weights=None, seed=1)
    features = stored(learner.network, slices)
    for _ in range(3):
        learner.start_step()
        learner.add_batch(torch.stack([features[row, 1] for row in range(4)]), torch.tensor([0, 1, 2, 0]))
        learner.end_step()
    for state in (learner.network.state_dict(), learner.averaged.state_dict()):
        for name, value in state.items():
            assert name.startswith(FRONT) == torch.equal(value, before[name]), name
    assert isinstance(Rest(network, 5), torch.nn.Module)


def test_more_stages_than_there_are_is_one_sentence() -> None:
    with pytest.raises(UsageError, match="has 7 stages"):
        front_modules(build_network(RECIPE.architecture), 8)


@pytest.mark.slow
def test_a_killed_fast_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    from test_cross_validation import start, wait_for

    data = write_cohort(tmp_path / "data", patients=5, slices=6)
    flags = ["--data", data, *TINY, "--freeze-stages", "5", "--variants", "1", "--head-epochs", "0"]
    flags += ["--epochs", "6", "--patience", "0", "--checkpoint-every", "1"]
    done = train(*flags, "--output-dir", tmp_path / "unbroken")
    assert done.returncode == 0, done.stderr
    process = start(*flags, "--output-dir", tmp_path / "broken")
    wait_for(tmp_path / "broken" / "checkpoints", process)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = train("--resume", tmp_path / "broken")
    assert done.returncode == 0, done.stderr
    one, other = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("unbroken", "broken"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    recipe = json.loads((tmp_path / "broken" / "model" / "lungct.json").read_text())["provenance"]["recipe"]
    assert recipe["freeze_stages"] == 5
