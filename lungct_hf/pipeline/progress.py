"""How far a run is: a bar on a terminal's stderr, a line a minute in a log."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LOG_EVERY = 60.0  # seconds


class RunProgress:
    """Units done of `total`, the rate of rows, the time left. A context manager; `advance` after each batch."""

    def __init__(self, total: int, done: int) -> None:
        self._console = Console(stderr=True, highlight=False)
        rate = TextColumn("{task.fields[rate]}")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
        self._bar = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._bar.add_task("Predicting", total=total, completed=done, rate="")
        self._total, self._done, self._fresh, self.rows = total, done, 0, 0
        self._start = self._said = time.perf_counter()

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, units: int, rows: int) -> None:
        """`units` more are complete, `rows` more were made."""
        self._done += units
        self._fresh += units
        self.rows += rows
        now = time.perf_counter()
        rate = f"{self.rows / max(now - self._start, 1e-9):.1f} slices/s"
        self._bar.update(self._task, completed=self._done, rate=rate)
        if not self._console.is_terminal and now - self._said >= _LOG_EVERY:
            self._said = now
            left = (self._total - self._done) * (now - self._start) / max(self._fresh, 1)
            self._console.print(f"{self._done:,} of {self._total:,}, {rate}, {left / 60:.0f} minutes left")

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start
