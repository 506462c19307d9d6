"""Slices of several visitors shown to the network together."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from ..errors import LungCTError
from ..runtime import LungCT, Prediction
from ..slices.source import Frame, Unreadable

Found = Frame | Unreadable


@dataclass(frozen=True, eq=False)
class _Job:
    model: LungCT
    found: Sequence[Found]
    force: bool
    answer: Future[list[Prediction]] = field(default_factory=Future)


class Batcher:
    """One worker that takes whatever waits, up to `largest` slices of one model at a time.

    Reading files is left to the callers' threads; the network alone runs here, so visitors never compete for cores
    with half a network each. At most `waiting` calls stand in line; the next one is told so instead of piling up.
    """

    def __init__(self, *, largest: int = 16, waiting: int = 256) -> None:
        self._largest = largest
        self._jobs: queue.Queue[_Job] = queue.Queue(waiting)
        threading.Thread(target=self._work, name="lungct-batches", daemon=True).start()

    def judge(self, model: LungCT, found: Sequence[Found], *, force: bool = False) -> list[Prediction]:
        """`LungCT.judge` with class-activation maps, for one caller. Raises LungCTError when the line is full."""
        job = _Job(model, found, force)
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            raise LungCTError("Too many slices are waiting at the moment. Fix: try again in a minute.") from None
        return job.answer.result()

    def _work(self) -> None:
        while True:
            jobs = [self._jobs.get()]
            while sum(len(job.found) for job in jobs) < self._largest:
                try:
                    jobs.append(self._jobs.get_nowait())
                except queue.Empty:
                    break
            together: dict[tuple[int, bool], list[_Job]] = {}
            for job in jobs:
                together.setdefault((id(job.model), job.force), []).append(job)
            for group in together.values():
                self._run(group)

    @staticmethod
    def _run(group: list[_Job]) -> None:
        first = group[0]
        try:
            rows = iter(first.model.judge([one for job in group for one in job.found], cam=True, force=first.force))
            answers = [[next(rows) for _ in job.found] for job in group]
        except Exception as error:  # it belongs to the callers; this thread must live on for the others
            for job in group:
                job.answer.set_exception(error)
        else:
            for job, answer in zip(group, answers, strict=True):
                job.answer.set_result(answer)
