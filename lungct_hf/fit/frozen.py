"""The fast mode: the stem and the first stages stay as they are, so what they give is computed once and kept.

An epoch then runs only the rest of the network. The price: those stages do not adapt to CT, and augmentation is a
fixed number of variants of each slice instead of a new one in every epoch.
"""

from __future__ import annotations

import hashlib
import math
import sys
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from torch.utils.data import Dataset
from tqdm import tqdm

from ..errors import UsageError
from ..model.network import classes_of, stages_of
from .augment import Augmentation, with_levels_of
from .batches import TrainingBatches, other_row, random_stream
from .data import Slices
from .inference import predict_rows
from .options import Options
from .recipe import Recipe

_BATCH = 32
_NORM_SLICES, _NORM_BATCH = 512, 64
_MOST_BYTES = 8 << 30


def check_stages(recipe: Recipe) -> None:
    """Raises UsageError when the network has not so many stages as are to be frozen; before any data is read."""
    count = stages_of(recipe.architecture)
    if recipe.freeze_stages > count:
        raise UsageError(
            f"--freeze-stages {recipe.freeze_stages}: {recipe.architecture} has {count} stages. Fix: at most {count}."
        )


def front_modules(network: nn.Module, stages: int) -> list[nn.Module]:
    """The stem and the first `stages` stages of a MobileNetV2, none for 0."""
    if not stages:
        return []
    blocks: nn.Sequential = network.blocks  # type: ignore[assignment]
    return [network.conv_stem, network.bn1, *blocks[:stages]]


def freeze(network: nn.Module, stages: int) -> set[nn.Parameter]:
    """Switch the gradients of the front off; its parameters."""
    frozen = {parameter for module in front_modules(network, stages) for parameter in module.parameters()}
    for parameter in frozen:
        parameter.requires_grad_(False)
    return frozen


@torch.no_grad()
def adapt_norm(network: nn.Module, slices: Slices, rows: np.ndarray, seed: int) -> None:
    """Measure every batch norm's statistics anew on up to 512 of the slices `rows`: CT differs from photographs.

    Labels are not looked at. The network must be on the CPU; it is left in evaluation mode.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    network.train()
    chosen = random_stream(seed, 4).permutation(rows)[:_NORM_SLICES]
    for part in np.array_split(chosen, math.ceil(len(chosen) / _NORM_BATCH)):
        squares = np.stack([slices.squares[int(row)] for row in part])
        network(
            torch.from_numpy(slices.preprocessing.normalise(squares)).contiguous(memory_format=torch.channels_last)
        )
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


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
    """float16 features of the frozen front: of every slice as it is, and of `variants` augmented versions of it.

    They depend on the slices, the front and the seed, not on a fold, so the folds of a cross-validation share them.
    A variant may have the histogram of any other slice; `usable` says which were made from nothing but a fold's.
    Raises UsageError when they would not fit into _MOST_BYTES.
    """

    def __init__(self, network: nn.Module, slices: Slices, recipe: Recipe, seed: int) -> None:
        self._slices, self._recipe, self._seed = slices, recipe, seed
        self._front = nn.Sequential(*front_modules(network, recipe.freeze_stages))
        self._augmentation = Augmentation(recipe, slices.preprocessing.fill)
        self.made_for = self.key(network, recipe, seed)
        self._kept = self._compute(next(network.parameters()).device)

    @staticmethod
    def key(network: nn.Module, recipe: Recipe, seed: int) -> str:
        """What the features depend on besides the slices."""
        digest = hashlib.sha256(f"{seed} {recipe}".encode())
        for module in front_modules(network, recipe.freeze_stages):
            for value in module.state_dict().values():
                digest.update(value.cpu().numpy().tobytes())
        return digest.hexdigest()

    def __getitem__(self, key: tuple[int, int]) -> torch.Tensor:
        """Features (C, H, W) float32 of a row; variant 0 is the slice as it is."""
        row, variant = key
        return self._kept[variant, row].float()

    def usable(self, row: int, known: np.ndarray) -> list[int]:
        """The variants of a row that took no histogram from a slice outside the mask `known` (slices,)."""
        lenders = ((variant, self._lender(row, variant)) for variant in range(1, self._recipe.variants + 1))
        return [0, *(variant for variant, lender in lenders if lender is None or known[lender])]

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
        logits = np.full((len(rows), classes_of(network)), np.nan, np.float32)
        for where, values in gather_object(parts):
            logits[where] = values
        return logits

    def _lender(self, row: int, variant: int) -> int | None:
        every = np.arange(len(self._slices.squares))
        return other_row(every, self._recipe.other_histogram, self._seed, 3, variant, row)

    def _square(self, row: int, variant: int) -> np.ndarray:
        square = self._slices.squares[row]
        if not variant:
            return square
        if (lender := self._lender(row, variant)) is not None:
            square = with_levels_of(square, self._slices.squares[lender], self._augmentation.fill)
        return self._augmentation(square, random_stream(self._seed, 3, variant, row))

    @torch.no_grad()
    def _compute(self, device: torch.device) -> torch.Tensor:
        """float16 (variants + 1, slices, C, H, W). Always in the same batches, so that the bits are the same."""
        self._front.eval()
        count, versions = len(self._slices.squares), self._recipe.variants + 1
        kept = torch.empty(0)
        starts = [(variant, start) for variant in range(versions) for start in range(0, count, _BATCH)]
        every = 0.5 if sys.stderr.isatty() else 10  # seconds; a log file gets few lines
        for variant, start in tqdm(starts, "frozen stages", delay=2, mininterval=every, leave=False):
            squares = np.stack([self._square(row, variant) for row in range(start, min(start + _BATCH, count))])
            batch = torch.from_numpy(self._slices.preprocessing.normalise(squares))
            made = self._front(batch.to(device, memory_format=torch.channels_last)).half().cpu()
            if not kept.numel():
                shape = (versions, count, *made.shape[1:])
                if (needed := 2 * math.prod(shape)) > _MOST_BYTES:
                    raise UsageError(
                        f"The output of {self._recipe.freeze_stages} frozen stages would take {needed / 2**30:.1f} "
                        f"GiB for {count} slices and {versions - 1} variants (limit {_MOST_BYTES / 2**30:.0f} GiB). "
                        "Fix: fewer --variants, more --freeze-stages, or --freeze-stages 0."
                    )
                kept = torch.empty(shape, dtype=torch.float16)
            kept[variant, start : start + len(made)] = made
        return kept


@dataclass(frozen=True)
class FeatureSlices(Dataset[tuple[torch.Tensor, int]]):
    """In place of augmented slices: one of the stored variants, drawn anew for every epoch and row.

    `known` (slices,) is True for the training fold: from no other slice a variant may have its histogram.
    """

    features: FrontFeatures
    labels: np.ndarray
    known: np.ndarray
    seed: int

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, int]:
        epoch, row = key
        usable = self.features.usable(row, self.known)
        variant = usable[int(random_stream(self.seed, 1, epoch, row).integers(len(usable)))]
        return self.features[row, variant], int(self.labels[row])


def keep_front(
    network: nn.Module,
    slices: Slices,
    options: Options,
    batches: TrainingBatches,
) -> FrontFeatures | None:
    """Where the recipe freezes stages: what they give, which the batches then take; else None.

    It is kept beside the slices, for the next fold that starts from the same weights and seed.
    """
    recipe = options.recipe
    if not recipe.freeze_stages:
        return None
    features = slices.front.get("features")
    if features is None or features.made_for != FrontFeatures.key(network, recipe, options.seed):
        slices.front.clear()  # two sets of them might not fit into memory
        features = slices.front["features"] = FrontFeatures(network, slices, recipe, options.seed)
    known = np.zeros(len(slices.cohort), bool)
    known[batches.rows] = True
    batches.take_from(FeatureSlices(features, slices.cohort.labels, known, options.seed))
    return features


def predict_validation(
    network: nn.Module, slices: Slices, features: FrontFeatures | None, rows: np.ndarray, accelerator: Accelerator
) -> np.ndarray:
    """Logits (len(rows), 3), from stored features where there are any."""
    if features is not None:
        return features.predict(network, rows, accelerator)
    return predict_rows(network, slices.squares, rows, slices.preprocessing, accelerator)
