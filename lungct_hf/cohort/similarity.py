"""How alike slices are: correlations of thumbnails and distances of perceptual hashes, block by block."""

from __future__ import annotations

import numpy as np

BLOCK = 1024  # rows of a matrix of similarities held at once: 4 MB a block, whatever the number of slices
HASH_BITS = 256


def unit_rows(thumbs: np.ndarray) -> np.ndarray:
    """float32 (N, pixels) of zero mean and unit norm: a dot product is a correlation; flat pictures are zero."""
    rows = thumbs.reshape(len(thumbs), -1).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norm, out=rows, where=norm > 0)


def mirrored(rows: np.ndarray, side: int) -> np.ndarray:
    """The same rows as if every picture, `side` pixels wide, had been flipped left to right."""
    return np.ascontiguousarray(rows.reshape(len(rows), -1, side)[:, :, ::-1]).reshape(rows.shape)


def perceptual_signs(thumbs: np.ndarray) -> np.ndarray:
    """The perceptual hash of each thumbnail as float32 (N, bits) of -1 and +1; flat pictures are zero.

    pHash (Zauner, 2010): which of the 16 x 16 lowest frequencies of the cosine transform are above their median. Only
    1 % of the bits differ from those of the imagehash package, which scales to 64 pixels with another filter.
    """
    from scipy.fft import dctn

    side = min(16, *thumbs.shape[1:])
    signs = np.empty((len(thumbs), side * side), np.float32)
    for start in range(0, len(thumbs), BLOCK):
        block = thumbs[start : start + BLOCK].astype(np.float32)
        low = dctn(block, axes=(1, 2))[:, :side, :side].reshape(len(block), -1)
        flat = np.ptp(block.reshape(len(block), -1), axis=1) == 0
        signs[start : start + BLOCK] = np.where(low > np.median(low, axis=1, keepdims=True), 1, -1)
        signs[start : start + BLOCK][flat] = 0
    return signs


def hash_distance(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """float32 (n, m): on how many of 256 bits the hashes differ; 128 where one of two pictures is flat."""
    return (1 - left @ right.T / left.shape[1]) * (HASH_BITS / 2)


def closest(thumbs: np.ndarray, rows: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each slice of `rows` the highest correlation (float32) with a slice of `others`, and which one that is.

    Args:
        thumbs: uint8 (N, H, W).
        rows, others: row numbers; the result has one entry per entry of `rows`.
    """
    wanted = unit_rows(thumbs[others])
    best, which = np.full(len(rows), -1, np.float32), np.zeros(len(rows), np.int64)
    for start in range(0, len(rows), BLOCK):
        block = unit_rows(thumbs[rows[start : start + BLOCK]])
        here = slice(start, start + len(block))
        for other in range(0, len(wanted), BLOCK):
            correlation = block @ wanted[other : other + BLOCK].T
            place = correlation.argmax(axis=1)
            value = correlation[np.arange(len(block)), place]
            nearer = value > best[here]
            best[here][nearer] = value[nearer]
            which[here][nearer] = others[other + place[nearer]]
    return best, which
