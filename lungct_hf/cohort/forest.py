"""The strongest links that still join every group: one per slice, so that a manifest can show why."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

# From the plainest evidence to the weakest. A slice's reason is the first kind of link that ties it to its group.
KINDS = ("same-bytes", "one-scan", "thumbnail", "phash", "mirror", "backbone", "neighbour", "file-block")
_BITS = 256


class Forest:
    """A minimum spanning forest over `size` slices; links are added in parts and memory stays linear in `size`.

    A link's cost is its kind's place in `KINDS` plus what it lacks of being exact (0 up to 1).
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._links = np.empty((0, 2), np.int64)
        self._costs = np.empty(0)

    def add(self, kind: str, pairs: np.ndarray, loss: np.ndarray | float = 0.0) -> None:
        """Add links of one kind between the rows of `pairs` (n, 2; no pair twice).

        `loss` is 1 - similarity, or the share of bits that differ.
        """
        if not len(pairs):
            return
        # scipy takes a cost of 0 for no link; hence the 1.
        costs = 1 + KINDS.index(kind) + np.clip(np.broadcast_to(loss, len(pairs)).astype(float), 0, 0.999)
        # A block of near-copies has a million links; its own tree has few, and only those meet the rest.
        pairs, costs = _tree(np.sort(pairs, axis=1), costs, self.size)
        links, costs = np.concatenate([self._links, pairs]), np.concatenate([self._costs, costs])
        order = np.lexsort((costs, links[:, 1], links[:, 0]))
        links, costs = links[order], costs[order]
        first = np.r_[True, (links[1:] != links[:-1]).any(axis=1)]  # the cheapest of several links of one pair
        self._links, self._costs = _tree(links[first], costs[first], self.size)

    def roots(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each slice its group's first row, the row that its link leads to (-1: alone) and that link's cost.

        Along these links every slice is joined with its whole group; a first row names its strongest link.
        """
        around: dict[int, list[tuple[float, int]]] = defaultdict(list)
        for (i, j), cost in zip(self._links.tolist(), self._costs.tolist(), strict=True):
            around[i].append((cost, j))
            around[j].append((cost, i))
        root, partner, costs = np.arange(self.size), np.full(self.size, -1), np.zeros(self.size)
        seen = np.zeros(self.size, bool)
        for start in sorted(around):
            if seen[start]:
                continue
            costs[start], partner[start] = min(around[start])
            seen[start] = True
            waiting = [start]
            while waiting:
                here = waiting.pop()
                for cost, there in around[here]:
                    if not seen[there]:
                        seen[there], root[there], partner[there], costs[there] = True, start, here, cost
                        waiting.append(there)
        return root, partner, costs


def describe(cost: float, partner: str) -> str:
    """A link in words: "thumbnail 0.981 with X"."""
    kind, loss = KINDS[int(cost) - 1], cost % 1
    strength = "" if kind in ("same-bytes", "one-scan", "file-block") else f" {1 - loss:.3f}"
    strength = f" {round(loss * _BITS)}" if kind == "phash" else strength
    return f"{kind}{strength} with {partner}"


def _tree(links: np.ndarray, costs: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import minimum_spanning_tree

    tree = minimum_spanning_tree(coo_matrix((costs, (links[:, 0], links[:, 1])), shape=(size, size))).tocoo()
    return np.stack([tree.row, tree.col], axis=1).astype(np.int64), tree.data
