"""External tests at a release: whether what is stored holds, and whether the model has become worse elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import LungCTError
from ..evaluation.bootstrap import REPLICATES
from ..evaluation.external import figures_of, problems, read_table, sets_of
from ..hub.model_repo import ModelRepo
from .reasons import Reason

if TYPE_CHECKING:
    import pyarrow as pa

_SHARES = ("refused", "abstained", "answered")
_KEPT = 0.5  # of the last version's slices of a set, below which it is another set


def external_reasons(repo: ModelRepo) -> list[Reason]:
    """Where the stored external tests are of other weights, or say what their predictions do not give."""
    return [Reason(f"external-{kind}", sentence) for kind, sentence in problems(repo)]


@dataclass(frozen=True, eq=False)
class SideBySide:
    """What two models make of the slices of one outside set that both were shown; labels are those of B."""

    name: str
    slices: int
    of: tuple[int, int]  # how many slices A and B have of the set
    a: dict[str, Any]
    b: dict[str, Any]


def side_by_side(a: ModelRepo, b: ModelRepo, *, replicates: int = REPLICATES) -> list[SideBySide]:
    """The outside sets that both were tested on, restricted to the slices of the same sha256.

    Raises LungCTError where stored predictions cannot be read, or the models have other classes.
    """
    first, second = sets_of(a), sets_of(b)
    found = []
    for name in first:
        if name in second:
            one, two = read_table(a, name), read_table(b, name)
            mine, theirs = _shared(one, two)
            if len(mine):
                made = [figures_of(table, replicates=replicates) for table in (mine, theirs)]
                found.append(SideBySide(name, len(mine), (len(one), len(two)), *made))
    return found


def _shared(a: pa.Table, b: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The rows of both with the same sha256 in the order of `b`, with the labels and groups of `b`."""
    place = {sha: row for row, sha in enumerate(a["sha256"].to_pylist())}
    digests = b["sha256"].to_pylist()
    mine = [place[sha] for sha in digests if sha in place]
    theirs = b.filter(np.array([sha in place for sha in digests], bool))
    taken = a.take(mine)
    for column in ("label", "group"):
        taken = taken.set_column(taken.column_names.index(column), column, theirs[column])
    return taken, theirs


def worse_elsewhere(new: ModelRepo, last: ModelRepo, tag: str, notes: list[str]) -> Iterator[Reason]:
    """Outside sets of the last version that are not tested any more, and false alarms beyond its interval there."""
    try:
        before, now = sets_of(last), sets_of(new)
        pairs = {pair.name: pair for pair in side_by_side(new, last)}
    except LungCTError as error:
        yield Reason("external-missing", f"what {tag} did elsewhere cannot be compared: {error}")
        return
    for name in before:
        pair = pairs.get(name)
        if pair is None or pair.slices < _KEPT * pair.of[1]:
            shared = f"only {pair.slices} of its {pair.of[1]} slices are" if pair else "none of its slices is"
            gone = (
                f"{shared} among the {now[name]['figures']['slices']} of this model's" if name in now else "it is gone"
            )
            yield Reason(
                "external-missing",
                f"{tag} was tested on {name}, and {gone}: test this model on it with `lungct evaluate --external "
                f"{name}=DATA`",
            )
            continue
        was, here = pair.b["all"]["false_alarms"], pair.a["all"]["false_alarms"]
        if was is None or here is None:
            notes.append(f"{name} has no slices without disease that both were shown, so no false alarms to compare.")
            continue
        notes.append(f"Compared with {tag} on {pair.slices} slices of {name}: false alarms {_both(here, was)}.")
        high = was["value"] if was.get("constant") else was["high"]
        if high is None:
            notes.append(f"{name} has a single group, so no interval says whether its false alarms became more.")
        elif here["value"] > high:
            yield Reason(
                "external-false-alarms",
                f"on {name}, {_both(here, was)} of the slices without disease are given a class of disease",
            )


def _both(here: dict[str, Any], was: dict[str, Any]) -> str:
    ends = "" if was["low"] is None else f" [{100 * was['low']:.1f}, {100 * was['high']:.1f}]"
    return f"{100 * here['value']:.1f} %, before {100 * was['value']:.1f} %{ends}"


def rows(pair: SideBySide) -> list[tuple[str, ...]]:
    """(what, A, B) as text, shares in per cent."""
    from ..evaluation.tables import percent

    made: list[tuple[str, ...]] = [
        (f"{pair.name}, {name}", *(percent(one[name]["share"]) for one in (pair.a, pair.b))) for name in _SHARES
    ]
    for way, of in {"all": "of all slices", "answers": "of the answers", "forced": "forced"}.items():
        for figure in ("false_alarms", "sensitivity", "balanced_accuracy"):
            values = [one[way].get(figure) for one in (pair.a, pair.b)]
            if any(value is not None for value in values):
                text = f"{pair.name}, {figure.replace('_', ' ')} {of}"
                made.append((text, *(percent(value) for value in values)))
    return made
