"""Reader processes as the run sees them: a stream of what they read, whatever happens to any of them."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np

from ..errors import LungCTError
from ..slices.frame import Unreadable
from .reader import READY, ReadSlice, Settings, read_for
from .table import OutOfReach
from .units import Unit

_AHEAD = 3  # units a reader has been given and not finished
_MAX_DEATHS = 20  # in a row, without one unit read between them
_MAX_STARTS = 3  # readers that end before they could read anything
_PATIENCE = 300.0  # seconds for one slice; the slowest seen (a large compressed multi-frame file) took 20
_POLL = 5.0  # seconds between looks at the clock


@dataclass(frozen=True)
class Read:
    """What came of unit `number`: a slice (with its square, where it has one), a bad file, or None when it is done."""

    number: int
    found: ReadSlice | Unreadable | None
    square: np.ndarray | None = None


@dataclass
class _Reader:
    process: Any
    connection: Connection
    ring: np.ndarray
    free: Any
    slot: int = 0
    ready: bool = False
    given: deque[tuple[int, Unit, int]] = field(default_factory=deque)
    heard: float = 0.0


class Readers:
    """`count` processes that read units in the order given, each into `slots` squares of shared memory.

    A reader that dies or hangs costs the unit it was at, which becomes a row with that reason, and is replaced.
    Squares are views of shared memory until the next item is asked for. Use as a context manager.
    """

    def __init__(self, settings: Settings, count: int, *, slots: int, patience: float = _PATIENCE) -> None:
        self._settings, self._slots, self._patience = settings, slots, patience
        # A forked child would inherit the threads' locks of ONNX Runtime and Arrow without the threads.
        self._context = multiprocessing.get_context("spawn")
        self._deaths = self._failed_starts = 0
        self._readers = [self._start() for _ in range(count)]

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self._readers:
            reader.connection.close()
            reader.process.kill()
        for reader in self._readers:
            reader.process.join()

    def read(self, tasks: Iterator[tuple[int, Unit, int]]) -> Iterator[Read]:
        """Read (number, unit, slices to skip); of one unit in order, of several as they come.

        Raises LungCTError when readers die again and again without reading anything, or the Hub is out of reach.
        """
        looked = time.monotonic()
        while True:
            for reader in self._readers:
                self._give(reader, tasks)
            busy = {reader.connection: reader for reader in self._readers if reader.given}
            if not busy:
                return
            ready = wait(list(busy), timeout=_POLL)
            now = time.monotonic()
            if now - looked > 2 * _POLL:  # this process slept itself (Ctrl-Z, a laptop's lid), or was busy for long
                for reader in busy.values():
                    reader.heard = max(reader.heard, now)
            looked = now
            for connection in ready:
                yield from self._receive(busy[connection])  # type: ignore[index]
            for reader in busy.values():
                if now - reader.heard > (self._patience if reader.ready else _PATIENCE):
                    reader.process.kill()  # its pipe closes, and it is found dead in the next round
                    reader.heard = float("inf")

    def _give(self, reader: _Reader, tasks: Iterator[tuple[int, Unit, int]]) -> None:
        while len(reader.given) < _AHEAD and (task := next(tasks, None)) is not None:
            if not reader.given:
                reader.heard = time.monotonic()
            reader.given.append(task)
            self._send(reader, task)

    def _receive(self, reader: _Reader) -> Iterator[Read]:
        """All that a reader has sent so far."""
        try:
            while reader.connection.poll():
                number, found = reader.connection.recv()
                if reader.heard != float("inf"):
                    reader.heard = time.monotonic()
                if isinstance(found, OutOfReach):
                    raise found
                if number == READY:
                    reader.ready = True
                elif found is None:
                    reader.given.popleft()
                    self._deaths = 0
                    yield Read(number, None)
                elif isinstance(found, ReadSlice) and found.asked:
                    yield Read(number, found, reader.ring[reader.slot])
                    reader.slot = (reader.slot + 1) % len(reader.ring)
                    reader.free.release()
                else:
                    yield Read(number, found)
        except (EOFError, OSError):
            yield from self._replace(reader)

    def _replace(self, reader: _Reader) -> Iterator[Read]:
        was_slow = reader.heard == float("inf")
        reader.connection.close()
        reader.process.join()
        if not reader.ready and not was_slow:  # no file's fault
            self._failed_starts += 1
            if self._failed_starts >= _MAX_STARTS:
                raise _cannot_start(_cause(reader.process.exitcode))
            self._restart(reader)
            return
        self._deaths += 1
        number, unit, _ = reader.given.popleft()
        if self._deaths >= _MAX_DEATHS:
            raise LungCTError(
                f"{_MAX_DEATHS} reader processes in a row died ({_cause(reader.process.exitcode)}) and read nothing. "
                "Fix: check the memory that is free, then try again with --workers 1."
            )
        how = f"took longer than {self._patience:.0f} seconds" if was_slow else "died"
        cause = "" if was_slow else f" ({_cause(reader.process.exitcode)})"
        yield Read(number, Unreadable(unit.file, "damaged", f"The process that read it {how}{cause}."))
        yield Read(number, None)
        self._restart(reader)

    def _restart(self, reader: _Reader) -> None:
        """A new reader in the place of one that has ended, with what that had still to do."""
        left, fresh = reader.given, self._start()
        self._readers[self._readers.index(reader)] = fresh
        fresh.heard = time.monotonic()
        for task in left:
            fresh.given.append(task)
            self._send(fresh, task)

    @staticmethod
    def _send(reader: _Reader, task: tuple[int, Unit, int]) -> None:
        try:
            reader.connection.send(task)
        except OSError:
            return  # it is dead, which the next look at its pipe shows

    def _start(self) -> _Reader:
        size = self._settings.preprocessing.size
        # Anonymous memory: nothing is left behind whatever process dies, and however.
        slots = self._context.RawArray("B", self._slots * size * size * 3)
        free = self._context.Semaphore(self._slots)
        ours, theirs = self._context.Pipe()
        arguments = (theirs, slots, free, self._settings)
        process = self._context.Process(target=read_for, args=arguments, daemon=True, name="lungct-reader")
        try:
            with _without_the_program():
                process.start()
        except BrokenPipeError as error:  # it has ended already
            raise _cannot_start("at once") from error
        theirs.close()
        ring = np.frombuffer(slots, np.uint8).reshape(self._slots, size, size, 3)
        return _Reader(process, ours, ring, free)


@contextmanager
def _without_the_program() -> Iterator[None]:
    """Keep `multiprocessing` from running the caller's program again in a process that it starts.

    A reader needs nothing of it, and a program without `if __name__ == "__main__":` would start everything anew.
    """
    main = sys.modules["__main__"]
    with _hiding:
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        main.__spec__ = None
        if file is not None:
            del main.__file__
        try:
            yield
        finally:
            main.__spec__ = spec
            if file is not None:
                main.__file__ = file


_hiding = threading.Lock()


def _cannot_start(how: str) -> LungCTError:
    return LungCTError(
        f"The reader processes end before they read anything ({how}). Fix: see what Python says above; it must be "
        "able to import lungct_hf in a process of its own."
    )


def _cause(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}, as when memory runs out" if name == "SIGKILL" else name
