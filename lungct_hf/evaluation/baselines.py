"""What no learning at all scores: the figures every model must stand beside."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_BLOCK = 1024  # rows of the distance matrix held at once
RING = 10  # pixels of a 64-pixel thumbnail


def nearest_neighbour(train_views: np.ndarray, train_labels: np.ndarray, test_views: np.ndarray) -> np.ndarray:
    """Class numbers (M,) of each test slice's nearest training slice, Euclidean; a view of each, (N, ...)."""
    train = train_views.reshape(len(train_views), -1).astype(np.float32)
    squares = np.einsum("ij,ij->i", train, train)
    named = []
    for start in range(0, len(test_views), _BLOCK):
        block = test_views[start : start + _BLOCK]
        test = block.reshape(len(block), -1).astype(np.float32)
        # |a - b|^2 without |a|^2, which is the same for every candidate
        named.append(train_labels[np.argmin(squares - 2 * test @ train.T, axis=1)])
    return np.concatenate(named) if named else np.empty(0, np.int64)


def ring(thumbnails: np.ndarray, width: int = RING) -> np.ndarray:
    """Only the outer `width` pixels of thumbnails (N, H, W), as (N, pixels): table, arms and text, hardly any lung.

    What a nearest neighbour still gets right with it was not read from the lungs.
    """
    height, breadth = thumbnails.shape[1:]
    outside = np.ones((height, breadth), bool)
    outside[width : height - width, width : breadth - width] = False
    return thumbnails[:, outside]


def only_ring(square: np.ndarray, fill: tuple[int, int, int]) -> np.ndarray:
    """uint8 (H, W, 3) with all but the ring in the colour `fill`: what the model sees in its ring probe."""
    width = round(RING / 64 * square.shape[0])
    shown = square.copy()
    shown[width:-width, width:-width] = fill
    return shown


def grey_histogram(thumbnails: np.ndarray) -> np.ndarray:
    """float32 (N, 256): the square root of each grey level's share, so that distances are Hellinger's.

    Nothing of where anything is: what a nearest neighbour gets right with it was read from how the picture was made.
    """
    flat = thumbnails.reshape(len(thumbnails), -1)
    counts = np.stack([np.bincount(row, minlength=256) for row in flat]) if len(flat) else np.empty((0, 256))
    return np.sqrt(counts / max(1, flat.shape[1])).astype(np.float32)


# The columns of predictions.parquet and what their nearest neighbour looks at, from thumbnails (N, 64, 64).
VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "nearest_neighbour": lambda thumbnails: thumbnails,
    "ring_nearest_neighbour": ring,
    "histogram_nearest_neighbour": grey_histogram,
}
