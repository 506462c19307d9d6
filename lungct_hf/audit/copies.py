"""Find duplicates and near-copies, and how alike consecutive files are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from ..cohort import nearest
from .likeness import coarse, likeness, spectra
from .slices import Slices

# A near-copy's likeness. On IQ-OTH/NCCD slices of two classes reach 0.64, manipulated copies 0.93 and more; between
# them lie the neighbours within one scan (median 0.89).
NEAR_COPY = 0.80
# Where pictures of different people are alike by nature (cropped, registered, drawn), the cut rises to 5 standard
# deviations above them (in Fisher's z), though not beyond what a brightened or shifted copy still reaches.
DEVIATIONS, HIGHEST_CUT = 5.0, 0.95
_CANDIDATES = 16  # most alike others per slice and relation that are looked at closely
_CANDIDATE = 0.6  # coarse correlation below which nobody is looked at; copies shifted by 1.5 % of the width keep 0.9
_CLONES = 48  # more duplicates of a picture than these may hide a near-copy from the index
_BLOCK = 512  # rows; a block of correlations with 20,000 slices is 40 MB
_SAMPLE = 10_000  # random pairs per kind


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows, most alike first; `mirrored` (bool) where one has to be flipped left to right to look like it."""

    i: np.ndarray
    j: np.ndarray
    likeness: np.ndarray
    mirrored: np.ndarray

    def __len__(self) -> int:
        return len(self.i)

    def where(self, keep: np.ndarray) -> Pairs:
        """The pairs for which `keep` is true."""
        return Pairs(self.i[keep], self.j[keep], self.likeness[keep], self.mirrored[keep])

    def rows(self) -> np.ndarray:
        """All rows that occur, once each, those of the most alike pairs first."""
        flat = np.stack([self.i, self.j], axis=1).ravel()
        _, first = np.unique(flat, return_index=True)
        return flat[np.sort(first)]


@dataclass(frozen=True, eq=False)
class Copies:
    """What was found. `near` leaves out identical pictures, and same-class pairs of one split within a named group.

    `same_pixels` lists the rows that share a decoded picture; `consecutive` are the pairs of files that follow each
    other by name, in that order; `samples` holds the likeness of random pairs ("one class", "two classes").
    """

    cut: float
    same_pixels: list[list[int]]
    near: Pairs
    consecutive: Pairs
    samples: dict[str, np.ndarray] = field(repr=False)


def find_copies(slices: Slices, seed: int, progress: bool) -> Copies:
    """Compare all slices with each other; where they are very many, with those that an index finds near."""
    spectrum = spectra(slices.fine)
    samples = _samples(slices, spectrum, seed)
    follow = _consecutive(slices)
    cut = _cut(slices, spectrum, seed)
    found = []
    for mirrored, candidates in zip((False, True), _candidates(slices, progress), strict=True):
        value = likeness(spectrum, *candidates, mirrored)
        found.append(Pairs(*candidates, value, np.full(len(value), mirrored)).where(value >= cut))
    return Copies(
        cut=cut,
        same_pixels=_sharing(slices.pixels),
        near=_merged(*found),
        consecutive=Pairs(*follow, likeness(spectrum, *follow), np.zeros(len(follow[0]), bool)),
        samples=samples,
    )


def _merged(straight: Pairs, mirrored: Pairs) -> Pairs:
    """Each pair once, as it is more alike."""
    i, j = np.r_[straight.i, mirrored.i], np.r_[straight.j, mirrored.j]
    value, flipped = np.r_[straight.likeness, mirrored.likeness], np.r_[straight.mirrored, mirrored.mirrored]
    order = np.lexsort((flipped, -value, j, i))
    again = np.r_[False, (np.diff(i[order]) == 0) & (np.diff(j[order]) == 0)][: len(order)]
    order = order[~again]
    order = order[np.lexsort((j[order], i[order], -value[order]))]
    return Pairs(i[order], j[order], value[order], flipped[order])


def _consecutive(slices: Slices) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows that follow each other by name within a class and split, and that nothing explains.

    Identical pictures, and slices of one group that the data themselves name, are no evidence and are left out.
    """
    order = slices.natural_order
    keys = [(slices.splits[i], slices.labels[i]) for i in order]
    places: dict[tuple[str, int], list[int]] = defaultdict(list)
    for row, key in zip(order.tolist(), keys, strict=True):
        places[key].append(row)
    left = np.asarray([row for rows in places.values() for row in rows[:-1]], dtype=np.int64)
    right = np.asarray([row for rows in places.values() for row in rows[1:]], dtype=np.int64)
    keep = ~_explained(slices, left, right)
    return left[keep], right[keep]


def _explained(slices: Slices, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    same = slices.picture_numbers[i] == slices.picture_numbers[j]
    return same | (slices.group_numbers[i] == slices.group_numbers[j]) if slices.groups_are_named else same


def _sharing(digests: np.ndarray) -> list[list[int]]:
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, digest in enumerate(digests.tolist()):
        rows_of[digest].append(row)
    return [rows for rows in rows_of.values() if len(rows) > 1]


def _samples(slices: Slices, spectrum: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    i, j = _random_pairs(len(slices), 4 * _SAMPLE, seed)
    fair = ~_explained(slices, i, j)
    one = fair & (slices.labels[i] == slices.labels[j])
    two = fair & (slices.labels[i] != slices.labels[j])
    return {
        "one class": likeness(spectrum, i[one][:_SAMPLE], j[one][:_SAMPLE]),
        "two classes": likeness(spectrum, i[two][:_SAMPLE], j[two][:_SAMPLE]),
    }


def _cut(slices: Slices, spectrum: np.ndarray, seed: int) -> float:
    """`NEAR_COPY`, or more where slices of different groups are that alike by nature."""
    i, j = _random_pairs(len(slices), _SAMPLE, seed + 1)
    strangers = slices.group_numbers[i] != slices.group_numbers[j]
    if strangers.sum() < 20:
        return NEAR_COPY
    z = np.arctanh(np.clip(likeness(spectrum, i[strangers], j[strangers]), -0.999, 0.999))
    middle, high = np.percentile(z, [50, 95])  # robust: a few copies among the strangers change neither
    return float(np.clip(np.tanh(middle + DEVIATIONS * (high - middle) / 1.645), NEAR_COPY, HIGHEST_CUT))


def _random_pairs(count: int, pairs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random pairs of different rows; all pairs, once each, where there are no more."""
    if count * (count - 1) // 2 <= pairs:
        return np.triu_indices(count, 1)
    rng = np.random.default_rng(seed)
    i = rng.integers(0, count, pairs)
    return i, (i + rng.integers(1, count, pairs)) % count


def _candidates(slices: Slices, progress: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each slice's most alike others by the coarse picture: in its class, in other classes, in other splits.

    Two sets of pairs: of the slices as they are, and with one of the two mirrored. Up to `nearest.COMPARED` slices are
    compared one by one, more are found by an index.
    """
    unit = coarse(slices.fine)
    several = len(set(slices.splits.tolist()) - {""}) > 1
    look = _compared if len(slices) <= nearest.COMPARED else _indexed
    return [_once(np.concatenate(pairs, axis=1), len(slices)) for pairs in look(slices, unit, several, progress)]


Found = tuple[list[np.ndarray], list[np.ndarray]]  # int64 (2, n) each; with one of the two mirrored


def _compared(slices: Slices, unit: np.ndarray, several: bool, progress: bool) -> Found:
    split_numbers = np.unique(slices.splits, return_inverse=True)[1].ravel()
    found: Found = ([], [])
    starts = range(0, len(slices), _BLOCK)
    for start in tqdm(starts, desc="Comparing slices", unit="block", delay=2, disable=not progress):
        rows = np.arange(start, min(start + _BLOCK, len(slices)))
        known = slices.picture_numbers[rows, None] == slices.picture_numbers[None, :]  # itself and duplicates
        same = slices.labels[rows, None] == slices.labels[None, :]
        within = same
        if slices.groups_are_named:
            within = same & (slices.group_numbers[rows, None] != slices.group_numbers[None, :])
        relations = [within, ~same]
        if several:
            relations.append(split_numbers[rows, None] != split_numbers[None, :])
        for seen, pairs in zip((unit[rows], coarse(slices.fine[rows][:, :, ::-1])), found, strict=True):
            alike = seen @ unit.T
            alike[known] = -1
            pairs += [_best(np.where(relation, alike, -1), rows) for relation in relations]
    return found


def _indexed(slices: Slices, unit: np.ndarray, several: bool, progress: bool) -> Found:
    side = round(unit.shape[1] ** 0.5)
    index = nearest.Nearest(nearest.short_forms(unit, side))
    clones = int(np.bincount(slices.picture_numbers).max())  # the picture itself and its duplicates are in the way
    found: Found = ([], [])
    searches = list(_searches(slices, several))
    for rows, allowed in tqdm(searches, desc="Comparing slices", unit="set", delay=2, disable=not progress):
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            for seen, pairs in zip((unit[block], coarse(slices.fine[block][:, :, ::-1])), found, strict=True):
                near = index.most_alike(nearest.short_forms(seen, side), _CANDIDATES + min(clones, _CLONES), allowed)
                alike = np.einsum("ik,ijk->ij", seen, unit[near])
                alike[near < 0] = -1
                alike[slices.picture_numbers[block, None] == slices.picture_numbers[near]] = -1
                which, columns = _best(alike, np.arange(len(block)))
                pairs.append(np.stack([block[which], near[which, columns]]))
    return found


def _searches(slices: Slices, several: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows, and among which slices (bool (N,)) their most alike others are looked for."""
    for label in range(len(slices.classes)):
        rows, same = slices.rows(label), slices.labels == label
        if slices.groups_are_named:
            numbers = slices.group_numbers[rows]
            for number in np.unique(numbers):
                yield rows[numbers == number], same & (slices.group_numbers != number)
        else:
            yield rows, same
        yield rows, ~same
    if several:
        for split in np.unique(slices.splits):
            yield np.flatnonzero(slices.splits == split), slices.splits != split


def _once(found: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows i and j of each pair once, whichever of the two found the other; `found` is int64 (2, n)."""
    pairs = np.unique(found.min(axis=0) * count + found.max(axis=0))
    return pairs // count, pairs % count


def _best(alike: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """int64 (2, n): for each row its `_CANDIDATES` best columns above `_CANDIDATE`."""
    count = min(_CANDIDATES, alike.shape[1])
    columns = np.argpartition(alike, -count, axis=1)[:, -count:]
    good = np.take_along_axis(alike, columns, axis=1) >= _CANDIDATE
    return np.stack([np.broadcast_to(rows[:, None], columns.shape)[good], columns[good]])
