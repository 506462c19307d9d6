"""The source guard: its own pass, others do not, and no single person opens it for everybody."""

import json
from typing import NamedTuple

import numpy as np
import pytest

from lungct_hf.decision import AbstainRule, Calibration
from lungct_hf.errors import LungCTError, UsageError
from lungct_hf.evaluation.source_guard import KEPT, fit_limit, fit_sources
from lungct_hf.guard import SourceDistance

WIDTH = 12


def slices(seed: int, count: int = 400, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(WIDTH, WIDTH)) * np.geomspace(0.01, 10, WIDTH)
    return (rng.normal(size=(count, WIDTH)) * scale) @ mixing + shift * np.abs(mixing).mean(axis=0) + 3


class Guard(NamedTuple):
    """A fitted distance and how far held-out slices of its sources go."""

    distance: SourceDistance
    limit: float

    def far(self, features: np.ndarray) -> float:
        """The share of slices that it would not answer."""
        return float(np.mean(self.distance(features) > self.limit))


def guard(*sources: tuple[str, float]) -> Guard:
    sources = sources or (("one", 0.0),)
    training = np.concatenate([slices(number, shift=shift) for number, (_, shift) in enumerate(sources)])
    names = np.repeat([name for name, _ in sources], 400)
    fitted = fit_sources(training, names)
    held_out = np.concatenate([slices(50 + number, shift=shift) for number, (_, shift) in enumerate(sources)])
    groups = [f"{number // 4}" for number in range(len(held_out))]
    return Guard(fitted, fit_limit(fitted(held_out), np.array(groups)))


def test_its_own_pass_and_others_do_not() -> None:
    made = guard()
    assert made.far(slices(7)) < 0.06 and np.mean(made.distance(slices(7))) == pytest.approx(1, abs=0.15)
    assert made.far(slices(8, shift=4.0)) > 0.98 and made.far(slices(9, scale=2.5)) > 0.9


def test_correlated_features_count_together() -> None:
    """A slice whose features are each usual but do not fit each other is far: a diagonal distance would miss it."""
    mixed = slices(11).copy()
    for feature in range(WIDTH):
        mixed[:, feature] = np.random.default_rng(feature).permutation(mixed[:, feature])
    assert guard().far(mixed) > 0.7


def test_it_opens_for_every_source_in_training() -> None:
    both = guard(("one", 0.0), ("two", 6.0))
    assert [source.name for source in both.distance.sources] == ["one", "two"]
    for shift in (0.0, 6.0):
        assert both.far(slices(20, shift=shift)) < 0.06
    for shift in (3.0, 12.0):
        assert both.far(slices(20, shift=shift)) > 0.95


def test_one_odd_person_does_not_set_the_threshold() -> None:
    rng = np.random.default_rng(0)
    usual, odd = rng.uniform(0.8, 1.5, 300), rng.uniform(4, 5, 30)
    groups = np.array([f"p{number // 10}" for number in range(300)] + ["odd"] * 30)
    assert fit_limit(np.concatenate([usual, odd]), groups) < 1.6 < np.quantile(np.concatenate([usual, odd]), KEPT)


def test_order_and_storage_change_nothing() -> None:
    made = guard(("one", 0.0), ("two", 6.0))
    rule = AbstainRule(0.5, max_distance=made.limit, distance=made.distance)
    record = json.loads(json.dumps(Calibration(abstain=rule).to_json()))
    back = Calibration.from_json(record).abstain
    assert back is not None and isinstance(back.distance, SourceDistance)
    assert np.array_equal(back.distance(slices(3)), made.distance(slices(3)))
    assert back.to_json() == rule.to_json() and len(json.dumps(record)) < 2**20
    turned, straight = (fit_sources(rows, ["one"] * 400).sources[0] for rows in (slices(0)[::-1], slices(0)))
    assert turned.whitening == pytest.approx(straight.whitening, rel=1e-4)
    assert np.isinf(made.distance(np.full((1, WIDTH), np.nan)))[0]


@pytest.mark.parametrize("change", [{"stage": "three"}, {"sources": []}, {"sources": [{"name": "one", "slices": 3}]}])
def test_a_damaged_record_is_one_sentence(change: dict[str, object]) -> None:
    made = guard()
    record = Calibration(abstain=AbstainRule(0.5, made.limit, distance=made.distance)).to_json()
    record["abstain"]["distance"] |= change
    with pytest.raises(LungCTError, match="calibration in lungct.json"):
        Calibration.from_json(record)


def test_what_cannot_be_fitted_is_said() -> None:
    with pytest.raises(UsageError, match="8 slices"):
        fit_sources(slices(0, 5), ["one"] * 5)
    with pytest.raises(UsageError, match="finite"):
        fit_sources(np.full((20, 3), np.nan), ["one"] * 20)
    with pytest.raises(UsageError, match="look the same"):
        fit_sources(np.ones((20, 3)), ["one"] * 20)
    with pytest.raises(UsageError, match="3 held-out groups"):
        fit_limit(np.ones(4), np.array(["a", "a", "b", "b"]))
    with pytest.raises(UsageError, match="needed"):
        guard().distance(np.zeros((2, WIDTH + 1)))
