"""From a slice to the network's input: letterbox to a square, scale, normalise. One function for every runtime.

The steps are those that timm and transformers derive from the same `pretrained_cfg` (crop_mode "border", crop_pct
1.0), so a pipeline without this package computes the same tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..errors import LungCTError
from .grey import one_channel, three_channels

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Preprocessing:
    """What must happen to a slice before the network sees it.

    `size` is the side of the square input in pixels; `mean` and `std` are per channel on a 0..1 scale. The border that
    the letterbox adds is `mean`, which becomes zero after normalisation.
    """

    size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bilinear"

    @property
    def fill(self) -> tuple[int, int, int]:
        """The border colour, 0..255 per channel."""
        red, green, blue = (round(255 * value) for value in self.mean)
        return red, green, blue

    def letterbox(self, image: Image.Image) -> Image.Image:
        """Scale the longer side to `size`, keep the aspect ratio, centre on a square of the border colour."""
        width, height = image.size
        ratio = max(height / self.size, width / self.size)
        shape = max(1, round(width / ratio)), max(1, round(height / ratio))
        resampling = _RESAMPLING[self.interpolation]
        # Channels are resized one by one, so one of three equal ones is enough.
        plain = one_channel(image if image.mode in ("L", "RGB") else image.convert("RGB"))
        scaled = three_channels(plain.resize(shape, resampling))
        if scaled.size == (self.size, self.size):
            return scaled
        square = Image.new("RGB", (self.size, self.size), self.fill)
        square.paste(scaled, ((self.size - scaled.width) // 2, (self.size - scaled.height) // 2))
        return square

    def normalise(self, square: np.ndarray) -> np.ndarray:
        """uint8 (..., size, size, 3) to float32 (..., 3, size, size)."""
        normalised = np.empty((*square.shape[:-3], 3, *square.shape[-3:-1]), np.float32)
        for channel, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
            plane = normalised[..., channel, :, :]  # written in place: no float copy of the whole input
            np.divide(square[..., channel], np.float32(255), out=plane)
            np.subtract(plane, np.float32(mean), out=plane)
            np.divide(plane, np.float32(std), out=plane)
        return normalised

    def squares(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Slices (PIL) letterboxed: uint8 (N, size, size, 3)."""
        batch = np.empty((len(images), self.size, self.size, 3), np.uint8)
        for row, image in enumerate(images):
            batch[row] = np.asarray(self.letterbox(image))
        return batch

    def __call__(self, image: Image.Image) -> np.ndarray:
        """A slice (PIL) as float32 of shape (3, size, size)."""
        return self.normalise(np.asarray(self.letterbox(image)))

    def to_pretrained_cfg(self) -> dict[str, Any]:
        """The entries of config.json's `pretrained_cfg` from which timm and transformers build the same steps."""
        return {
            "input_size": [3, self.size, self.size],
            "fixed_input_size": False,
            "interpolation": self.interpolation,
            "crop_pct": 1.0,
            "crop_mode": "border",
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_pretrained_cfg(cls, cfg: Mapping[str, Any]) -> Preprocessing:
        """Read the steps back from config.json, refusing any that this package would not reproduce exactly."""
        expected = {"crop_pct": 1.0, "crop_mode": "border"}
        found = {key: cfg.get(key) for key in expected}
        if found != expected or cfg.get("interpolation") not in _RESAMPLING:
            raise LungCTError(
                f"config.json asks for preprocessing {found} with interpolation {cfg.get('interpolation')!r}; this "
                f"package reproduces only {expected} with {' or '.join(_RESAMPLING)}. Fix: load a model it wrote."
            )
        _, height, width = cfg["input_size"]
        if height != width:
            raise LungCTError(f"config.json asks for a {width} x {height} input; a square is needed.")
        mean, std = tuple(map(float, cfg["mean"])), tuple(map(float, cfg["std"]))
        return cls(size=int(height), mean=mean, std=std, interpolation=cfg["interpolation"])  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """A plain description for lungct.json."""
        return {
            "mode": "letterbox",
            "size": self.size,
            "fill": list(self.fill),
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
        }
