"""The program of a reader process: open what it is told to, letterbox, hand squares over in shared memory."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from ..allocator import keep_freed_memory
from ..errors import BadSliceError, LungCTError, brief
from ..runtime.series_groups import mark_others
from ..slices.archive import zip_items
from ..slices.frame import Frame, Unreadable
from ..slices.limits import InputLimits
from ..slices.preprocess import Preprocessing
from ..slices.report import InputReport
from ..slices.series import SeriesChoice
from ..slices.source import open_item, open_slices
from ..slices.window import Window
from .table import OutOfReach, TableCursor
from .units import Unit

READY = -1  # in place of a unit's number: the reader has started


@dataclass(frozen=True, slots=True)
class ReadSlice:
    """A slice without its pixels, as it crosses from a reader; `asked`: its square is in the next free slot."""

    file: str
    frame: int
    report: InputReport
    series: str | None
    position: float | None
    instance: str | None
    description: str | None
    asked: bool


@dataclass(frozen=True)
class Settings:
    """What a reader must know about the model; `force`: squares also of slices that are refused.

    `series` is the one that was asked for: only a reader sees what files call theirs.
    """

    window: Window
    limits: InputLimits | None
    preprocessing: Preprocessing
    force: bool = False
    series: SeriesChoice | None = None
    hu_offset: float | None = None


class UnitReader:
    """Reads units; archives and tables stay open from one to the next, and are read on from where they are."""

    def __init__(self, window: Window, limits: InputLimits | None, hu_offset: float | None = None) -> None:
        self._window, self._limits, self._hu_offset = window, limits, hu_offset
        self._zip: _ZipCursor | None = None
        self._table: TableCursor | None = None

    def read(self, unit: Unit) -> Iterator[Frame | Unreadable]:
        """Every slice of a unit, or why there is none; whatever a decoder does, it is a row.

        Raises OutOfReach when the Hub, where the unit lies, cannot be read from.
        """
        try:
            if unit.kind == "bad":
                yield Unreadable(unit.file, *(unit.note or ("damaged", "It cannot be read.")))
            elif unit.kind == "member":
                yield from self._member(unit)
            elif unit.kind == "row":
                yield from self._open(self._picture(unit), unit.file)
            else:
                yield from self._open(unit.path, unit.file)
        except OutOfReach:
            raise
        except BadSliceError as error:
            yield Unreadable(unit.file, error.reason, f"{brief(error)[:1].upper()}{brief(error)[1:]}.")
        except (LungCTError, OSError) as error:
            yield Unreadable(unit.file, "damaged", f"It cannot be read ({brief(error)}).")
        except Exception as error:  # a decoder that fails in a way nobody foresaw costs its file, not the run
            yield Unreadable(unit.file, "damaged", f"Reading it failed ({type(error).__name__}: {brief(error)}).")

    def _open(self, source: Any, file: str) -> Iterator[Frame | Unreadable]:
        return open_slices(source, window=self._window, limits=self._limits, file=file, hu_offset=self._hu_offset)

    def _member(self, unit: Unit) -> Iterator[Frame | Unreadable]:
        if self._zip is None or self._zip.path != unit.path or self._zip.next_place > unit.place:
            self._zip = _ZipCursor(unit.path)
        item = self._zip.item(unit)
        if isinstance(item, Unreadable):  # the cursor does not know the archive's name
            yield Unreadable(unit.file, item.reason, item.detail)
        else:
            yield from open_item(item, self._window, self._limits, nested=True, hu_offset=self._hu_offset)

    def _picture(self, unit: Unit) -> Any:
        table = self._table
        if table is None or (table.path, table.group) != (unit.path, unit.group) or not table.has(unit.place):
            table = self._table = TableCursor(unit.path, unit.group)
        return table[unit.place]


class _ZipCursor:
    def __init__(self, path: str) -> None:
        self.path, self.next_place = path, 0
        self._handle = open(path, "rb")  # noqa: SIM115 - it lives as long as the cursor
        self._items = zip_items(self._handle, "")

    def item(self, unit: Unit) -> Any:
        for item in self._items:
            self.next_place += 1
            if self.next_place > unit.place:
                return item if isinstance(item, Unreadable) else replace(item, file=unit.file)
        raise BadSliceError("the archive has changed since it was listed")


def _wait_for(free: Any) -> None:
    """Take a free slot; EOFError when the parent has died and nobody will ever empty one."""
    parent = multiprocessing.parent_process()
    while not free.acquire(timeout=1.0):
        if parent is not None and not parent.is_alive():
            raise EOFError


def read_for(connection: Connection, slots: Any, free: Any, settings: Settings) -> None:
    """Serve one parent: receive (number, unit, rows to skip), send (number, what was found or None for its end).

    The first that it sends is (READY, None).

    What is found is ReadSlice or Unreadable, or OutOfReach, after which there is nothing more.

    `slots` is shared memory for squares, used in turn; `free` counts the slots the parent has emptied.
    """
    keep_freed_memory()  # decoded slices are large enough to be given back each time: a sixth of the reading
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    size = settings.preprocessing.size
    ring = np.frombuffer(slots, np.uint8).reshape(-1, size, size, 3)
    reader, slot = UnitReader(settings.window, settings.limits, settings.hu_offset), 0
    try:
        connection.send((READY, None))
        while (task := connection.recv()) is not None:
            number, unit, skip = task
            for place, found in enumerate(reader.read(unit)):
                if place < skip:
                    continue
                found = mark_others(found, settings.series)
                if isinstance(found, Unreadable):
                    connection.send((number, found))
                    continue
                asked = found.report.may_be_asked(settings.force)
                if asked:
                    _wait_for(free)
                    ring[slot] = np.asarray(settings.preprocessing.letterbox(found.pixels))
                    slot = (slot + 1) % len(ring)
                names = ("file", "frame", "report", "series", "position", "instance", "description")
                described = ReadSlice(**{name: getattr(found, name) for name in names}, asked=asked)
                connection.send((number, described))
            connection.send((number, None))
    except OutOfReach as error:
        connection.send((number, OutOfReach(str(error))))
    except (EOFError, OSError):  # the parent is gone
        return
