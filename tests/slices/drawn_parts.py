"""Pictures of other planes and other body parts than an axial chest, drawn in HU for the tests of the input checks."""

from __future__ import annotations

import numpy as np
from PIL import Image

AIR, FAT, MUSCLE, BRAIN, BONE = -1000.0, -100.0, 50.0, 35.0, 900.0


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j]
    return columns, rows


def ellipse(size: int, across: float, down: float, half_width: float, half_height: float) -> np.ndarray:
    x, y = _grid(size)
    return ((x - across) / half_width) ** 2 + ((y - down) / half_height) ** 2 < 1


def draw_head(seed: int, size: int = 256) -> np.ndarray:
    """Scalp, a skull all around, a brain with ventricles, air in the sinuses; shape (size, size), HU."""
    rng = np.random.default_rng(seed)
    wide, high = rng.uniform(0.3, 0.34), rng.uniform(0.39, 0.43)
    hu = np.full((size, size), AIR)
    for depth, value in ((0.0, FAT), (0.015, MUSCLE), (0.03, BONE), (0.06, BRAIN)):
        hu[ellipse(size, 0.5, 0.5, wide - depth, high - depth)] = value
    for side in (-1, 1):
        hu[ellipse(size, 0.5 + side * 0.04, 0.5, 0.02, 0.09)] = 5.0
        if seed % 2:
            hu[ellipse(size, 0.5 + side * 0.07, 0.2, 0.04, 0.05)] = AIR
    return hu + rng.normal(0, 12, hu.shape)


def draw_neck(seed: int, size: int = 256) -> np.ndarray:
    """Shoulders wider than the picture, a windpipe, and a blanket whose thin folds are darker than tissue; HU."""
    rng = np.random.default_rng(seed)
    x, y = _grid(size)
    hu = np.full((size, size), AIR)
    body = ellipse(size, 0.5, 0.72, 0.6, 0.15) | ellipse(size, 0.5, 0.6, 0.14, 0.14)
    folds = np.abs(np.sin(2 * np.pi * (9 * y + rng.uniform(0.5, 2) * np.sin(5 * x + seed)))) > 0.6
    hu[folds & ellipse(size, 0.5, 0.6, 0.45, rng.uniform(0.3, 0.4)) & (y < 0.7)] = -780.0
    hu[body] = MUSCLE
    hu[ellipse(size, 0.5, 0.76, 0.05, 0.05)] = BONE
    hu[ellipse(size, 0.5, 0.6, 0.018, 0.02)] = AIR
    return hu + rng.normal(0, 15, hu.shape)


def draw_abdomen(seed: int, size: int = 256) -> np.ndarray:
    """A belly with a spine and gas in its bowel; HU."""
    rng = np.random.default_rng(seed)
    hu = np.full((size, size), AIR)
    hu[ellipse(size, 0.5, 0.52, 0.43, 0.32)] = FAT
    hu[ellipse(size, 0.5, 0.52, 0.4, 0.29)] = MUSCLE
    hu[ellipse(size, 0.5, 0.7, 0.06, 0.06)] = BONE
    for _ in range(int(rng.integers(1, 4))):
        hu[ellipse(size, rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.45), rng.uniform(0.02, 0.04), 0.02)] = AIR
    return hu + rng.normal(0, 15, hu.shape)


def draw_frontal(seed: int, rows: int = 43, size: int = 256) -> np.ndarray:
    """Lungs on a diaphragm, cut so closely that the body fills the picture: `rows` thick slices, made square; HU."""
    rng = np.random.default_rng(seed)
    hu = np.full((size, size), MUSCLE)
    for side in (-1, 1):
        lung = ellipse(size, 0.5 + side * 0.23, 0.5, 0.18, 0.42)
        hu[lung & ~ellipse(size, 0.5 + side * 0.2, 1.0, 0.25, 0.2)] = -850.0
    hu[ellipse(size, 0.55, 0.6, 0.12, 0.2)] = MUSCLE
    thick = np.asarray(Image.fromarray(hu.astype(np.float32)).resize((size, rows), Image.Resampling.BOX))
    noisy = thick + rng.normal(0, 30, thick.shape).astype(np.float32)
    return np.asarray(Image.fromarray(noisy).resize((size, size), Image.Resampling.BICUBIC))
