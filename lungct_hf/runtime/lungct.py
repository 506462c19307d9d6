"""LungCT: a published model, from a directory or from the Hub at one commit, that answers for slices and studies."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..contract import ONNX_FILE, Contract
from ..decision import Calibration, Decision, decide, decide_case
from ..errors import UsageError, require
from ..hub.source import FetchedModel, local_model, warn_if_it_can_move
from ..slices.source import Frame, Unreadable, open_slices
from .prediction import ABSTAIN, ERROR, REFUSED, Described, Prediction, Study
from .session import OnnxSession, Session

BACKENDS = ("auto", "onnx", "torch")
_JSON = ["config.json", "lungct.json"]


class LungCT:
    """A lung CT slice model with 2 to 100 classes. Research only, never a medical device.

    `predict` takes slices as files, bytes, PIL images, arrays or DICOM data sets, `predict_study` those of one case.
    Several threads may share one object. `contract` is the model's lungct.json; `repo_id` and `revision` (the 40-hex
    commit) say what was loaded and are None for a directory; `backend` is "onnx" or "torch".
    """

    def __init__(self, session: Session, contract: Contract, source: FetchedModel) -> None:
        self.contract = contract
        self.repo_id, self.revision, self.name = source.repo_id, source.revision, source.name
        self.backend = session.backend
        self._session = session

    @classmethod
    def from_pretrained(
        cls,
        repo_or_dir: str | Path,
        revision: str | None = None,
        *,
        backend: str = "auto",
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        threads: int | None = None,
    ) -> LungCT:
        """Load a directory that training wrote or a Hub repo ("owner/name" or "owner/name@revision").

        Only what the backend needs is downloaded. `backend="auto"` is "onnx" where lungct.json records an ONNX file
        and "torch" where it does not. A revision that can move, like a branch, is loaded at the commit it has now, and
        a warning on the logger `lungct_hf` names that commit once. `threads`: cores for one call, by default all.

        Raises UsageError for a call that means nothing, LungCTError with the fix when the repo or revision does not
        exist, a file is missing or damaged, or the backend is not installed.
        """
        if backend not in BACKENDS:
            raise UsageError(f"Unknown backend {backend!r}; needed is one of {', '.join(BACKENDS)}.")
        if threads is not None and threads < 1:
            raise UsageError(f"threads must be at least 1, got {threads}.")

        def fetch(revision: str | None, repo: str | Path, weights: str) -> FetchedModel:
            from ..hub import fetch_model  # the Hub client takes longer to load than a slice to classify

            options: dict[str, Any] = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
            return fetch_model(repo, revision, allow_patterns=[*_JSON, weights], **options)

        weights = "model.safetensors" if backend == "torch" else ONNX_FILE
        source = local_model(repo_or_dir, revision) or fetch(revision, repo_or_dir, weights)
        contract = Contract.read(source.path)
        session: Session
        if backend == "onnx" or (backend == "auto" and contract.has_onnx):
            session = OnnxSession(source.path, contract, threads)
        else:
            require("torch", "torch")
            if source.repo_id is not None and weights == ONNX_FILE:
                fetch(source.revision, source.repo_id, "model.safetensors")
            from .torch_session import TorchSession

            session = TorchSession(source.path, threads)
        warn_if_it_can_move(source)
        return cls(session, contract, source)

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
        found = open_slices(slices, window=self.contract.window)
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
            used=sum(bool(row.confidence) for row in rows),
            series=len({row.series for row in rows if row.series is not None}),
            model=self.name,
            revision=self.revision,
            classes=self.labels,
        )

    def _case(self, rows: Sequence[Prediction]) -> dict[str, Any]:
        """decision, reason, probabilities, confidence and distance of a Study."""
        answered = [row for row in rows if row.confidence]  # 0 where the network's output was not finite
        if answered:
            chances = np.array([list((row.probabilities or {}).values()) for row in answered])
            distances = [row.distance for row in answered if row.distance is not None]
            case = decide_case(
                self._calibration, self.contract.classes, chances, np.array(distances) if distances else None
            )
            found = {name: getattr(case, name) for name in ("reason", "probabilities", "confidence", "distance")}
            return {"decision": case.label or ABSTAIN, **found}
        nothing = dict.fromkeys(("probabilities", "confidence", "distance"))
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
        answers = {id(frame): row for frame, row in zip(asked, self.answer(asked, squares, cam=cam), strict=True)}
        return [answers.get(id(one)) or self.without_answer(one) for one in found]

    def answer(self, found: Sequence[Described], squares: np.ndarray, *, cam: bool = False) -> list[Prediction]:
        """One Prediction for each slice whose letterboxed picture is in `squares`, uint8 (N, size, size, 3)."""
        outputs = self._session.run(squares)
        decisions = decide(self._calibration, self.contract.classes, outputs.logits, outputs.features)
        maps = outputs.cam if cam else [None] * len(decisions)
        named: dict[str, Any] = {"model": self.name, "revision": self.revision}
        return [
            Prediction.of(one, decision, cam=activation, **named)
            for one, decision, activation in zip(found, decisions, maps, strict=True)
        ]

    def without_answer(self, found: Described | Unreadable) -> Prediction:
        """The row of a slice that the input check refuses, or of a file that holds none."""
        return Prediction.without_answer(found, model=self.name, revision=self.revision, classes=self.labels)

    def predict_images(self, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Letterboxed slices, uint8 (N, size, size, 3), to logits (N, C), features (N, D), cam (N, C, h, w).

        float32, before any decision. Raises UsageError for another type or shape.
        """
        size = self.contract.preprocessing.size
        if squares.dtype != np.uint8 or squares.ndim != 4 or squares.shape[1:] != (size, size, 3):
            raise UsageError(
                f"Squares must be uint8 of shape (N, {size}, {size}, 3), got {squares.dtype} {squares.shape}."
            )
        return tuple(self._session.run(squares))  # type: ignore[return-value]

    def decide(self, logits: np.ndarray, features: np.ndarray) -> list[Decision]:
        """For each row of `predict_images` a class, or none and the reason to abstain."""
        return decide(self._calibration, self.contract.classes, logits, features)

    @property
    def _calibration(self) -> Calibration:
        return self.contract.calibration or Calibration()


def _batches(found: Iterable[Frame | Unreadable], size: int) -> Iterable[list[Frame | Unreadable]]:
    if size < 1:
        raise UsageError(f"batch_size must be at least 1, got {size}.")
    rows = iter(found)
    while batch := list(islice(rows, size)):
        yield batch
