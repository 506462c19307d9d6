"""The gate: what is found in the run, and beside the last version, that speaks against publishing it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..classes import Classes
from ..errors import LungCTError, UsageError
from ..guard import SourceDistance
from ..hub.model_repo import WEIGHTS, ModelRepo
from .canaries import TOLERANCE, Canaries, read_canaries
from .compare import Comparison, compare, other_classes
from .evidence import Evidence, read_evidence
from .external import worse_elsewhere
from .prepare import Prepared
from .reasons import Reason
from .record import file_hashes
from .remote import Last, Remote
from .version import Version

_INITS = {
    "random": ("random-init", "training started from random weights, so nothing was learned from natural images"),
    "stand-in": ("stand-in-init", "training started from a file that is not one of the published ImageNet weights"),
}
_KNOWN_INIT = "imagenet1k-v2"
_FEW_DRAWS = 100  # for the last version's own report, of which only the samples are needed


def judge(prepared: Prepared, version: Version, remote: Remote, last: Last | None) -> tuple[list[Reason], list[str]]:
    """(reasons to refuse, notes on what was compared with what) for publishing `prepared` as `version`."""
    notes: list[str] = []
    reasons = [*_versions(version, remote), *prepared.reasons, *_init(prepared.evidence)]
    reasons += [*_shortcuts(prepared.evidence), *_guard(prepared.evidence)]
    if last is None:
        notes.append("There is no earlier version to compare with.")
        return reasons, notes
    if remote.unfinished is not None:
        notes.append(f"{last.tag} was published as {last.sha[:7]} and never came to its tag; it counts all the same.")
    try:
        former = read_evidence(last.repo, replicates=_FEW_DRAWS)
        if changed := list(_classes(prepared.evidence.classes, former.classes, last.tag, notes)):
            reasons += changed
        else:
            found = compare(prepared.evidence, former)
            notes.append(f"Compared with {last.tag}: {found.how}.")
            reasons += [
                *_regression(found, last.tag, notes),
                *_calibration(found, prepared.evidence, former, last.tag),
                *worse_elsewhere(ModelRepo(prepared.folder), last.repo, last.tag, notes),
            ]
    except (LungCTError, UsageError) as error:
        reasons.append(Reason("regression", f"it cannot be compared with {last.tag}: {error}"))
    reasons += _canary(prepared, last, notes)
    return reasons, notes


def _guard(evidence: Evidence) -> Iterator[Reason]:
    calibration = evidence.repo.contract.calibration
    rule = calibration.abstain if calibration else None
    if rule is None or not isinstance(rule.distance, SourceDistance):
        why = f" ({calibration.not_fitted})" if calibration and calibration.not_fitted else ""
        yield Reason("no-guard", f"lungct.json has no distance from the training sources to abstain by{why}")


def _versions(version: Version, remote: Remote) -> Iterator[Reason]:
    if version.tag in remote.tags:
        yield Reason(
            "tag-exists", f"{version.tag} is {remote.tags[version.tag][:7]} already, and holds something else"
        )
        return
    newest = max((found for found in remote.versions), default=None)
    begun = Version.of_tag(remote.unfinished[0]) if remote.unfinished else None
    if begun is not None and version < Version(begun.major, begun.minor, begun.patch):
        yield Reason(
            "version-not-greater", f"{version.number} is below {begun.tag}, which was published and never tagged"
        )
    elif newest is not None and (version.major, version.minor, version.patch) <= (
        newest.major,
        newest.minor,
        newest.patch,
    ):
        yield Reason("version-not-greater", f"{version.number} is not greater than {newest.tag}, which is there")


def _init(evidence: Evidence) -> Iterator[Reason]:
    kind = (evidence.repo.provenance.get("init") or {}).get("kind")
    if kind in _INITS:
        yield Reason(*_INITS[kind])
    elif kind != _KNOWN_INIT:
        yield Reason("unknown-init", f"lungct.json records the start weights as {kind!r}")


def _shortcuts(evidence: Evidence) -> Iterator[Reason]:
    """A model must beat a lookup on the outer ring, and know nothing when it is shown the ring alone."""
    baselines, chance = evidence.metrics["baselines"], 1 / len(evidence.classes)
    ring = baselines.get("ring_nearest_neighbour")
    if ring is None:
        yield Reason("shortcut-probe", "no answers of a nearest neighbour on the outer ring are stored beside its own")
    else:
        value = ring["model_minus"]["balanced_accuracy"]
        if value["value"] is None or value["value"] <= 0 or value["low"] is None or value["low"] <= 0:
            yield Reason(
                "shortcut-probe",
                "it is not shown to beat a nearest neighbour on the outer ring of the slice, where no lung is: the "
                f"difference in balanced accuracy is {_points(value)}",
            )
    alone = baselines.get("model_ring")
    if alone is not None:
        value = alone["intervals"]["balanced_accuracy"]
        low = _end(value, "low")
        if low is not None and low > chance:
            yield Reason(
                "shortcut-probe",
                f"shown nothing but the outer ring it still reaches {100 * value['value']:.1f} %"
                f"{_ends(value, lambda end: f'{100 * end:.1f}')} balanced accuracy, chance is {100 * chance:.1f} %",
            )


def _classes(new: Classes, old: Classes, tag: str, notes: list[str]) -> Iterator[Reason]:
    """Other classes make another model: nothing of the two can be compared, and who reads p_CLASS finds another."""
    if said := other_classes(new, old):
        sentence = f"{said}; the one is this model, the other {tag}. Whoever uses {tag} cannot simply take this one"
        yield Reason("classes-changed", sentence[:1].lower() + sentence[1:])
    elif new.positive != old.positive:
        before, now = (", ".join(found.positive) or "no class" for found in (old, new))
        notes.append(
            f"As disease {tag} counted {before}, this model counts {now}: operating points mean another thing."
        )


def _regression(found: Comparison, tag: str, notes: list[str]) -> Iterator[Reason]:
    value = found.figures["balanced_accuracy"]
    high = _end(value, "high")
    if high is None:
        notes.append("No interval can be given for the difference to it, so a regression cannot be shown.")
    elif high < 0:
        yield Reason("regression", f"balanced accuracy differs from {tag} by {_points(value)}, {found.how}")


def _calibration(found: Comparison, new: Evidence, old: Evidence, tag: str) -> Iterator[Reason]:
    before, now = old.calibration, new.calibration
    why = f": {now['not_fitted']}" if now.get("not_fitted") else ""
    if _fitted(before) and not _fitted(now):
        yield Reason("calibration-worse", f"{tag} was calibrated, this model is not{why}")
    elif before.get("abstain") and not now.get("abstain"):
        yield Reason("calibration-worse", f"{tag} had a rule for abstaining, this model has none{why}")
    value = found.figures.get("ece")
    if value and (_end(value, "low") or 0) > 0:
        yield Reason(
            "calibration-worse",
            f"the calibration error (ECE) is {value['a']:.3f}, that of {tag} was {value['b']:.3f}: a difference of "
            f"{value['value']:+.3f}{_ends(value, '{:+.3f}'.format)}",
        )


def _end(value: dict[str, Any], name: str) -> float | None:
    """An end of an interval, for what must not be let through; a figure that no draw moves stands for its own ends."""
    end: float | None = round(value["value"], 6) if value.get("constant") else value[name]
    return end


def _fitted(calibration: dict[str, Any]) -> bool:
    """Training writes the block in any case; where nothing could be fitted it only says why."""
    return bool(calibration) and (bool(calibration.get("fitted_on")) or not calibration.get("not_fitted"))


def _canary(prepared: Prepared, last: Last, notes: list[str]) -> Iterator[Reason]:
    try:
        former = read_canaries(last.repo.path)
    except LungCTError as error:
        notes.append(f"The canaries of {last.tag} cannot be compared: {error}")
        return
    if not _same_pictures(prepared.canaries, former):
        notes.append(f"The canaries of {last.tag} are other pictures, so the answers to them are not compared.")
        return
    if prepared.canaries.golden.shape != former.golden.shape:
        notes.append(f"The answers of {last.tag} to its canaries have other classes, so they are not compared.")
        return
    same_weights = ((last.repo.release or {}).get("files") or {}).get(WEIGHTS) == prepared.weights
    moved = np.abs(prepared.canaries.golden - former.golden).max(axis=1)
    changed = [name for name, far in zip(prepared.canaries.files, moved, strict=True) if not far <= TOLERANCE]
    if same_weights and changed:
        yield Reason(
            "canary-changed",
            f"the weights are those of {last.tag}, and yet {len(changed)} of {len(moved)} canaries get other logits, "
            f"up to {moved.max():.2g} away: the preprocessing or a library changed the answers",
        )


def _same_pictures(one: Canaries, other: Canaries) -> bool:
    return len(one.images) == len(other.images) and all(
        np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(one.images, other.images, strict=True)
    )


def _points(value: dict[str, Any]) -> str:
    if value["value"] is None:
        return "undefined"
    return f"{100 * value['value']:+.1f} points{_ends(value, lambda end: f'{100 * end:+.1f}')}"


def _ends(value: dict[str, Any], show: Callable[[float], str]) -> str:
    return "" if value["low"] is None else f" [{show(value['low'])}, {show(value['high'])}]"


def changed_files(folder: Path, last: Last | None) -> list[tuple[str, str]]:
    """(what happens to it, path) of every listed file that differs from the last version."""
    here, there = file_hashes(ModelRepo(folder)), ((last.repo.release or {}).get("files") or {}) if last else {}
    found = [("new" if name not in there else "changed", name) for name in here if here[name] != there.get(name)]
    return found + [("removed", name) for name in there if name not in here]
