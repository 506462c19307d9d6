"""The fast mode: the stem and the first stages stay as they are, so what they give is computed once and kept.

An epoch then runs only the rest of the network. The price: those stages do not adapt to CT, and augmentation is a
fixed number of variants of each slice instead of a new one in every epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from torch.utils.data import Dataset
from tqdm import tqdm

from ..errors import UsageError
from ..labels import LABELS
from .augment import Augmentation
from .batches import TrainingBatches, random_stream
from .data import Slices
from .inference import predict_rows
from .options import Options
from .recipe import Recipe

_BATCH = 32


def front_modules(network: nn.Module, stages: int) -> list[nn.Module]:
    """The stem and the first `stages` stages of a MobileNetV2, none for 0; UsageError when it has not so many."""
    if not stages:
        return []
    blocks: nn.Sequential = network.blocks  # type: ignore[assignment]
    if stages > len(blocks):
        raise UsageError(f"--freeze-stages {stages}: the network has {len(blocks)} stages. Fix: at most that many.")
    return [network.conv_stem, network.bn1, *blocks[:stages]]


def freeze(network: nn.Module, stages: int) -> set[nn.Parameter]:
    """Switch the gradients of the front off; its parameters."""
    frozen = {parameter for module in front_modules(network, stages) for parameter in module.parameters()}
    for parameter in frozen:
        parameter.requires_grad_(False)
    return frozen


class Rest(nn.Module):
    """What comes behind the frozen front: features of the front to logits. It holds the whole network."""

    def __init__(self, network: nn.Module, stages: int) -> None:
        super().__init__()
        self.network, self._stages = network, stages

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, 3)."""
        network = self.network
        for block in network.blocks[self._stages :]:  # type: ignore[index]
            features = block(features)
        return network.forward_head(network.bn2(network.conv_head(features)))  # type: ignore[operator]


class FrontFeatures:
    """float16 features of the frozen front: of every row as it is, and of `variants` augmented versions of some."""

    def __init__(
        self,
        network: nn.Module,
        slices: Slices,
        recipe: Recipe,
        *,
        train: np.ndarray,
        validation: np.ndarray,
        seed: int,
    ) -> None:
        self._network, self._slices, self._recipe, self._seed = network, slices, recipe, seed
        self._front = nn.Sequential(*front_modules(network, recipe.freeze_stages))
        self._augmentation = Augmentation(recipe, slices.preprocessing.fill)
        jobs = [(int(row), 0) for row in np.concatenate([train, validation])]
        jobs += [(int(row), variant) for variant in range(1, recipe.variants + 1) for row in train]
        self._of = {job: number for number, job in enumerate(jobs)}
        self._kept = self._compute(jobs)

    def __getitem__(self, key: tuple[int, int]) -> torch.Tensor:
        """Features (C, H, W) float32 of a row; variant 0 is the slice as it is."""
        return self._kept[self._of[key]].float()

    @torch.no_grad()
    def predict(self, network: nn.Module, rows: np.ndarray, accelerator: Accelerator) -> np.ndarray:
        """float32 logits (len(rows), 3) of `network`, which shares the front, for rows as they are."""
        was_training = network.training
        rest = Rest(network, self._recipe.freeze_stages).eval()
        mine = np.arange(len(rows))[accelerator.process_index :: accelerator.num_processes]
        parts = []
        for start in range(0, len(mine), _BATCH):
            places = mine[start : start + _BATCH]
            batch = torch.stack([self[int(rows[place]), 0] for place in places])
            batch = batch.to(accelerator.device, memory_format=torch.channels_last)
            parts.append((places, rest(batch).float().cpu().numpy()))
        network.train(was_training)
        logits = np.full((len(rows), len(LABELS)), np.nan, np.float32)
        for where, values in gather_object(parts):
            logits[where] = values
        return logits

    def _square(self, row: int, variant: int) -> np.ndarray:
        square = self._slices.squares[row]
        return self._augmentation(square, random_stream(self._seed, 3, variant, row)) if variant else square

    @torch.no_grad()
    def _compute(self, jobs: list[tuple[int, int]]) -> torch.Tensor:
        self._front.eval()
        device = next(self._network.parameters()).device
        kept = torch.empty(0)
        for start in tqdm(range(0, len(jobs), _BATCH), "frozen stages", delay=2, leave=False):
            squares = np.stack([self._square(*job) for job in jobs[start : start + _BATCH]])
            batch = torch.from_numpy(self._slices.preprocessing.normalise(squares))
            made = self._front(batch.to(device, memory_format=torch.channels_last)).half().cpu()
            if not start:
                kept = torch.empty((len(jobs), *made.shape[1:]), dtype=torch.float16)
            kept[start : start + len(made)] = made
        return kept


@dataclass(frozen=True)
class FeatureSlices(Dataset[tuple[torch.Tensor, int]]):
    """In place of augmented slices: one of the stored variants, drawn anew for every epoch and row."""

    features: FrontFeatures
    labels: np.ndarray
    variants: int
    seed: int

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, int]:
        epoch, row = key
        variant = int(random_stream(self.seed, 1, epoch, row).integers(self.variants + 1))
        return self.features[row, variant], int(self.labels[row])


def keep_front(
    network: nn.Module,
    slices: Slices,
    options: Options,
    batches: TrainingBatches,
    train: np.ndarray,
    validation: np.ndarray,
) -> FrontFeatures | None:
    """Where the recipe freezes stages: compute what they give and let the batches take it; else None."""
    recipe = options.recipe
    if not recipe.freeze_stages:
        return None
    features = FrontFeatures(network, slices, recipe, train=train, validation=validation, seed=options.seed)
    batches.take_from(FeatureSlices(features, slices.cohort.labels, recipe.variants, options.seed))
    return features


def predict_validation(
    network: nn.Module, slices: Slices, features: FrontFeatures | None, rows: np.ndarray, accelerator: Accelerator
) -> np.ndarray:
    """Logits (len(rows), 3), from stored features where there are any."""
    if features is not None:
        return features.predict(network, rows, accelerator)
    return predict_rows(network, slices.squares, rows, slices.preprocessing, accelerator)
