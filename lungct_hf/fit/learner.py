"""The learning state of a run: network, optimizer, moving average, best weights so far. All of it is checkpointed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from timm.optim import param_groups_weight_decay
from timm.utils import ModelEmaV3
from torch import nn
from torchvision.transforms.v2 import CutMix

from ..model.network import classes_of
from .batches import random_stream
from .frozen import Rest, freeze, front_modules
from .recipe import Recipe
from .schedule import Schedule


def class_weights(labels: np.ndarray, classes: int) -> torch.Tensor:
    """Inverse frequency of each class among `labels` (the training fold only), mean 1 over the slices."""
    counts = np.bincount(labels, minlength=classes)
    return torch.tensor(len(labels) / (classes * counts), dtype=torch.float32)


class Learner:
    """Takes optimizer steps; every random number it uses depends only on (seed, step, process)."""

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        accelerator: Accelerator,
        *,
        schedule: Schedule,
        loss_weights: torch.Tensor | None,
        seed: int,
    ) -> None:
        self._recipe, self._accelerator, self._schedule, self._seed = recipe, accelerator, schedule, seed
        self.step = 0  # optimizer steps done
        self.best: dict[str, Any] | None = None  # epoch, score, weights
        self.epochs_without_gain = 0
        self._frozen = freeze(network, recipe.freeze_stages)
        self._still = [module for front in front_modules(network, recipe.freeze_stages) for module in front.modules()]
        network = network.to(accelerator.device).to(memory_format=torch.channels_last)
        # Copied before `prepare` wraps its forward for mixed precision: the average is judged in full precision.
        self._average = ModelEmaV3(network, decay=recipe.ema_decay, use_warmup=True) if recipe.ema_decay else None
        optimizer = torch.optim.AdamW(param_groups_weight_decay(network, recipe.weight_decay), lr=recipe.lr)
        # The frozen part is not run while training: its output is what `add_batch` gets.
        trained = Rest(network, recipe.freeze_stages) if recipe.freeze_stages else network
        self._model, self._optimizer = accelerator.prepare(trained, optimizer)
        # Under its own names: a wrapper (several processes, torch.compile) has others, and shares its values.
        self.network: nn.Module = network
        weights = None if loss_weights is None else loss_weights.to(accelerator.device)
        self._loss = nn.CrossEntropyLoss(weights, label_smoothing=recipe.label_smoothing)
        self._cutmix = CutMix(alpha=recipe.cutmix, num_classes=classes_of(network)) if recipe.cutmix else None
        self._loss_sum = torch.zeros(())

    @property
    def averaged(self) -> nn.Module:
        """The network to judge and publish: the moving average, or the plain one where the recipe has none."""
        return self.network if self._average is None else self._average.module

    @property
    def has_stalled(self) -> bool:
        """Whether the validation score has not improved for as many epochs as the recipe is patient."""
        return 0 < self._recipe.patience <= self.epochs_without_gain

    def start_step(self) -> None:
        """Set mode, learning rate and random state for the coming optimizer step."""
        head_only = self.step < self._schedule.head_steps
        self._model.train()
        classifier = set(self.network.get_classifier().parameters())  # type: ignore[operator]
        for parameter in self.network.parameters():
            free = parameter not in self._frozen
            parameter.requires_grad_(free and (not head_only or parameter in classifier))
        # Frozen also means: running statistics stay as they are.
        for module in self.network.modules() if head_only or self._recipe.freeze_norm else self._still:
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        for group in self._optimizer.param_groups:
            group["lr"] = self._schedule(self.step)
        stream = random_stream(self._seed, 2, self.step, self._accelerator.process_index)
        torch.manual_seed(int(stream.integers(2**63 - 1)))
        self._loss_sum = torch.zeros((), device=self._accelerator.device)

    def add_batch(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        """Forward and backward of one batch; after `accumulate` of them the optimizer moves.

        Where the recipe says so, slices of the batch (with frozen stages: what these give) are pasted into each other.
        """
        inputs = inputs.to(self._accelerator.device, memory_format=torch.channels_last, non_blocking=True)
        labels = labels.to(self._accelerator.device, non_blocking=True)
        if self._cutmix is not None:
            inputs, labels = self._cutmix(inputs, labels)
        with self._accelerator.accumulate(self._model):
            with self._accelerator.autocast():
                loss = self._loss(self._model(inputs).float(), labels)
            self._accelerator.backward(loss)
            if self._accelerator.sync_gradients and self._recipe.grad_clip:
                self._accelerator.clip_grad_norm_(self._model.parameters(), self._recipe.grad_clip)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
        self._loss_sum += loss.detach()

    def end_step(self) -> float:
        """Move the average along; the step's mean loss (on this process)."""
        if self._average is not None:
            self._average.update(self.network, step=self.step)
        self.step += 1
        return float(self._loss_sum) / self._recipe.accumulate

    def share_average(self) -> None:
        """Give every process the main one's buffers: batch-norm statistics differ between processes while training."""
        if self._accelerator.num_processes > 1:
            for buffer in self.averaged.buffers():
                buffer.copy_(broadcast(buffer))

    def judge(self, epoch: int, score: tuple[float, ...]) -> bool:
        """Note the validation score (larger is better) of an epoch; whether it is the best so far."""
        if self.best is None or score > tuple(self.best["score"]):
            weights = {name: value.detach().cpu().clone() for name, value in self.averaged.state_dict().items()}
            self.best = {"epoch": epoch, "score": list(score), "weights": weights}
            self.epochs_without_gain = 0
            return True
        self.epochs_without_gain += 1
        return False

    def state(self) -> dict[str, Any]:
        """All that the next step depends on."""
        scaler = self._accelerator.scaler
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "best": self.best,
            "epochs_without_gain": self.epochs_without_gain,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state`, as if there had been no break."""
        self.step, self.best = state["step"], state["best"]
        if self.best is not None:
            self.best = self.best | {"weights": _unwrapped(self.best["weights"])}
        self.epochs_without_gain = state["epochs_without_gain"]
        self.network.load_state_dict(_unwrapped(state["network"]))
        self._optimizer.load_state_dict(state["optimizer"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        if self._accelerator.scaler is not None and state["scaler"] is not None:
            self._accelerator.scaler.load_state_dict(state["scaler"])


def _unwrapped(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights under the network's own names; earlier checkpoints of compiled runs have those of torch's wrapper."""
    return {name.removeprefix("_orig_mod."): value for name, value in weights.items()}
