"""What is near what among many slices, without comparing each with each: an inverted-file index (faiss).

Up to COMPARED slices everything is compared, which is exact. Above, slices fall into cells and each is compared with
those of the cells nearest to it, so time grows little faster than the number of slices. What that misses is measured:
benchmarks/neighbours.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import require

COMPARED = 5000
_CELLS_LOOKED_INTO = 16
_ROUNDS = 10  # of k-means; the cells need not be good ones, only the same in every run
_QUERIES = 512  # rows asked for at once: what is found of them is held in memory
_KEPT = 16  # frequencies of a thumbnail in each direction that its short form keeps


def short_forms(unit: np.ndarray, side: int) -> np.ndarray:
    """float32 (N, 256): the lowest frequencies of unit rows of pictures that are `side` pixels wide.

    Being a part of an orthonormal transform, it never makes the distance of two rows larger: what is near stays near.
    """
    from scipy.fft import dctn

    low = dctn(unit.reshape(len(unit), -1, side), axes=(1, 2), norm="ortho")[:, :_KEPT, :_KEPT]
    return np.ascontiguousarray(low.reshape(len(unit), -1), np.float32)


class Nearest:
    """An index over `points` (float32 (N, D)), which it copies; N at least some hundreds."""

    def __init__(self, points: np.ndarray) -> None:
        require("faiss", "train")
        import faiss

        self._faiss: Any = faiss
        cells = max(1, min(round(4 * len(points) ** 0.5), len(points) // 40))  # faiss wants 39 points a cell
        self._index = faiss.IndexIVFFlat(faiss.IndexFlatL2(points.shape[1]), points.shape[1], cells)
        self._index.cp.niter = _ROUNDS
        self._index.train(points)
        self._index.add(points)

    def within(self, queries: np.ndarray, distance: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs (i, j) of row i of `queries` (M, D) and point j that are no further apart, in parts, ordered by i."""
        looked = self._faiss.SearchParametersIVF(nprobe=_CELLS_LOOKED_INTO)
        for start in range(0, len(queries), _QUERIES):
            block = np.ascontiguousarray(queries[start : start + _QUERIES])
            # A little further: float32 sums differ by their order.
            ends, _, found = self._index.range_search(block, distance**2 * (1 + 1e-4) + 1e-6, params=looked)
            yield start + np.searchsorted(ends, np.arange(len(found)), side="right") - 1, found

    def most_alike(self, queries: np.ndarray, count: int, allowed: np.ndarray) -> np.ndarray:
        """int64 (M, count): for each query the nearest points among those `allowed` (bool (N,)); -1 where none is."""
        chosen = self._faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        looked = self._faiss.SearchParametersIVF(nprobe=_CELLS_LOOKED_INTO, sel=chosen)
        return self._index.search(np.ascontiguousarray(queries), count, params=looked)[1]
