"""The source guard: were these slices made as those were that the model learned from?

A network's last layer is trained to forget everything but the class, so a slice from another scanner, window or
hospital looks there like one of its own. An inner stage still sees how a picture was made: the mean and the scatter
over the picture of each of its channels (D = twice as many numbers) tell other sources apart. The guard measures how
far these are from the training slices, source by source, and abstains beyond what held-out groups of the sources
themselves reach. Which stage, distance and threshold were tried is in docs/results.md.

`SourceGuard` is the block "guard" of lungct.json; only numpy, so that every runtime decides alike:

    {"stage": 3, "max_distance": 1.84, "expected_loss": 0.05, "fitted_on": {"groups": 124, "slices": 872},
     "sources": [{"name": "IQ-OTH/NCCD", "slices": 872, "mean": ARRAY, "whitening": ARRAY}]}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .arrays import packed, unpacked
from .errors import LungCTError, UsageError

UNLIKE_SOURCE = "unlike-training-source"


@dataclass(frozen=True, eq=False)
class Source:
    """One source of training slices: `mean` (D,) and `whitening` (D, D) of its features, and of how many slices."""

    name: str
    slices: int
    mean: np.ndarray
    whitening: np.ndarray

    def distance(self, features: np.ndarray) -> np.ndarray:
        """(N,) Mahalanobis distances of features (N, D), divided by the root of D: about 1 for the source's own."""
        return np.sqrt(np.mean(((features - self.mean) @ self.whitening) ** 2, axis=1))


@dataclass(frozen=True, eq=False)
class SourceGuard:
    """How slices of the training sources look at an inner stage, and how far from that an answer is still given.

    `stage` counts the network's stages from 1. `expected_loss` is the share of held-out slices of the sources
    themselves that are beyond `max_distance`, 0..1; `fitted_on` how many groups and slices those were.
    """

    stage: int
    sources: tuple[Source, ...]
    max_distance: float
    expected_loss: float
    fitted_on: Mapping[str, int] = field(default_factory=dict)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(N,) distances of features (N, D) from the nearest source; infinite where a feature is not finite.

        Raises UsageError for features of another width.
        """
        features = np.asarray(features, np.float64)
        width = len(self.sources[0].mean)
        if features.ndim != 2 or features.shape[1] != width:
            raise UsageError(f"Features of stage {self.stage} have the shape {features.shape}, needed: (N, {width}).")
        nearest = np.min([source.distance(features) for source in self.sources], axis=0)
        return np.where(np.isfinite(nearest), nearest, np.inf)

    def to_json(self) -> dict[str, Any]:
        """The block for lungct.json."""
        return {
            "stage": self.stage,
            "max_distance": self.max_distance,
            "expected_loss": self.expected_loss,
            "fitted_on": dict(self.fitted_on),
            "sources": [
                {"name": one.name, "slices": one.slices, "mean": packed(one.mean), "whitening": packed(one.whitening)}
                for one in self.sources
            ],
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> SourceGuard:
        """Read the block back. Raises LungCTError when it is incomplete or its arrays do not fit each other."""
        try:
            sources = tuple(
                Source(str(one["name"]), int(one["slices"]), unpacked(one["mean"]), unpacked(one["whitening"]))
                for one in record["sources"]
            )
            width, limit = len(sources[0].mean), float(record["max_distance"])
            if any(one.mean.shape != (width,) or one.whitening.shape != (width, width) for one in sources):
                raise ValueError("the arrays of the sources do not fit each other")
            if not limit > 0 or not np.isfinite(limit):
                raise ValueError(f"the distance is {limit}")
            return cls(int(record["stage"]), sources, limit, float(record["expected_loss"]), dict(record["fitted_on"]))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise LungCTError(
                f"The guard in lungct.json cannot be read ({error!r}). Fix: pip install --upgrade lungct-hf, or "
                "load a model that this package wrote."
            ) from error


def stage_statistics(maps: np.ndarray) -> np.ndarray:
    """The features that the guard looks at: mean and standard deviation over the places of each channel.

    `maps` (N, K, h, w) are an inner stage's output; gives (N, 2 K) in float32.
    """
    flat = np.asarray(maps, np.float32).reshape(*maps.shape[:2], -1)
    return np.concatenate([flat.mean(axis=2), flat.std(axis=2)], axis=1)
