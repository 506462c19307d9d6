"""Read the slices of entries through the reader that prediction uses too: once to look at them, later one by one."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from PIL import Image

from ..errors import BadSliceError, LungCTError, brief
from ..slices.archive import zip_items
from ..slices.frame import Frame, Unreadable
from ..slices.kind import HEAD, sniff
from ..slices.limits import InputLimits
from ..slices.order import Item
from ..slices.source import open_item
from ..slices.window import Window
from .listing import Entry
from .tree import plain_reason

_LOOKAHEAD = 8  # slices of other files that are decoded to reach one, before its archive is opened anew


def files_of(entry: Entry) -> Iterator[Item | Unreadable]:
    """The entry's file, or the members of an archive. Each item is to be read before the next one is asked for."""
    try:
        handle = entry.open()
    except BadSliceError as error:
        yield Unreadable(entry.id, error.reason, str(error))
        return
    except OSError as error:
        yield Unreadable(entry.id, "damaged", f"It cannot be read ({error.strerror or brief(error)}).")
        return
    with handle:
        kind = sniff(handle.read(HEAD))
        handle.seek(0)
        if kind != "zip":
            yield Item(entry.id, lambda: handle, beside=getattr(entry.open, "beside", None))
            return
        try:
            yield from zip_items(handle, entry.id)
        except BadSliceError as error:
            yield Unreadable(entry.id, error.reason, str(error))


def frames_of(
    item: Item, handle: BinaryIO, window: Window, *, nested: bool, limits: InputLimits | None = None
) -> Iterator[Frame | Unreadable]:
    """The slices of one file, in the model's window, each with its report; without `limits` no model's apply."""
    handle.seek(0)
    return open_item(replace(item, open=lambda: handle), window, limits, nested=nested)


@dataclass
class SliceReader:
    """Reads slice i of a cohort again, given where each lies: (entry, file, frame).

    The slices of a volume or archive are cheap in their order: reading goes on where the last one ended.
    """

    entries: list[Entry]
    places: list[tuple[int, str, int]]
    window: Window
    _running: _Running | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def read(self, i: int, shown: str) -> Image.Image:
        """Slice `i` as RGB. Raises LungCTError: its file has gone or changed."""
        entry, file, frame = self.places[i]
        if frame == 0 and file == self.entries[entry].id and not self._has_more(i):
            return self._take(_Running(entry, self._frames(entry, file)), file, frame, shown)
        with self._lock:
            running = self._running
            if running is not None and running.is_near(entry, file, frame):
                image = running.take(file, frame, _LOOKAHEAD)
                if image is not None:
                    return image
            self._running = running = _Running(entry, self._frames(entry, file))
            return self._take(running, file, frame, shown)

    def _has_more(self, i: int) -> bool:
        return any(0 <= j < len(self.places) and self.places[j][0] == self.places[i][0] for j in (i - 1, i + 1))

    def _frames(self, entry: int, first: str) -> Iterator[Frame | Unreadable]:
        """The slices of an entry from the file `first` on."""
        is_there = False
        for item in files_of(self.entries[entry]):
            is_there = is_there or item.file == first
            if isinstance(item, Unreadable):
                yield item
            elif is_there:
                with item.open() as handle:
                    yield from frames_of(item, handle, self.window, nested=item.file != self.entries[entry].id)

    @staticmethod
    def _take(running: _Running, file: str, frame: int, shown: str) -> Image.Image:
        image = running.take(file, frame)
        if image is None:
            raise LungCTError(f'"{shown}" has changed since the data were loaded: {running.reason}.')
        return image

    def __getstate__(self) -> dict[str, object]:
        return {"entries": self.entries, "places": self.places, "window": self.window}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]


@dataclass
class _Running:
    """An entry that is being read, by this process: a forked one would move the same place in the file."""

    entry: int
    frames: Iterator[Frame | Unreadable]
    last: tuple[str, int] = ("", -1)
    reason: str = "it no longer holds this slice"
    process: int = field(default_factory=os.getpid)

    def is_near(self, entry: int, file: str, frame: int) -> bool:
        """Whether a slice may lie a little further on."""
        if (self.entry, self.process) != (entry, os.getpid()):
            return False
        return self.last[0] != file or self.last[1] < frame

    def take(self, file: str, frame: int, most: int | None = None) -> Image.Image | None:
        """The slice, if it is among the next `most` (or all) that come; of its own file all are looked through."""
        others = 0
        for found in self.frames:
            if isinstance(found, Unreadable):
                self.reason = plain_reason(found.detail) if found.file == file else self.reason
                continue
            self.last = (found.file, found.frame)
            if self.last == (file, frame):
                return found.image
            others += found.file != file
            if most is not None and others >= most:
                return None
        return None
