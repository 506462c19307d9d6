"""The source guard: were these slices made as those were that the model learned from?

A network's last layer is trained to forget everything but the class, so a slice from another scanner, window or
hospital looks there like one of its own. An inner stage still sees how a picture was made: the mean and the scatter
over the picture of each of its channels (D = twice as many numbers) tell other sources apart. `SourceDistance`
measures how far these are from the training slices, source by source; the model abstains beyond what held-out groups
of the sources themselves reach (`AbstainRule.max_distance`). Which stage, distance and threshold were tried stands in
docs/results.md. Only numpy, so that every runtime decides alike.

In lungct.json it is the "distance" of the abstain rule:

    {"kind": "source-mahalanobis", "stage": 3,
     "sources": [{"name": "IQ-OTH/NCCD", "slices": 872, "mean": ARRAY, "whitening": ARRAY}]}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .arrays import packed, unpacked
from .errors import UsageError

UNLIKE_SOURCE = "unlike-training-source"
KIND = "source-mahalanobis"
STAGE = 3  # of the seven of a MobileNetV2: stages 2 to 4 tell sources apart, later ones tell classes


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
class SourceDistance:
    """How far slices are from the training sources at an inner stage of the network, counted from 1."""

    stage: int
    sources: tuple[Source, ...]
    reason: ClassVar[str] = UNLIKE_SOURCE
    output: ClassVar[str] = "source"  # of the network's outputs the one that is measured

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(N,) distances of features (N, D) from the nearest source; infinite where a feature is not finite.

        Raises UsageError for features of another width.
        """
        features = np.asarray(features, np.float64)
        width = len(self.sources[0].mean)
        if features.ndim != 2 or features.shape[1] != width:
            raise UsageError(f"Features of stage {self.stage} have the shape {features.shape}, needed: (N, {width}).")
        with np.errstate(invalid="ignore", over="ignore"):
            nearest = np.min([source.distance(features) for source in self.sources], axis=0)
        return np.where(np.isfinite(nearest), nearest, np.inf)

    def to_json(self) -> dict[str, Any]:
        """The block for lungct.json: 17 kB a source for MobileNetV2 1.0."""
        return {
            "kind": KIND,
            "stage": self.stage,
            "sources": [
                {"name": one.name, "slices": one.slices, "mean": packed(one.mean), "whitening": packed(one.whitening)}
                for one in self.sources
            ],
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> SourceDistance:
        """Read the block back. Raises KeyError, TypeError or ValueError where it is none."""
        sources = tuple(
            Source(str(one["name"]), int(one["slices"]), unpacked(one["mean"]), unpacked(one["whitening"]))
            for one in record["sources"]
        )
        width = len(sources[0].mean) if sources else 0
        if not width or any(one.mean.shape != (width,) or one.whitening.shape != (width, width) for one in sources):
            raise ValueError("the arrays of the sources do not fit each other")
        return cls(int(record["stage"]), sources)
