"""One way from slices to answers, for every class that loads a model: the same reading, checks, refusals and rows."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from ..contract import Contract
from ..decision import Calibration, Decision, decide, decide_case
from ..errors import LungCTError, UsageError
from ..guard import UNLIKE_SOURCE
from ..hub.model_repo import ModelRepo
from ..hub.worth import NOTHING_KNOWN, training_note, worth
from ..slices.series import SeriesChoice
from ..slices.source import Frame, Unreadable, open_slices
from .prediction import ABSTAIN, ERROR, REFUSED, Described, Prediction, Study
from .series_groups import group_by_series, mark_others
from .session import Outputs


class Answers(ABC):
    """What LungCT and LungCTClassifier have in common. `contract` is the model's lungct.json, `repo` the
    files that were loaded, None for a model that nothing was loaded for."""

    contract: Contract
    backend: str
    repo: ModelRepo | None

    @abstractmethod
    def _run(self, squares: np.ndarray) -> Outputs:
        """The network's outputs for uint8 squares (N, size, size, 3)."""

    @property
    def repo_id(self) -> str | None:
        """The Hub repo that was loaded, None for a directory."""
        return self.repo.repo_id if self.repo else None

    @property
    def revision(self) -> str | None:
        """The 40-hex commit that was loaded, None for a directory."""
        return self.repo.revision if self.repo else None

    @property
    def name(self) -> str:
        """How to call the model in front of a reader: "owner/name@revision" or the directory's name."""
        return self.repo.name if self.repo else "an unsaved model"

    @property
    def worth(self) -> str:
        """One line to stand beside every decision: the score from the repo's metrics.json with its interval, and
        whether it beats what learns nothing; or that nothing is known."""
        try:
            return worth(self.repo.metrics if self.repo else None, self.contract.provenance)
        except (LungCTError, KeyError, TypeError, ValueError, AttributeError):  # a damaged or foreign metrics.json
            return NOTHING_KNOWN

    @property
    def note(self) -> str | None:
        """What every answer must say of how the model was trained, such as that it was on phantoms; else None."""
        return training_note(self.contract.provenance)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes in the order of the logits."""
        return self.contract.classes.names

    def predict(
        self,
        slices: Any,
        *,
        cam: bool = False,
        force: bool = False,
        batch_size: int = 32,
        hu_offset: float | None = None,
    ) -> list[Prediction]:
        """One Prediction for each slice, in order: a file, folder, zip, bytes, PIL image, array, data set or list.

        A slice that the input check refuses is not shown to the network unless `force` is given, and a file that holds
        none is a row with its reason. `cam` adds class-activation maps. `hu_offset`: deep pictures, arrays
        and volumes without a sign hold HU plus this. At most `batch_size` slices are in memory.

        Raises UsageError when `slices` is of a type that can be none.
        """
        return self._answers(slices, None, cam, force, hu_offset, batch_size)

    def predict_study(
        self,
        source: Any,
        *,
        series: str | None = None,
        cam: bool = False,
        force: bool = False,
        hu_offset: float | None = None,
    ) -> Study:
        """The slices of one study (a folder, zip, multi-frame file, volume or list) and one decision for all of them.

        The decision pools the slices that were answered or abstained from as the evaluation's case level does. Slices
        of several scans are never pooled: the decision is then "refused" with the reason "several-series", and
        `Study.studies` has one for each. `series` chooses: the beginning of a SeriesInstanceUID or of a series' key, a
        part of its description, or "largest".
        Raises UsageError when `source` is of a type that can be none, or `series` is empty.
        """
        choice = SeriesChoice.parse(series)
        return self.study(self._answers(source, choice, cam, force, hu_offset), choice)

    def predict_studies(
        self,
        source: Any,
        *,
        series: str | None = None,
        cam: bool = False,
        force: bool = False,
        hu_offset: float | None = None,
    ) -> list[Study]:
        """As `predict_study`, but one Study for each scan in `source`, in the order in which they come."""
        choice = SeriesChoice.parse(series)
        return self.studies(self._answers(source, choice, cam, force, hu_offset), choice)

    def _answers(
        self,
        source: Any,
        choice: SeriesChoice | None,
        cam: bool,
        force: bool,
        hu_offset: float | None,
        batch_size: int = 32,
    ) -> list[Prediction]:
        """One Prediction for each slice of `source`; those that `choice` leaves out are not shown to the network."""
        contract = self.contract
        found = open_slices(source, window=contract.window, limits=contract.limits, hu_offset=hu_offset)
        return [
            prediction
            for batch in _batches((mark_others(one, choice) for one in found), batch_size)
            for prediction in self.judge(batch, cam=cam, force=force)
        ]

    def study(self, slices: Sequence[Prediction], choice: SeriesChoice | None = None) -> Study:
        """The case that this model's answers for the slices of one study make."""
        found = self.studies(slices, choice)
        decided = [one for one in found if one.used]
        if len(found) == 1 or len(decided) == 1:
            one = decided[0] if len(decided) == 1 else found[0]
            # What lies beside the one scan is shown with it.
            rest = [row for other in found if other is not one for row in other.slices]
            return replace(one, slices=[*one.slices, *rest])
        rows = [row for one in found for row in one.slices]
        if not decided:
            case = self._case(rows, rows)
            return Study(slices=rows, **case, series=len(found), **self._origin)
        nothing = dict.fromkeys(("probabilities", "confidence", "distance"))
        case = {"decision": REFUSED, "reason": "several-series", "used": 0, **nothing}
        return Study(slices=rows, **case, series=len(found), studies=tuple(found), **self._origin)

    def studies(self, slices: Sequence[Prediction], choice: SeriesChoice | None = None) -> list[Study]:
        """The case of each scan among the slices (`group_by_series`), at least one."""
        return [
            Study(
                slices=[*group.slices, *group.beside],
                **self._case([*group.slices, *group.beside], group.slices),
                series=0 if group.key is None else 1,
                series_key=group.key,
                description=group.description,
                **self._origin,
            )
            for group in group_by_series(slices, choice)
        ]

    def _case(self, rows: Sequence[Prediction], counted: Sequence[Prediction]) -> dict[str, Any]:
        """decision, reason, probabilities, confidence, distance and used of a Study; only `counted` have a vote."""
        seen = _without_copies([row for row in counted if row.confidence])  # 0 where the output was not finite
        near = [row for row in seen if (row.decision, row.reason) != (ABSTAIN, UNLIKE_SOURCE)]
        used = near if 2 * len(near) >= len(seen) else seen
        if used:
            chances = np.array([list((row.probabilities or {}).values()) for row in used])
            distances = [row.distance for row in used if row.distance is not None]
            case = decide_case(
                self._calibration, self.contract.classes, chances, np.array(distances) if distances else None
            )
            # A study most of whose slices are from elsewhere is from elsewhere.
            reason = case.reason if used is near else UNLIKE_SOURCE
            is_forced = used is near and reason == UNLIKE_SOURCE and any(row.forced for row in used)
            found = {name: getattr(case, name) for name in ("probabilities", "confidence", "distance")}
            decision = case.likely if is_forced else ABSTAIN if reason else case.label
            return found | {"decision": decision, "reason": reason, "used": len(used)}
        nothing = dict.fromkeys(("probabilities", "confidence", "distance")) | {"used": 0}
        if not counted and any(row.confidence is not None for row in rows):
            return {"decision": REFUSED, "reason": "only-derived", **nothing}
        for decision in (ABSTAIN, REFUSED, ERROR):
            reasons = [row.reason for row in rows if row.decision == decision]
            if reasons:
                return {"decision": decision, "reason": max(reasons, key=reasons.count), **nothing}
        return {"decision": ERROR, "reason": "not-an-image", **nothing}

    def judge(
        self, found: Sequence[Frame | Unreadable], *, cam: bool = False, force: bool = False
    ) -> list[Prediction]:
        """One Prediction for each of what `open_slices` gives, all shown to the network at once."""
        asked = [one for one in found if isinstance(one, Frame) and one.report.may_be_asked(force)]
        squares = self.contract.preprocessing.squares([frame.pixels for frame in asked])
        answers = {
            id(frame): row for frame, row in zip(asked, self.answer(asked, squares, cam=cam, force=force), strict=True)
        }
        return [answers.get(id(one)) or self.without_answer(one) for one in found]

    def answer(
        self, found: Sequence[Described], squares: np.ndarray, *, cam: bool = False, force: bool = False
    ) -> list[Prediction]:
        """One Prediction for each slice whose letterboxed picture is in `squares`, uint8 (N, size, size, 3)."""
        outputs = self._run(squares)
        decisions = decide(self._calibration, self.contract.classes, outputs.logits, outputs.features)
        maps = outputs.cam if cam else [None] * len(decisions)
        return [
            Prediction.of(
                one,
                decision,
                cam=activation,
                model=self.name,
                revision=self.revision,
                force=force,
                note=self.note,
                pixels=hashlib.blake2b(square, digest_size=8).hexdigest(),
            )
            for one, decision, activation, square in zip(found, decisions, maps, squares, strict=True)
        ]

    def without_answer(self, found: Described | Unreadable) -> Prediction:
        """The row of a slice that the input check refuses, or of a file that holds none."""
        return Prediction.without_answer(found, **self._origin)

    def predict_images(self, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Letterboxed slices, uint8 (N, size, size, 3), to logits (N, C), features (N, D), cam (N, C, h, w).

        float32, before any decision. Raises UsageError for another type or shape.
        """
        size = self.contract.preprocessing.size
        if squares.dtype != np.uint8 or squares.ndim != 4 or squares.shape[1:] != (size, size, 3):
            raise UsageError(
                f"Squares must be uint8 of shape (N, {size}, {size}, 3), got {squares.dtype} {squares.shape}."
            )
        return tuple(self._run(squares))  # type: ignore[return-value]

    def decide(self, logits: np.ndarray, features: np.ndarray) -> list[Decision]:
        """For each row of `predict_images` a class, or none and the reason to abstain."""
        return decide(self._calibration, self.contract.classes, logits, features)

    @property
    def _origin(self) -> dict[str, Any]:
        return {"model": self.name, "revision": self.revision, "classes": self.labels, "note": self.note}

    @property
    def _calibration(self) -> Calibration:
        return self.contract.calibration or Calibration()


def _without_copies(rows: Sequence[Prediction]) -> list[Prediction]:
    """The first of those rows that are one slice: a slice that was copied has no more votes.

    Copies look the same to the network, or are one instance at one place; some writers give one instance number to
    all slices.
    """
    seen: set[tuple[Any, ...]] = set()
    kept = []
    for row in rows:
        marks: set[tuple[Any, ...]] = {("pixels", row.pixels)} if row.pixels is not None else set()
        if row.instance is not None:
            marks.add(("instance", row.instance, row.position))
        if not marks & seen:
            kept.append(row)
        seen |= marks
    return kept


def _batches(found: Iterable[Frame | Unreadable], size: int) -> Iterable[list[Frame | Unreadable]]:
    if size < 1:
        raise UsageError(f"batch_size must be at least 1, got {size}.")
    rows = iter(found)
    while batch := list(islice(rows, size)):
        yield batch
