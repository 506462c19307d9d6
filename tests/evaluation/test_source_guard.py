"""The source guard: its own pass, others do not, and no single person opens it for everybody."""

import json

import numpy as np
import pytest

from lungct_hf.errors import LungCTError, UsageError
from lungct_hf.evaluation.source_guard import KEPT, fit_guard, fit_sources
from lungct_hf.guard import SourceGuard, stage_statistics

WIDTH = 12


def slices(seed: int, count: int = 400, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(WIDTH, WIDTH)) * np.geomspace(0.01, 10, WIDTH)
    return (rng.normal(size=(count, WIDTH)) * scale) @ mixing + shift * np.abs(mixing).mean(axis=0) + 3


def guard(*sources: tuple[str, float]) -> SourceGuard:
    sources = sources or (("one", 0.0),)
    training = np.concatenate([slices(number, shift=shift) for number, (_, shift) in enumerate(sources)])
    names = np.repeat([name for name, _ in sources], 400)
    fitted = fit_sources(training, names)
    held_out = np.concatenate([slices(50 + number, shift=shift) for number, (_, shift) in enumerate(sources)])
    groups = [f"{number // 4}" for number in range(len(held_out))]
    preliminary = SourceGuard(3, fitted, 1.0, 0.0)
    return fit_guard(3, fitted, preliminary(held_out), groups)


def test_its_own_pass_and_others_do_not() -> None:
    made = guard()
    own, tone, scatter = made(slices(7)), made(slices(8, shift=4.0)), made(slices(9, scale=2.5))
    assert np.mean(own > made.max_distance) < 0.06 and np.mean(own) == pytest.approx(1, abs=0.15)
    assert np.mean(tone > made.max_distance) > 0.98 and np.mean(scatter > made.max_distance) > 0.9
    assert made.fitted_on == {"groups": 100, "slices": 400} and made.expected_loss == pytest.approx(1 - KEPT, abs=0.01)


def test_correlated_features_count_together() -> None:
    """A slice whose features are each usual but do not fit each other is far: a diagonal distance would miss it."""
    made = guard()
    mixed = slices(11).copy()
    for feature in range(WIDTH):
        mixed[:, feature] = np.random.default_rng(feature).permutation(mixed[:, feature])
    assert np.mean(made(mixed) > made.max_distance) > 0.7


def test_it_opens_for_every_source_in_training() -> None:
    both = guard(("one", 0.0), ("two", 6.0))
    assert [source.name for source in both.sources] == ["one", "two"]
    for shift, passes in ((0.0, True), (6.0, True), (3.0, False), (12.0, False)):
        far = np.mean(both(slices(20, shift=shift)) > both.max_distance)
        assert (far < 0.06) if passes else (far > 0.95), shift


def test_one_odd_person_does_not_set_the_threshold() -> None:
    sources = fit_sources(slices(0), ["one"] * 400)
    rng = np.random.default_rng(0)
    usual, odd = rng.uniform(0.8, 1.5, 300), rng.uniform(4, 5, 30)
    groups = [f"p{number // 10}" for number in range(300)] + ["odd"] * 30
    made = fit_guard(3, sources, np.concatenate([usual, odd]), groups)
    assert made.max_distance < 1.6 and made.expected_loss == pytest.approx(30 / 330, abs=0.01)


def test_order_and_storage_change_nothing() -> None:
    made = guard(("one", 0.0), ("two", 6.0))
    back = SourceGuard.from_json(json.loads(json.dumps(made.to_json())))
    assert np.array_equal(back(slices(3)), made(slices(3))) and back.to_json() == made.to_json()
    turned = fit_sources(slices(0)[::-1], ["one"] * 400)
    assert turned[0].whitening == pytest.approx(fit_sources(slices(0), ["one"] * 400)[0].whitening, rel=1e-4)
    assert np.isinf(made(np.full((1, WIDTH), np.nan)))[0]


@pytest.mark.parametrize(
    "change",
    [
        {"max_distance": "far"},
        {"max_distance": -1},
        {"sources": []},
        {"sources": [{"name": "one", "slices": 3}]},
    ],
)
def test_a_damaged_record_is_one_sentence(change: dict[str, object]) -> None:
    with pytest.raises(LungCTError, match="guard in lungct.json"):
        SourceGuard.from_json(guard().to_json() | change)


def test_what_cannot_be_fitted_is_said() -> None:
    with pytest.raises(UsageError, match="8 slices"):
        fit_sources(slices(0, 5), ["one"] * 5)
    with pytest.raises(UsageError, match="finite"):
        fit_sources(np.full((20, 3), np.nan), ["one"] * 20)
    with pytest.raises(UsageError, match="3 held-out groups"):
        fit_guard(3, fit_sources(slices(0), ["one"] * 400), np.ones(4), ["a", "a", "b", "b"])
    with pytest.raises(UsageError, match="needed"):
        guard()(np.zeros((2, WIDTH + 1)))


def test_stage_statistics_are_mean_and_scatter_over_places() -> None:
    maps = np.random.default_rng(0).normal(size=(2, 3, 5, 4))
    found = stage_statistics(maps)
    assert found.shape == (2, 6) and found[:, :3] == pytest.approx(maps.mean(axis=(2, 3)), abs=1e-6)
    assert found[:, 3:] == pytest.approx(maps.std(axis=(2, 3)), abs=1e-6)
