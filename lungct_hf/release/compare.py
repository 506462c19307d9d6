"""Two models beside each other: the differences of their figures, with intervals, paired where tested alike."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..classes import Classes
from ..errors import UsageError
from ..evaluation.bootstrap import REPLICATES, difference, paired_difference
from ..evaluation.sample import Sample
from .evidence import Evidence

SHOWN = {
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "macro_auroc": "macro AUROC",
    "auroc": "AUROC",
    "ece": "calibration error (ECE)",
    "log_loss": "log loss",
}


@dataclass(frozen=True, eq=False)
class Comparison:
    """`figures` {name: {value, low, high, a, b}} of A minus B; `how` says what was compared with what."""

    figures: Mapping[str, Any]
    paired: bool
    how: str

    def to_json(self) -> dict[str, Any]:
        return {"paired": self.paired, "compared": self.how, "difference": dict(self.figures)}


def compare(a: Evidence, b: Evidence, *, replicates: int = REPLICATES) -> Comparison:
    """The test figures of `a` minus those of `b`, whole groups resampled.

    Paired on the same slices; where only some groups were tested by both, paired on these; where too few were,
    each side is drawn by itself, which gives wider intervals. Raises UsageError where the classes differ, or no
    protocol is common.
    """
    if said := other_classes(a.classes, b.classes):
        raise UsageError(f"{said}: their figures are about different questions. Fix: compare models of one task.")
    protocol = _protocol(a, b)
    one, two = (side.report.parts[protocol].test for side in (a, b))
    shared = _keys(one) & _keys(two)
    if shared == _keys(one) == _keys(two):
        how = f"paired on the same {len(shared)} slices of {len(one.group_names)} groups ({protocol})"
        return _made(paired_difference(one, two, replicates=replicates), how)
    inner = [side.take(np.array([key in shared for key in _listed(side)], bool)) for side in (one, two)]
    if shared and _enough(inner[0], one, two):
        how = f"paired on the {len(inner[0].group_names)} groups that both tested ({protocol}; the test slices differ)"
        return _made(paired_difference(*inner, replicates=replicates), how)
    how = f"not paired, because the test slices differ ({protocol}): the intervals are wider for it"
    return _made(difference(one, two, replicates=replicates), how)


def other_classes(a: Classes, b: Classes) -> str:
    """How the classes of `a` and `b`, or their order in the logits, differ; "" where they do not."""
    if a.names == b.names:
        return ""
    if sorted(a.names) == sorted(b.names):
        return f"One has its classes in the order {', '.join(a)}, the other {', '.join(b)}"
    only = [[name for name in one if name not in other] for one, other in ((a, b), (b, a))]
    said = [
        f"only {who} has {', '.join(names)}" for who, names in zip(("one", "the other"), only, strict=True) if names
    ]
    return f"They do not tell the same classes apart ({'; '.join(said)})"


def _made(found: dict[str, Any], how: str) -> Comparison:
    return Comparison({name: value for name, value in found.items() if name != "paired"}, bool(found["paired"]), how)


def _protocol(a: Evidence, b: Evidence) -> str:
    if a.report.headline in b.report.parts:
        return a.report.headline
    if b.report.headline in a.report.parts:
        return b.report.headline
    raise UsageError(
        f"One was evaluated under {', '.join(a.report.parts)}, the other under {', '.join(b.report.parts)}: their "
        "figures mean different things. Fix: evaluate both under one split."
    )


def _listed(sample: Sample) -> list[tuple[str, int, str]]:
    return list(zip(sample.keys.tolist(), sample.labels.tolist(), sample.groups.tolist(), strict=True))


def _keys(sample: Sample) -> set[tuple[str, int, str]]:
    return set(_listed(sample))


def _enough(common: Sample, one: Sample, two: Sample) -> bool:
    """At least half of the smaller side's groups, and two of every class that both tested."""
    classes = set(one.labels.tolist()) & set(two.labels.tolist())
    per_class = (common.group_counts > 0).sum(axis=0)
    half = 2 * len(common.group_names) >= min(len(one.group_names), len(two.group_names))
    return bool(half and all(per_class[c] >= 2 for c in classes))


def rows(found: Comparison) -> list[tuple[str, str, str, str]]:
    """(figure, A, B, A minus B) as text; shares in per cent, differences in points."""
    made = [_row(text, found.figures[name]) for name, text in SHOWN.items() if name in found.figures]
    for label, figures in found.figures["per_class"].items():
        value = figures.get("sensitivity")
        made += [_row(f"sensitivity, {label}", value)] if value else []
    return made


def _row(text: str, value: Mapping[str, Any]) -> tuple[str, str, str, str]:
    plain = text in (SHOWN["ece"], SHOWN["log_loss"])
    scale, digits = (1, 3) if plain else (100, 1)

    def number(name: str, sign: str = "") -> str:
        return "–" if value[name] is None else f"{scale * value[name]:{sign}.{digits}f}"

    ends = f" [{number('low', '+')}, {number('high', '+')}]" if value["low"] is not None else ""
    return text + ("" if plain else ", %"), number("a"), number("b"), number("value", "+") + ends


def plot(found: Comparison, names: tuple[str, str]) -> bytes:
    """The differences with their intervals as a PNG."""
    from ..evaluation.plots import new_figure

    shown = [(SHOWN[name], found.figures[name]) for name in SHOWN if name in found.figures]
    figure = new_figure(figsize=(6.8, 1.5 + 0.45 * len(shown)))
    axes = figure.add_subplot()
    for place, (_, value) in enumerate(shown):
        if value["value"] is None:
            continue
        if value["low"] is not None:
            axes.plot([value["low"], value["high"]], [place, place], color="#595959", lw=1.6)
        axes.plot(value["value"], place, "o", color="#0072B2", ms=6.5)
    axes.axvline(0, color="#595959", ls=":", lw=1.2)
    axes.set_yticks(range(len(shown)), [text for text, _ in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlabel(f"{names[0]} minus {names[1]}, 95 % interval")
    axes.set_title(found.how, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png", metadata={"Software": None})
    return buffer.getvalue()


def write_plot(found: Comparison, names: tuple[str, str], path: Path) -> Path:
    from ..files import write_atomic

    write_atomic(path, plot(found, names))
    return path
