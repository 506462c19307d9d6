"""The run itself: readers fill batches, the model answers them, the journal keeps them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..hub.model_repo import CONTRACT_FILES
from ..runtime import LungCT
from ..slices.frame import Unreadable
from ..slices.series import SeriesChoice
from .journal import Journal
from .overlay import save_overlay
from .reader import ReadSlice, Settings
from .readers import Read, Readers
from .units import Unit

_ROWS = 8  # batches' worth of rows without a square after which the journal is written all the same


@dataclass
class _Batch:
    """What has been read and not been answered: rows in the order in which they came, squares of those with one."""

    squares: np.ndarray
    rows: list[tuple[int, ReadSlice | Unreadable | None]] = field(default_factory=list)
    asked: int = 0

    def add(self, read: Read) -> None:
        self.rows.append((read.number, read.found))
        if read.square is not None:
            self.squares[self.asked] = read.square
            self.asked += 1

    @property
    def is_full(self) -> bool:
        return self.asked == len(self.squares) or len(self.rows) >= _ROWS * len(self.squares)


def run_job(
    model: LungCT,
    units: Sequence[Unit],
    journal: Journal,
    *,
    readers: int,
    batch_size: int = 32,
    force: bool = False,
    series: SeriesChoice | None = None,
    hu_offset: float | None = None,
    cam: Path | None = None,
    on_rows: Callable[[int, int], None] = lambda units, rows: None,
) -> int:
    """Answer every slice of `units` that `journal` does not hold, and put it there batch by batch.

    `cam` is a folder for pictures of the class-activation maps. `on_rows` is told after each batch how many more units
    are done and rows were made. Returns the number of rows made now.
    """
    contract = model.contract
    settings = Settings(contract.window, contract.limits, contract.preprocessing, force, series, hu_offset)
    size = settings.preprocessing.size
    left = [number for number, unit in enumerate(units) if unit.key not in journal.done]
    if not left:
        return 0
    batch, made = _Batch(np.empty((batch_size, size, size, 3), np.uint8)), 0

    def flush() -> int:
        entries = list(_answered(model, batch, units, journal, cam, force))
        journal.append(entries)
        done = sum(isinstance(content, int) for _, content in entries)
        on_rows(done, len(entries) - done)
        batch.rows.clear()
        batch.asked = 0
        return len(entries) - done

    tasks = ((number, units[number], journal.rows.get(units[number].key, 0)) for number in left)
    slots = max(4, 2 * batch_size // readers)
    with Readers(settings, min(readers, len(left)), slots=slots) as pool:
        for read in pool.read(tasks):
            batch.add(read)
            if batch.is_full:
                made += flush()
    return made + (flush() if batch.rows else 0)


def _answered(
    model: LungCT, batch: _Batch, units: Sequence[Unit], journal: Journal, cam: Path | None, force: bool
) -> Iterator[tuple[str, dict[str, Any] | int]]:
    """The entries for the journal that a batch makes."""
    asked = [found for _, found in batch.rows if isinstance(found, ReadSlice) and found.asked]
    answers = iter(model.answer(asked, batch.squares[: batch.asked], cam=cam is not None, force=force))
    squares = iter(batch.squares)
    fresh: dict[str, int] = {}
    for number, found in batch.rows:
        key = units[number].key
        if found is None:
            yield key, journal.rows.get(key, 0) + fresh.get(key, 0)
            continue
        fresh[key] = fresh.get(key, 0) + 1
        if isinstance(found, ReadSlice) and found.asked:
            row, square = next(answers), next(squares)
            if cam is not None:
                save_overlay(cam, row, square)
        else:
            row = model.without_answer(found)
        yield key, row.to_json()


def identity_of(model: LungCT) -> str:
    """What a model's answers depend on: the commit, or for a directory a hash of its two JSON files.

    lungct.json holds the sha256 of the ONNX file and the calibration.
    """
    if model.revision is not None:
        return str(model.revision)
    digest = hashlib.sha256()
    for name in CONTRACT_FILES:
        digest.update(model.repo.file(name).read_bytes())
    return digest.hexdigest()
