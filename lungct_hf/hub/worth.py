"""What stands beside every answer of a model: one line on what it is worth, and what must be known of its training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .results import BASELINES, interval, points
from .wording import percent

NOTHING_KNOWN = "What this model is worth: nothing is known, no evaluation came with it."
ON_PHANTOMS = "This model was trained on generated phantoms. It is useless on patients."
NOT_SAID = "This model does not say what it was trained on, so its probabilities mean nothing."
_LEARN_NOTHING = tuple(name for name in BASELINES if name != "model_ring")  # that one is the model itself


def worth(metrics: Mapping[str, Any] | None, provenance: Mapping[str, Any]) -> str:
    """One line from metrics.json: the score that is shown first with its interval, and whether it beats what learns
    nothing. Without an evaluation of these weights it says that nothing is known."""
    test = (metrics or {}).get("test") or {}
    if metrics is None or test.get("balanced_accuracy") is None or provenance.get("modified"):
        return NOTHING_KNOWN
    bounds = (test.get("intervals") or {}).get("balanced_accuracy") or {}
    value = {"value": test["balanced_accuracy"], "low": bounds.get("low"), "high": bounds.get("high")}
    where = f" of {test['groups']} {_groups(metrics)}" if test.get("groups") else ""
    score = f"balanced accuracy {interval(value, percent)} on {test.get('n')} slices{where}"
    return f"What this model is worth: {score}; {_beside(metrics)}."


def _groups(metrics: Mapping[str, Any]) -> str:
    """Whether the groups of the test slices were kept out of training."""
    split = metrics.get("split") or {}
    if metrics.get("protocol", split.get("protocol")) == "image":
        return "groups that training saw other slices of (split by image), so it says little about new people"
    if split.get("groups_crossing") and split.get("protocol") != "image":
        return f"groups, of which training saw {split['groups_crossing']}"
    return "unseen groups"


def _beside(metrics: Mapping[str, Any]) -> str:
    found = {}
    for name in _LEARN_NOTHING:
        minus = (((metrics.get("baselines") or {}).get(name) or {}).get("model_minus") or {}).get("balanced_accuracy")
        if minus and minus.get("value") is not None:
            found[name] = minus
    if not found:
        return "it was compared with nothing that learns nothing"
    name, minus = min(found.items(), key=lambda one: _low(one[1]))
    difference = f"{BASELINES[name]}: difference {points(minus)}"
    return f"{'it beats' if _low(minus) > 0 else 'not shown to beat'} what learns nothing ({difference})"


def _low(minus: Mapping[str, Any]) -> float:
    """The lower end of a difference, which without an interval is not above zero."""
    return float(minus["low"]) if minus.get("low") is not None else min(0.0, float(minus["value"]))


def training_note(provenance: Mapping[str, Any]) -> str | None:
    """What every answer must say of how the model was trained; None where there is nothing."""
    data = provenance.get("data")
    kind = data.get("kind") if isinstance(data, Mapping) else None
    return {None: NOT_SAID, "phantom": ON_PHANTOMS}.get(kind)
