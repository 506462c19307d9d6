"""The fast mode: the front is untouched, its stored output gives what the whole network gives, runs resume."""

import json
import signal
import time
from dataclasses import replace
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
from lungct_hf.fit.frozen import FeatureSlices, FrontFeatures, Rest, adapt_norm, check_stages
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
    return wake_up(build_network(RECIPE.architecture, 3), 64)


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
    data = FeatureSlices(features, np.arange(27) % 3, np.ones(27, bool), 3)
    drawn = [data[epoch, 4][0] for epoch in range(24)]
    assert [sum(torch.equal(one, each) for each in drawn) > 2 for one in three] == [True] * 3
    assert torch.equal(drawn[7], data[7, 4][0]) and data[0, 4][1] == 1


def test_a_fold_uses_no_variant_with_the_histogram_of_a_slice_outside_it(slices: Slices) -> None:
    recipe = replace(RECIPE, variants=3, other_histogram=1.0)
    features, known = FrontFeatures(woken(), slices, recipe, seed=3), np.arange(27) < 14
    plain = FrontFeatures(woken(), slices, replace(RECIPE, variants=3), seed=3)
    lent = 0
    for row in range(14):
        usable = features.usable(row, known)
        assert usable[0] == 0 and features.usable(row, np.ones(27, bool)) == [0, 1, 2, 3]
        assert usable == [0, *(v for v in (1, 2, 3) if known[features._lender(row, v)])]
        data = FeatureSlices(features, np.arange(27) % 3, known, 3)
        drawn = [data[epoch, row][0] for epoch in range(12)]
        assert all(any(torch.equal(one, features[row, v]) for v in usable) for one in drawn)
        lent += len(usable) - 1
        assert torch.equal(features[row, 0], plain[row, 0])
    assert 0 < lent < 42 and not torch.equal(features[3, 1], plain[3, 1])
    assert plain.usable(3, known) == [0, 1, 2, 3]


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


def test_kept_statistics_stay_while_the_weights_learn(slices: Slices) -> None:
    network = woken()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    schedule = Schedule(steps=20, head_steps=0, lr=1e-2, head_lr=1e-2, warmup=0.1)
    recipe = replace(RECIPE, freeze_stages=0, freeze_norm=True)
    learner = Learner(network, recipe, Accelerator(cpu=True), schedule=schedule, loss_weights=None, seed=1)
    for _ in range(2):
        learner.start_step()
        learner.add_batch(torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 0]))
        learner.end_step()
    after = learner.network.state_dict()
    for name in before:
        if "running_" in name or "num_batches" in name:
            assert torch.equal(after[name], before[name]), name
    assert not torch.equal(after["conv_stem.weight"], before["conv_stem.weight"])


def test_adapted_statistics_are_those_of_the_slices_and_of_no_other(slices: Slices) -> None:
    rows = np.arange(12)
    one, other = woken(), woken()
    weights = {name: value.clone() for name, value in one.named_parameters()}
    adapt_norm(one, slices, rows, seed=1)
    adapt_norm(other, slices, rows[::-1].copy(), seed=1)
    assert all(torch.equal(value, weights[name]) for name, value in one.named_parameters())
    inputs = torch.from_numpy(slices.preprocessing.normalise(np.stack([slices.squares[row] for row in rows])))
    stem = one.conv_stem(inputs)
    assert torch.allclose(one.bn1.running_mean, stem.mean((0, 2, 3)), atol=1e-4)
    # A permutation of the same few slices is the same single batch.
    assert torch.allclose(one.bn1.running_mean, other.bn1.running_mean, atol=1e-5)
    assert not one.training and one.bn1.momentum == woken().bn1.momentum
    adapt_norm(other, slices, np.arange(12, 24), seed=1)
    assert not torch.allclose(one.bn1.running_mean, other.bn1.running_mean, atol=1e-4)


def test_folds_share_the_features_until_front_or_seed_change(slices: Slices) -> None:
    first = stored(woken(), slices)
    assert first.made_for == FrontFeatures.key(woken(), RECIPE, 3) != FrontFeatures.key(woken(), RECIPE, 4)
    changed = woken()
    with torch.no_grad():
        changed.conv_stem.weight[0] += 1
    assert FrontFeatures.key(changed, RECIPE, 3) != first.made_for
    with torch.no_grad():
        changed = woken()
        changed.classifier.weight += 1
    assert FrontFeatures.key(changed, RECIPE, 3) == first.made_for


def test_features_that_would_not_fit_are_refused_in_a_sentence(
    slices: Slices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lungct_hf.fit.frozen._MOST_BYTES", 1000)
    with pytest.raises(UsageError, match="fewer --variants"):
        stored(woken(), slices)


def test_more_stages_than_there_are_is_one_sentence() -> None:
    check_stages(replace(RECIPE, freeze_stages=7))
    with pytest.raises(UsageError, match="has 7 stages"):
        check_stages(replace(RECIPE, freeze_stages=8))


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
