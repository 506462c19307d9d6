"""What a runtime answers for one slice and for one study: one contract for Python, `lungct predict` and the Space."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..decision import SENTENCES, WHAT_TO_DO, Decision
from ..guard import UNLIKE_SOURCE
from ..slices.frame import Unreadable
from ..slices.listing import printable
from ..slices.report import InputReport

NOTICE = "Research only. Not a medical device. Never use it for a diagnosis."  # beside every answer that leaves
ABSTAIN, REFUSED, ERROR = "abstain", "refused", "error"


def columns(classes: Iterable[str]) -> tuple[str, ...]:
    """The columns of a table of answers by a model with these classes; `p_CLASS` is a class's probability."""
    chances = (f"p_{name}" for name in classes)
    return ("file", "frame", "decision", "reason", *chances, "revision", "forced", *_PLACE)


# Appended later: older readers know the columns before them.
_PLACE = ("series", "position", "warnings", "detail", "note")


class Described(Protocol):
    """All of a slice but its pixels; a `slices.source.Frame` is one."""

    @property
    def file(self) -> str: ...
    @property
    def frame(self) -> int: ...
    @property
    def report(self) -> InputReport: ...
    @property
    def series(self) -> str | None: ...
    @property
    def position(self) -> float | None: ...
    @property
    def instance(self) -> str | None: ...
    @property
    def description(self) -> str | None: ...


@dataclass(frozen=True, eq=False)
class Prediction:
    """One slice.

    `decision` is a class, "abstain" (the model does not know), "refused" (the input is not what the model is for) or
    "error" (there is no slice). `reason` is the code for all but a class: of decision.py, of slices/report.py. With
    `force` a slice that would be refused, or that is from outside the training source, is answered, `forced` is true
    and `reason` keeps the code.

    `probabilities` (calibrated, by class), `confidence` (the largest) and `distance` (from the training data; None for
    a model that stores no distance) are None for "refused" and "error". `cam` is float32 (h, w) over the input square,
    0..1, where it was asked for: what spoke for the most probable class and against the others. `model` is a name
    to show, `revision` the 40-hex commit or None for a directory; `classes` are the model's; `note` what must be known
    of its training beside any answer (hub/worth.py), None where there is nothing.

    `series` groups the slices of one scan (a key that cannot be traced to a patient), `position` is mm along it, and
    `description` what its file calls the series, without words that may be names.
    """

    file: str
    frame: int
    decision: str
    reason: str | None
    probabilities: dict[str, float] | None
    confidence: float | None
    distance: float | None
    cam: np.ndarray | None
    report: InputReport | None
    model: str
    revision: str | None
    classes: tuple[str, ...]
    forced: bool = False
    detail: str | None = None  # of an error: one sentence about this file
    series: str | None = None
    position: float | None = None
    pixels: str | None = None  # 16 hex digits of what the network saw: copies of one slice have the same
    instance: str | None = None  # the same of what the file says: copies that were compressed again have the same
    description: str | None = None
    note: str | None = None

    @classmethod
    def without_answer(
        cls,
        found: Described | Unreadable,
        *,
        model: str,
        revision: str | None,
        classes: tuple[str, ...],
        note: str | None = None,
    ) -> Prediction:
        """The row of a slice that is refused, or of a file that gives none."""
        shared: dict[str, Any] = {"model": model, "revision": revision, "classes": classes, "note": note}
        shared |= dict.fromkeys(("probabilities", "confidence", "distance", "cam"))
        if isinstance(found, Unreadable):
            return cls(found.file, 0, ERROR, found.reason, report=None, detail=found.detail, **shared)
        shared |= {name: getattr(found, name) for name in ("series", "position", "instance", "description")}
        return cls(found.file, found.frame, REFUSED, found.report.reason, report=found.report, **shared)

    @classmethod
    def of(
        cls,
        frame: Described,
        decision: Decision,
        *,
        model: str,
        revision: str | None,
        cam: np.ndarray | None = None,
        force: bool = False,
        pixels: str | None = None,
        note: str | None = None,
    ) -> Prediction:
        """The row of a slice that was answered. `cam` is the network's output (C, h, w) for it.

        With `force` a slice from outside the training source gets the most probable class, marked as forced.
        """
        answers_all_the_same = force and decision.reason == UNLIKE_SOURCE
        return cls(
            frame.file,
            frame.frame,
            decision.likely if answers_all_the_same else decision.label or ABSTAIN,
            frame.report.reason or decision.reason,
            probabilities=decision.probabilities,
            confidence=decision.confidence,
            distance=decision.distance,
            cam=None if cam is None else activation_map(cam, np.array(list(decision.probabilities.values()))),
            report=frame.report,
            model=model,
            revision=revision,
            classes=tuple(decision.probabilities),
            forced=bool(frame.report.codes) or answers_all_the_same,
            series=frame.series,
            position=frame.position,
            pixels=pixels,
            instance=frame.instance,
            description=frame.description,
            note=note,
        )

    @classmethod
    def from_json(cls, row: Mapping[str, Any], classes: tuple[str, ...]) -> Prediction:
        """Back from the `to_json` of an answer by a model with these classes; a map is not kept there."""
        chances = {label: row[f"p_{label}"] for label in classes}
        report = row["report"]
        return cls(
            file=row["file"],
            frame=row["frame"],
            decision=row["decision"],
            reason=row["reason"],
            probabilities=None if None in chances.values() else chances,
            confidence=row["confidence"],
            distance=row["distance"],
            cam=None,
            classes=classes,
            report=report and InputReport(tuple(report["codes"]), tuple(report["warnings"]), report["facts"]),
            note=row.get("note"),
            **{name: row[name] for name in ("model", "revision", "forced", "detail", "series", "position", "pixels")},
            instance=row.get("instance"),
            description=row.get("description"),
        )

    @property
    def label(self) -> str | None:
        """The class, or None where there is no answer."""
        return self.decision if self.decision in self.classes else None

    def row(self) -> dict[str, Any]:
        """The values of `columns(classes)`; JSON-able. Without an answer the probability of every class is None."""
        chances = _chances(self.probabilities, self.classes)
        values = (self.file, self.frame, self.decision, self.reason, *chances.values(), self.revision, self.forced)
        detail = self.detail or (self.report.sentence if self.report else None) or said(self.reason)
        place = (self.series, self.position, " ".join(self.warnings) or None, detail and printable(detail), self.note)
        return dict(zip(columns(self.classes), (printable(self.file), *values[1:], *place), strict=True))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was noticed and not refused, as codes."""
        return self.report.warnings if self.report else ()

    def to_json(self) -> dict[str, Any]:
        """`row()` and all that does not fit a table, without the map: confidence, distance, report, model."""
        report = self.report
        return self.row() | {
            "confidence": self.confidence,
            "distance": _finite(self.distance),
            "pixels": self.pixels,
            "instance": self.instance,
            "description": self.description,
            "report": None
            if report is None
            else {"codes": list(report.codes), "warnings": list(report.warnings), "facts": report.facts},
            "model": self.model,
        }


@dataclass(frozen=True, eq=False)
class Study:
    """The slices of one study and one decision for it, or for each of its series.

    `slices` are in scan order. `decision` and `reason` are those of a Prediction; the probabilities are the mean of
    those of the slices that it rests on (decision.POOLING), the distance their median, and `used` says how many those
    are: what the network saw, without slices from outside the training source, copies of one slice once, and without
    localizers, projections and reformats. `series` is the number of different scans among the slices, `series_key` the
    one that was decided by, and `description` what its files call it.

    Slices of several scans are never pooled: `decision` is then "refused" with the reason "several-series", and
    `studies` holds each scan with a decision of its own.
    """

    slices: list[Prediction]
    decision: str
    reason: str | None
    probabilities: dict[str, float] | None
    confidence: float | None
    distance: float | None
    used: int
    series: int
    model: str
    revision: str | None
    classes: tuple[str, ...]
    series_key: str | None = None
    description: str | None = None
    studies: tuple[Study, ...] = ()
    note: str | None = None

    @property
    def label(self) -> str | None:
        """The class, or None where there is no answer."""
        return self.decision if self.decision in self.classes else None

    @property
    def title(self) -> str:
        """How to call the series: its description and its key, "" where it has none."""
        return ", ".join(filter(None, (self.description, self.series_key)))

    def to_json(self) -> dict[str, Any]:
        """The case with its slices' rows, and where there are several series the case of each; JSON-able."""
        cases = [one.case() for one in self.studies]
        return self.case() | {"studies": cases, "slices": [one.row() for one in self.slices]}

    def case(self) -> dict[str, Any]:
        """The decision without the slices; JSON-able."""
        return {
            "decision": self.decision,
            "reason": self.reason,
            **_chances(self.probabilities, self.classes),
            "confidence": self.confidence,
            "distance": _finite(self.distance),
            "used": self.used,
            "series": self.series,
            "series_key": self.series_key,
            "description": self.description,
            "model": self.model,
            "revision": self.revision,
            "note": self.note,
            "detail": said(self.reason),
        }


def activation_map(cam: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """What spoke for the most probable class: float32 (h, w), 0..1, largest 1, from the maps of all classes (C, h, w).

    Softmax sees only differences between logits, so a class's map means nothing without the others': shown is how far
    it lies above their mean, and nothing where it lies below. All zero when the classes do not differ anywhere.
    """
    contrast = cam[int(probabilities.argmax())] - cam.mean(axis=0)
    positive = np.maximum(np.nan_to_num(contrast, nan=0.0, posinf=0.0, neginf=0.0), 0.0).astype(np.float32)
    top = positive.max()
    return positive / top if top > 0 else positive


def said(reason: str | None) -> str | None:
    """Why a model does not stand by an answer, and what to do, in words; None for other reasons."""
    found = SENTENCES.get(reason or "")
    return found and " ".join(filter(None, [found, WHAT_TO_DO.get(reason or "")]))


def _chances(probabilities: Mapping[str, float] | None, classes: Sequence[str]) -> dict[str, float | None]:
    return {f"p_{name}": probabilities[name] if probabilities else None for name in classes}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
