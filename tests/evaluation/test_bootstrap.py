"""The intervals: reproducible, wider where slices hang together, and honest where they cannot be known."""

import numpy as np
import pytest
from simulated import THREE, clustered, sample

from lungct_hf.errors import UsageError
from lungct_hf.evaluation import Sample, intervals, paired_difference
from lungct_hf.evaluation.bootstrap import cautions, difference, draw_groups, share
from lungct_hf.evaluation.figures import figures

QUICK = {"replicates": 400}


def width(interval: dict) -> float:
    return interval["high"] - interval["low"]


def test_same_seed_same_interval_whatever_the_order_of_the_rows() -> None:
    one = sample(np.random.default_rng(0))
    shuffled = one.take(np.random.default_rng(1).permutation(len(one)))
    first, second = intervals(one, **QUICK), intervals(shuffled, **QUICK)
    for name in ("balanced_accuracy", "macro_auroc", "ece"):
        assert [first[name][k] for k in ("low", "high")] == pytest.approx([second[name][k] for k in ("low", "high")])
    assert first["accuracy"] != intervals(one, seed=1, **QUICK)["accuracy"]


def test_every_figure_has_an_interval_around_it() -> None:
    one = sample(np.random.default_rng(0))
    values, found = figures(one), intervals(one, **QUICK)
    for name, interval in found.items():
        if name != "per_class":
            assert interval["value"] == values[name] and interval["low"] <= values[name] <= interval["high"], name
    for label, block in found["per_class"].items():
        for name, interval in block.items():
            assert interval["low"] <= values["per_class"][label][name] <= interval["high"]


def test_draws_keep_the_classes_and_their_numbers() -> None:
    strata = np.array([0, 0, 0, 1, 1, 2])
    drawn = draw_groups(strata, 50, seed=0)
    for stratum, groups in ((0, 3), (1, 2), (2, 1)):
        assert (drawn[:, strata == stratum].sum(axis=1) == groups).all()


def test_slices_of_one_person_are_not_counted_as_independent() -> None:
    labels, logits, groups = clustered(np.random.default_rng(0), shared=3.0)
    by_group = intervals(Sample.of(labels, logits, groups, classes=THREE), **QUICK)["balanced_accuracy"]
    by_slice = intervals(Sample.of(labels, logits, classes=THREE), **QUICK)["balanced_accuracy"]
    assert width(by_group) > 1.5 * width(by_slice)


def test_intervals_cover_what_they_promise() -> None:
    """Of 100 studies with 45 groups about 95 intervals should hold the true figure; by slices far fewer do."""
    rng = np.random.default_rng(0)
    true = figures(sample(rng, groups=6000, shared=3.0))["accuracy"]
    held = {"groups": 0, "slices": 0}
    for _ in range(100):
        labels, logits, groups = clustered(rng, groups=45, shared=3.0)
        named = logits.argmax(axis=1)
        for unit, names in (("groups", groups), ("slices", None)):
            found = intervals(Sample.of(labels, named=named, groups=names, classes=THREE), replicates=200)["accuracy"]
            held[unit] += found["low"] <= true <= found["high"]
    assert held["groups"] >= 87 and held["slices"] < 80


def test_a_perfect_score_has_an_interval_too() -> None:
    labels = np.repeat([0, 1, 2], 30)
    perfect = Sample.of(labels, named=labels, groups=np.repeat(np.arange(30), 3).astype(str), classes=THREE)
    found = intervals(perfect, **QUICK)
    assert found["accuracy"] == {
        "value": 1.0,
        "low": pytest.approx(0.025 ** (1 / 30), abs=1e-6),
        "high": 1.0,
        "exact": True,
    }
    assert found["per_class"]["benign"]["sensitivity"]["low"] == pytest.approx(0.025 ** (1 / 10), abs=1e-6)


def test_a_class_with_one_group_has_no_interval_and_few_groups_are_said() -> None:
    labels, logits, groups = clustered(np.random.default_rng(0), groups=7)
    one = Sample.of(labels, logits, groups, classes=THREE).take(labels != 2)
    lonely = Sample.of(labels, logits, np.where(labels == 2, "g2", groups), classes=THREE)
    found = intervals(lonely, **QUICK)["balanced_accuracy"]
    assert found["low"] is None and found["value"] is not None
    assert any("malignant has a single group" in line for line in cautions(lonely))
    assert any("benign has only 2 groups" in line for line in cautions(one))


def test_a_figure_that_is_mostly_undefined_has_no_interval() -> None:
    labels = np.repeat([0, 1, 2], 20)
    named = np.zeros(60, int)
    named[20] = 1  # benign is named once, so many replicates never name it
    found = intervals(
        Sample.of(labels, named=named, groups=np.repeat(np.arange(30), 2).astype(str), classes=THREE), **QUICK
    )
    rare = found["per_class"]["benign"]["ppv"]
    assert rare["value"] == 1.0 and (rare.get("exact") or rare["low"] is None)
    never = found["per_class"]["malignant"]["ppv"]
    assert never["value"] is None and never["low"] is None and never["undefined"] == 1.0


def test_what_no_draw_moves_has_no_interval_and_says_so() -> None:
    labels = np.repeat([0, 1, 2], 4)
    groups = np.repeat([f"g{number}" for number in range(6)], 2)
    always = Sample.of(labels, 5.0 * np.eye(3)[np.where(labels == 2, 0, labels)], groups, classes=THREE)
    constant = Sample.of(labels, np.tile([1.0, 0.0, 0.0], (12, 1)), groups, classes=THREE)
    kappa = intervals(always, **QUICK)["kappa"]
    gain = paired_difference(always, constant, **QUICK)["balanced_accuracy"]
    for found in (kappa, gain):
        assert found["value"] > 0.3 and found["low"] is found["high"] is None and found["constant"] is True


def test_a_paired_difference_is_sharper_and_needs_the_same_slices() -> None:
    rng = np.random.default_rng(0)
    labels, logits, groups = clustered(rng, shared=3.0)
    a = Sample.of(labels, logits + 0.3 * np.eye(3)[labels], groups, classes=THREE)
    b = Sample.of(labels, logits + 0.3 * rng.normal(size=logits.shape), groups, classes=THREE)
    paired = paired_difference(a, b, **QUICK)
    renamed = Sample.of(labels, np.log(b.probabilities), np.char.add("x", groups), classes=THREE)
    unpaired = difference(a, renamed, **QUICK)
    assert paired["paired"] and not unpaired["paired"]
    assert paired["balanced_accuracy"]["value"] == pytest.approx(unpaired["balanced_accuracy"]["value"])
    assert width(paired["balanced_accuracy"]) < 0.7 * width(unpaired["balanced_accuracy"])
    assert paired["balanced_accuracy"]["low"] > 0  # a is better, and pairing shows it
    same = paired_difference(a, a.take(np.arange(len(a))[::-1]), **QUICK)["balanced_accuracy"]
    assert (same["low"], same["high"]) == (0, 0)
    with pytest.raises(UsageError, match="not about the same slices"):
        paired_difference(a, b.take(np.arange(len(b) - 1)))


def test_a_share_of_shares() -> None:
    one = sample(np.random.default_rng(0))
    answered = np.arange(len(one)) % 2 == 0
    found = share(one, one.named != one.labels, answered, **QUICK)
    assert found["value"] == pytest.approx(np.mean((one.named != one.labels)[answered]))
    assert found["low"] < found["value"] < found["high"]
    assert share(one, answered, np.zeros(len(one), bool), **QUICK)["value"] is None
