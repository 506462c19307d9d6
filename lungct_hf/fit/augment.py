"""CT-safe augmentation: what another patient position or scanner could have made of the same slice."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .recipe import Recipe


@dataclass(frozen=True)
class Augmentation:
    """Small shift, scale, rotation, brightness and contrast; mirroring only where the recipe declares it."""

    recipe: Recipe
    fill: tuple[int, int, int]

    def __call__(self, square: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 (size, size, 3) to another one; all randomness comes from `rng`."""
        recipe, side = self.recipe, square.shape[0]
        # All draws happen in every call, so that one switched-off part does not move the others.
        angle, zoom, right, down, light, gain, mirror, tilt = rng.uniform(-1, 1, 8)
        moved = self._affine(
            square,
            angle=math.radians(recipe.rotate * angle),
            zoom=1 + recipe.scale * zoom,
            shift=(recipe.shift * side * right, recipe.shift * side * down),
        )
        grey = moved.astype(np.float32)
        grey = (grey - 127.5) * (1 + recipe.contrast * gain) + 127.5 + 255 * recipe.brightness * light
        moved = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
        if recipe.hflip and mirror > 0:
            moved = moved[:, ::-1]
        if recipe.vflip and tilt > 0:
            moved = moved[::-1]
        return moved

    def _affine(self, square: np.ndarray, *, angle: float, zoom: float, shift: tuple[float, float]) -> np.ndarray:
        centre = (square.shape[0] - 1) / 2
        cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
        # PIL wants the map from output to input: undo the shift, then rotate and scale about the centre.
        x0, y0 = centre + shift[0], centre + shift[1]
        matrix = (cos, sin, centre - cos * x0 - sin * y0, -sin, cos, centre + sin * x0 - cos * y0)
        size = (square.shape[1], square.shape[0])
        image = Image.fromarray(square).transform(
            size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=self.fill
        )
        return np.asarray(image)
