"""Batches whose content depends only on (seed, epoch, step), so that a run can go on anywhere, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..cohort import Cohort
from ..errors import UsageError
from ..slices.preprocess import Preprocessing
from .augment import Augmentation, with_levels_of


def random_stream(*numbers: int) -> np.random.Generator:
    """A generator that depends on nothing but these numbers."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(numbers)))


def other_row(rows: np.ndarray, share: float, *numbers: int) -> int | None:
    """One of `rows`, whose histogram a slice gets, for this share of the slices; else None. By `numbers` alone."""
    if not share:  # asked for every slice and variant of every batch
        return None
    chance, place = random_stream(*numbers, 5).uniform(0, 1, 2)
    return int(rows[int(place * len(rows))]) if chance < share else None


class Squares:
    """The cohort's slices, letterboxed to uint8 (size, size, 3).

    Those that the cohort made while it was loaded are used; where it made none, because they do not fit into memory or
    nobody asked it to, a slice is decoded each time.
    """

    def __init__(self, cohort: Cohort, preprocessing: Preprocessing) -> None:
        self._cohort, self._preprocessing = cohort, preprocessing
        self._made = cohort.squares if cohort.preprocessing == preprocessing else None

    def __len__(self) -> int:
        return len(self._cohort)

    def __getitem__(self, row: int) -> np.ndarray:
        if self._made is not None:
            return self._made[row]
        return np.asarray(self._preprocessing.letterbox(self._cohort.read(row)))


@dataclass(frozen=True)
class _TrainingSlices(Dataset[tuple[torch.Tensor, int]]):
    squares: Squares
    labels: np.ndarray
    rows: np.ndarray  # those of the training fold, which lend each other their histograms
    preprocessing: Preprocessing
    augmentation: Augmentation
    seed: int

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, int]:
        epoch, row = key
        square, share = self.squares[row], self.augmentation.recipe.other_histogram
        if (other := other_row(self.rows, share, self.seed, 1, epoch, row)) is not None:
            square = with_levels_of(square, self.squares[other], self.augmentation.fill)
        square = self.augmentation(square, random_stream(self.seed, 1, epoch, row))
        return torch.from_numpy(self.preprocessing.normalise(square)), int(self.labels[row])


@dataclass(frozen=True)
class _EpochSampler(Sampler[list[tuple[int, int]]]):
    """This process's batches of one epoch, from a given batch on. Every process draws the same order."""

    rows: np.ndarray
    seed: int
    epoch: int
    first: int
    batches: int
    batch_size: int
    process: int
    processes: int

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = random_stream(self.seed, 0, self.epoch).permutation(self.rows)
        width = self.batch_size * self.processes
        for batch in range(self.first, self.batches):
            mine = order[batch * width : (batch + 1) * width][self.process :: self.processes]
            yield [(self.epoch, int(row)) for row in mine]

    def __len__(self) -> int:
        return self.batches - self.first


class TrainingBatches:
    """The training fold as augmented, shuffled batches for one of several processes.

    An epoch has `steps` optimizer steps of `accumulate` batches each; all processes have equally many.
    """

    def __init__(
        self,
        squares: Squares,
        labels: np.ndarray,
        rows: np.ndarray,
        preprocessing: Preprocessing,
        augmentation: Augmentation,
        *,
        seed: int,
        batch_size: int,
        accumulate: int,
        process: int,
        processes: int,
        workers: int,
    ) -> None:
        self._slices: Dataset[tuple[torch.Tensor, int]]
        self._slices = _TrainingSlices(squares, labels, rows, preprocessing, augmentation, seed)
        self.rows, self._seed, self._workers = rows, seed, workers
        self._batch_size, self._process, self._processes = batch_size, process, processes
        self._accumulate = accumulate
        # A fold smaller than one batch is one batch; otherwise the ragged rest waits for another epoch's order.
        self.steps = max(1, len(rows) // (batch_size * processes)) // accumulate
        if self.steps == 0 or len(rows) < processes:
            raise UsageError(
                f"One step takes {batch_size} x {accumulate} x {processes} slices (batch size, accumulation, "
                f"processes), the training fold has {len(rows)}. Fix: a smaller --batch-size or --accumulate."
            )

    def take_from(self, slices: Dataset[tuple[torch.Tensor, int]]) -> None:
        """Read (epoch, row) from `slices` in this process, instead of augmenting them in the loader's."""
        self._slices, self._workers = slices, 0

    def epoch(self, epoch: int, first_step: int = 0) -> DataLoader[tuple[torch.Tensor, int]]:
        """Batches of (N, 3, size, size) float32 and (N,) int64 from optimizer step `first_step` of this epoch on."""
        sampler = _EpochSampler(
            rows=self.rows,
            seed=self._seed,
            epoch=epoch,
            first=first_step * self._accumulate,
            batches=self.steps * self._accumulate,
            batch_size=self._batch_size,
            process=self._process,
            processes=self._processes,
        )
        return DataLoader(
            self._slices, batch_sampler=sampler, num_workers=self._workers, pin_memory=torch.cuda.is_available()
        )
