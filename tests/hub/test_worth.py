"""The line beside every answer: the score that is shown first, and never more than the stored figures say."""

from __future__ import annotations

from typing import Any

import pytest

from lungct_hf.hub.worth import NOT_SAID, NOTHING_KNOWN, ON_PHANTOMS, training_note, worth


def metrics(low: float | None = 0.02, **more: Any) -> dict[str, Any]:
    """Of a grouped split, beside two baselines, the second of which is the harder one to beat."""
    easy = {"value": 0.2, "low": 0.1, "high": 0.3}
    hard = {"value": 0.05, "low": low, "high": 0.12}
    return {
        "protocol": "linked",
        "split": {"protocol": "grouped", "groups_crossing": 0},
        "test": {
            "n": 175,
            "groups": 20,
            "balanced_accuracy": 0.637,
            "intervals": {"balanced_accuracy": {"value": 0.637, "low": 0.492, "high": 0.886}},
        },
        "baselines": {
            "nearest_neighbour": {"model_minus": {"balanced_accuracy": easy}},
            "histogram_nearest_neighbour": {"model_minus": {"balanced_accuracy": hard}},
            "model_ring": {"model_minus": {"balanced_accuracy": {"value": -0.5, "low": -0.6, "high": -0.4}}},
        },
        **more,
    }


def test_the_score_with_its_interval_and_the_hardest_baseline() -> None:
    said = worth(metrics(), {})
    assert "63.7 % [49.2, 88.6] on 175 slices of 20 unseen groups" in said and "\n" not in said
    assert "it beats what learns nothing" in said and "grey histogram only: difference 5.0 points [2.0, 12.0]" in said
    for low in (-0.03, 0.0, None):
        assert "not shown to beat what learns nothing" in worth(metrics(low), {})
    assert "compared with nothing that learns nothing" in worth(metrics(baselines={}), {})


def test_what_training_saw_is_not_called_unseen() -> None:
    image = metrics(protocol="image", split={"protocol": "image", "groups_crossing": 19})
    assert "split by image" in worth(image, {}) and "unseen" not in worth(image, {})
    crossing = metrics(split={"protocol": "given", "groups_crossing": 3})
    assert "training saw 3" in worth(crossing, {}) and "unseen" not in worth(crossing, {})
    pooled = metrics(split={"protocol": "image", "groups_crossing": 19})  # several protocols, the grouped one first
    assert "20 unseen groups" in worth(pooled, {})


@pytest.mark.parametrize("found", [None, {}, {"test": {}}, {"test": {"balanced_accuracy": None}}])
def test_without_figures_of_these_weights_nothing_is_known(found: dict[str, Any] | None) -> None:
    assert worth(found, {}) == NOTHING_KNOWN == worth(metrics(), {"modified": True})


def test_what_must_be_known_of_the_training() -> None:
    assert training_note({"data": {"kind": "phantom"}}) == ON_PHANTOMS and "useless on patients" in ON_PHANTOMS
    assert training_note({"data": {"kind": "folder"}}) is None
    assert training_note({}) == training_note({"data": "a path"}) == NOT_SAID
