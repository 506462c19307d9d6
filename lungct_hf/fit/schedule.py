"""The learning rate as a pure function of the step: nothing to store, nothing to get out of step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .recipe import Recipe


@dataclass(frozen=True)
class Schedule:
    """Constant head-first phase, then a linear warm-up and a cosine to zero for the whole network.

    `head_steps` of `steps` train the head alone at `head_lr`; `warmup` is the share of the rest in which the rate
    rises to `lr`.
    """

    steps: int
    head_steps: int
    lr: float
    head_lr: float
    warmup: float

    @classmethod
    def of(cls, recipe: Recipe, steps_per_epoch: int, epochs: int | None = None) -> Schedule:
        """The schedule that a recipe declares, over `epochs` instead of the recipe's where they are given."""
        epochs = epochs or recipe.epochs
        return cls(
            steps=epochs * steps_per_epoch,
            head_steps=min(recipe.head_epochs, epochs) * steps_per_epoch,
            lr=recipe.lr,
            head_lr=recipe.head_lr,
            warmup=recipe.warmup,
        )

    def __call__(self, step: int) -> float:
        """Learning rate of optimizer step `step` (0-based)."""
        if step < self.head_steps:
            return self.head_lr
        step, steps = step - self.head_steps, self.steps - self.head_steps
        rising = max(1, round(self.warmup * steps))
        if step < rising:
            return self.lr * (step + 1) / rising
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
