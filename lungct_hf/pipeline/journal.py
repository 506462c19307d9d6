"""What a run has done so far, on the disk after every batch: a run that was killed goes on from there."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import LungCTError
from .units import Unit


class Journal:
    """An append-only file of lines: first what the run is, then `[unit key, row]` and `[unit key, rows of it]`.

    A run that finds the journal of an equal run skips what it holds. What was being written when a run was killed is
    cut off. One run at a time may have it open.

    Raises:
        LungCTError: another run has it open, or it is that of another model or other settings.
    """

    def __init__(self, path: Path, run: Mapping[str, Any]) -> None:
        self.path = path
        self.rows: dict[str, int] = {}  # rows so far of each unit
        self.done: set[str] = set()  # units that are complete
        try:
            import fcntl
        except ImportError as error:
            raise LungCTError(
                "`lungct predict` needs Linux or macOS: it locks its journal as this system cannot. Fix: WSL on "
                "Windows, or LungCT.predict in Python."
            ) from error
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise LungCTError(
                f"Another run is writing {path.name}. Fix: wait for it, or give another --output."
            ) from error
        header = json.dumps(run, ensure_ascii=False, sort_keys=True).encode() + b"\n"
        whole = self._read(header)
        self._file.truncate(whole)
        if not whole:
            self._write(header)

    def _read(self, header: bytes) -> int:
        """Take in what is there; the length of its whole lines."""
        self._file.seek(0)
        first = self._file.readline()
        if not first.endswith(b"\n"):
            return 0
        if first != header:
            self._file.close()
            raise LungCTError(
                f"{self.path.name} was left by a run of another model, revision or other settings. Fix: delete it to "
                "start anew, or give another --output."
            )
        whole = len(first)
        for line in self._file:
            entry = _parsed(line)
            if entry is None:
                break
            whole += len(line)
            key, content = entry
            if isinstance(content, int):
                self.done.add(key)
            else:
                self.rows[key] = self.rows.get(key, 0) + 1
        return whole

    def append(self, entries: Sequence[tuple[str, dict[str, Any] | int]]) -> None:
        """Write rows, or the number of rows of a unit that is complete, and wait until the disk has them."""
        for key, content in entries:
            if isinstance(content, int):
                self.done.add(key)
            else:
                self.rows[key] = self.rows.get(key, 0) + 1
        text = "".join(json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n" for entry in entries)
        self._write(text.encode("utf-8", "replace"))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()
        os.fsync(self._file.fileno())

    def in_order(self, units: Sequence[Unit]) -> Iterator[tuple[int, dict[str, Any]]]:
        """(number of the unit, row) of every row, in the order of `units`. Only where rows begin is kept in memory."""
        places = {unit.key: number for number, unit in enumerate(units)}
        starts: dict[int, array[int]] = {}
        self._file.seek(0)
        offset = len(self._file.readline())
        for line in self._file:
            key, content = json.loads(line)
            if key in places and not isinstance(content, int):
                starts.setdefault(places[key], array("q")).append(offset)
            offset += len(line)
        for number in range(len(units)):
            for start in starts.get(number, ()):
                self._file.seek(start)
                yield number, json.loads(self._file.readline())[1]

    def close(self, *, remove: bool = False) -> None:
        """Let go of it; `remove` once its rows are safe elsewhere."""
        if remove:
            self.path.unlink(missing_ok=True)
        self._file.close()


def _parsed(line: bytes) -> tuple[str, Any] | None:
    """An entry, or None of a line that was cut short or never reached the disk."""
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return tuple(entry) if isinstance(entry, list) and len(entry) == 2 else None
