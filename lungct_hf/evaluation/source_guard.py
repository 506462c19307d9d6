"""Fit the source guard (guard.py): how training slices look, and how far groups that no network learned from go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import UsageError
from ..guard import STAGE, Source, SourceDistance

# Of the held-out groups, each counting the same whatever its number of slices, this share of slices passes. Counted by
# slices, one person who was scanned in another way could open the guard for everything: on IQ-OTH/NCCD a single group
# of 28 slices moves the 97 % quantile from 1.8 to 4.1, beyond most slices of other hospitals.
KEPT = 0.98
_FEWEST = 8  # slices of a source, below which it has no scatter to measure by
_FLOOR = 1e-3  # a feature counts with at least this share of the largest scatter, or a dead one would decide alone


def fit_sources(features: np.ndarray, names: Sequence[str] | np.ndarray) -> SourceDistance:
    """Measure by the features (N, D) of the training slices at STAGE; `names` (N,) say which source each is of.

    The covariance is that of the standardised features, shrunk by Ledoit and Wolf's rule (2004), so that few slices
    with many features give one that can be inverted. Sources come in the order of their names.

    Raises UsageError where a source has fewer than 8 slices or a feature is not finite.
    """
    from sklearn.covariance import LedoitWolf

    features, found = np.asarray(features, np.float64), np.asarray(names, np.str_)
    if not np.isfinite(features).all():
        raise UsageError("The source guard needs finite features.")
    sources = []
    for name in sorted(set(found.tolist())):
        own = features[found == name]
        if len(own) < _FEWEST:
            raise UsageError(f"The source guard needs {_FEWEST} slices of each source; {name} has {len(own)}.")
        mean, scatter = own.mean(axis=0), own.std(axis=0)
        scale = np.maximum(scatter, _FLOOR * scatter.max())
        if not scatter.max() > 0:
            raise UsageError(f"The slices of {name} all look the same, so no distance can be measured.")
        precision = LedoitWolf(assume_centered=True).fit((own - mean) / scale).precision_
        whitening = np.linalg.cholesky(precision) / scale[:, None]
        # As stored, so that what is decided now is what is decided after reading.
        mean, whitening = (value.astype(np.float32).astype(np.float64) for value in (mean, whitening))
        sources.append(Source(name, len(own), mean, whitening))
    return SourceDistance(STAGE, tuple(sources))


def fit_limit(distances: np.ndarray, groups: np.ndarray) -> float:
    """The distance up to which held-out slices pass: their `distances` (N,) and `groups` (N,).

    The distances may come from several networks, each measured against its own training slices: they are in units of
    those slices' scatter. It is the KEPT quantile with every group counting the same, and never set by the farthest
    group alone.

    Raises UsageError for fewer than 3 groups or a distance that is not finite.
    """
    distances = np.asarray(distances, np.float64)
    names, place, count = np.unique(np.asarray(groups, np.str_), return_inverse=True, return_counts=True)
    if len(names) < 3 or not np.isfinite(distances).all():
        raise UsageError(f"The source guard needs finite distances of 3 held-out groups or more, got {len(names)}.")
    order = np.argsort(distances, kind="stable")
    passed = np.cumsum(1 / count[place[order]]) / len(names)
    share = min(KEPT, 1 - 1 / len(names))
    limit = float(distances[order][min(int(np.searchsorted(passed, share)), len(order) - 1)])
    return float(np.ceil(limit * 1e6) / 1e6)  # so that what just passed still passes
