"""Picture sizes per class: a squash to a square turns an aspect ratio that only one class has into a label."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from .slices import Slices


def geometry(slices: Slices) -> dict[str, dict[str, Any]]:
    """Per class: the sizes with their counts (the ten most frequent), how many are not square, aspect ratios."""
    out: dict[str, dict[str, Any]] = {}
    for label, name in enumerate(slices.classes):
        sizes = slices.sizes[slices.rows(label)]
        aspect = sizes[:, 0] / sizes[:, 1]
        counted = sorted(Counter(map(tuple, sizes.tolist())).items(), key=lambda item: (-item[1], item[0]))
        out[name] = {
            "sizes": {f"{width}x{height}": count for (width, height), count in counted[:10]},
            "different_sizes": len(counted),
            "not_square": int((aspect != 1).sum()),
            "aspect": [round(float(value), 4) for value in np.percentile(aspect, [0, 50, 100])],
        }
    return out


def features(slices: Slices) -> np.ndarray:
    """float64 (N, 4): width, height, aspect ratio, area: all that a probe without pixels may see."""
    width, height = slices.sizes[:, 0].astype(np.float64), slices.sizes[:, 1].astype(np.float64)
    return np.stack([width, height, width / height, width * height], axis=1)


def not_square(slices: Slices) -> tuple[np.ndarray, int, float]:
    """The rows that are not square, the class most of them have, and the chance that this class has so many of them.

    The chance is the hypergeometric tail: as many or more of the class when that many slices are drawn at random.
    """
    from scipy.stats import hypergeom

    rows = np.flatnonzero(slices.sizes[:, 0] != slices.sizes[:, 1])
    counts = np.bincount(slices.labels[rows], minlength=len(slices.classes))
    label = int(counts.argmax())
    of_class = len(slices.rows(label))
    return rows, label, float(hypergeom.sf(counts[label] - 1, len(slices), of_class, len(rows))) if len(rows) else 1.0
