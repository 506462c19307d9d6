"""One way from slices to answers, for every class that loads a model: the same reading, checks, refusals and rows."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np

from ..contract import Contract
from ..decision import Calibration, Decision, decide, decide_case
from ..errors import UsageError
from ..guard import UNLIKE_SOURCE
from ..hub.model_repo import ModelRepo
from ..slices.source import Frame, Unreadable, open_slices
from .prediction import ABSTAIN, ERROR, REFUSED, Described, Prediction, Study
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
    def labels(self) -> tuple[str, ...]:
        """The classes in the order of the logits."""
        return self.contract.classes.names

    def predict(
        self, slices: Any, *, cam: bool = False, force: bool = False, batch_size: int = 32
    ) -> list[Prediction]:
        """One Prediction for each slice, in order: a file, folder, zip, bytes, PIL image, array, data set or list.

        A slice that the input check refuses is not shown to the network unless `force` is given, and a file that holds
        none is a row with its reason. `cam` adds class-activation maps. At most `batch_size` slices are in memory.

        Raises UsageError when `slices` is of a type that can be none.
        """
        found = open_slices(slices, window=self.contract.window, limits=self.contract.limits)
        return [
            prediction
            for batch in _batches(found, batch_size)
            for prediction in self.judge(batch, cam=cam, force=force)
        ]

    def predict_study(self, source: Any, *, cam: bool = False, force: bool = False) -> Study:
        """The slices of one study (a folder, zip, multi-frame file, volume or list) and one decision for all of them.

        The decision pools the slices that were answered or abstained from as the evaluation's case level does.
        Raises UsageError when `source` is of a type that can be none.
        """
        return self.study(self.predict(source, cam=cam, force=force))

    def study(self, slices: Sequence[Prediction]) -> Study:
        """The case that this model's answers for the slices of one study make."""
        rows = sorted(slices, key=lambda row: (row.series or "", math.inf if row.position is None else row.position))
        case = self._case(rows)
        return Study(
            slices=rows,
            **case,
            series=len({row.series for row in rows if row.series is not None}),
            **self._origin,
        )

    def _case(self, rows: Sequence[Prediction]) -> dict[str, Any]:
        """decision, reason, probabilities, confidence, distance and used of a Study."""
        seen = _without_copies([row for row in rows if row.confidence])  # 0 where the output was not finite
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
        for decision in (ABSTAIN, REFUSED, ERROR):
            reasons = [row.reason for row in rows if row.decision == decision]
            if reasons:
                return {"decision": decision, "reason": max(reasons, key=reasons.count), **nothing}
        return {"decision": ERROR, "reason": "not-an-image", **nothing}

    def judge(
        self, found: Sequence[Frame | Unreadable], *, cam: bool = False, force: bool = False
    ) -> list[Prediction]:
        """One Prediction for each of what `open_slices` gives, all shown to the network at once."""
        asked = [one for one in found if isinstance(one, Frame) and (force or not one.report.codes)]
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
        return {"model": self.name, "revision": self.revision, "classes": self.labels}

    @property
    def _calibration(self) -> Calibration:
        return self.contract.calibration or Calibration()


def _without_copies(rows: Sequence[Prediction]) -> list[Prediction]:
    """The first of those rows whose slices look the same to the network: a slice that was copied has no more votes."""
    seen: set[str] = set()
    kept = []
    for row in rows:
        if row.pixels is None or row.pixels not in seen:
            kept.append(row)
        if row.pixels is not None:
            seen.add(row.pixels)
    return kept


def _batches(found: Iterable[Frame | Unreadable], size: int) -> Iterable[list[Frame | Unreadable]]:
    if size < 1:
        raise UsageError(f"batch_size must be at least 1, got {size}.")
    rows = iter(found)
    while batch := list(islice(rows, size)):
        yield batch
