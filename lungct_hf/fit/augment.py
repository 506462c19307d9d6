"""CT-safe augmentation: what another patient position, scanner or export could have made of the same slice."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..evaluation.neutral import equal_histogram, pooled_histogram
from .recipe import BEST_JPEG, Recipe

_AIR = 130  # grey values in the lung window: air about 41, the letterbox border 116, fat 194, muscle 218
_LEAST_BODY = 0.15  # of the square
_CRISP = 1.0  # sigma of the blur that an unsharp mask takes away, pixels
_KNOTS = 5  # points of the piecewise linear grey-value curve, its ends included


@dataclass(frozen=True)
class Augmentation:
    """Small shift, scale, rotation, brightness and contrast; mirroring only where the recipe declares it.

    Against shortcuts, off unless the recipe names them: a border of random grey (`border_fill`), the same around the
    body, where table and clothes are (`body_mask`), the picture cut or padded (`reframe`), and grey values and
    sharpness as other windows and exports would give them (`window_jitter`, `gamma`, `blur`, `sharpen`, `noise`,
    `jpeg`). The grey histogram of another slice (`other_histogram`) needs that slice: `with_levels_of`.
    """

    recipe: Recipe
    fill: tuple[int, int, int]

    def __call__(self, square: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 (size, size, 3) to another one; all randomness comes from `rng`."""
        recipe, side = self.recipe, square.shape[0]
        # All draws happen in every call, so that one switched-off part does not move the others. New ones come last.
        angle, zoom, right, down, light, gain, mirror, tilt = rng.uniform(-1, 1, 8)
        chance, shade, bend, softness, grain = rng.uniform(0, 1, 5)
        knots, seed = rng.uniform(-1, 1, _KNOTS), int(rng.integers(2**63))
        cover, around = rng.uniform(0, 1, 2)
        edges, (crispness, quality) = rng.uniform(-1, 1, 4), rng.uniform(0, 1, 2)

        fill = self.fill
        if cover < recipe.body_mask:
            fill = (round(255 * around),) * 3
            square = np.where(body(square)[..., None], square, np.uint8(fill[0]))
        if chance < recipe.border_fill:
            fill = (round(255 * shade),) * 3
            square = with_border(square, self.fill, fill)
        moved = self._affine(
            square,
            angle=math.radians(recipe.rotate * angle),
            zoom=1 + recipe.scale * zoom,
            shift=(recipe.shift * side * right, recipe.shift * side * down),
            fill=fill,
        )
        if recipe.reframe:
            moved = self._reframed(moved, recipe.reframe * edges, fill)
        grey: np.ndarray = moved.astype(np.float32)
        if recipe.window_jitter:
            grey = grey_curve(recipe.window_jitter * knots)[moved]
        if recipe.gamma:
            grey = 255 * (np.clip(grey, 0, 255) / 255) ** np.float32(math.exp(recipe.gamma * (2 * bend - 1)))
        grey = (grey - 127.5) * (1 + recipe.contrast * gain) + 127.5 + 255 * recipe.brightness * light
        if recipe.blur:
            grey = blurred(grey, recipe.blur * softness)
        if recipe.sharpen:
            grey = grey + np.float32(recipe.sharpen * crispness) * (grey - blurred(grey, _CRISP))
        if recipe.noise:  # the same in all three channels: a CT slice is grey
            field = np.random.Generator(np.random.PCG64(seed)).standard_normal((side, side, 1), np.float32)
            grey = grey + np.float32(255 * recipe.noise * grain) * field
        moved = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
        if recipe.jpeg:
            moved = recompressed(moved, recipe.jpeg + round(quality * (BEST_JPEG - recipe.jpeg)))
        if recipe.hflip and mirror > 0:
            moved = moved[:, ::-1]
        if recipe.vflip and tilt > 0:
            moved = moved[::-1]
        return moved

    def _reframed(self, square: np.ndarray, edges: np.ndarray, fill: tuple[int, ...]) -> np.ndarray:
        """`square` as if the picture's left, right, top and bottom edge had been padded (above 0) or cut (below 0) by
        these shares of the side before the letterbox: the longer side fills the square, the rest is `fill`."""
        side = square.shape[0]
        left, right, top, bottom = edges
        width, height = 1 + left + right, 1 + top + bottom
        zoom = 1 / max(width, height)
        shift = ((left - right) / 2 * side * zoom, (top - bottom) / 2 * side * zoom)
        made = self._affine(square, angle=0.0, zoom=zoom, shift=shift, fill=fill).copy()
        columns, rows = round(side * (1 - zoom * width) / 2), round(side * (1 - zoom * height) / 2)
        made[:rows], made[side - rows :] = fill, fill
        made[:, :columns], made[:, side - columns :] = fill, fill
        return made

    def _affine(
        self,
        square: np.ndarray,
        *,
        angle: float,
        zoom: float,
        shift: tuple[float, float],
        fill: tuple[int, ...] | None = None,
    ) -> np.ndarray:
        centre = (square.shape[0] - 1) / 2
        cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
        # PIL wants the map from output to input: undo the shift, then rotate and scale about the centre.
        x0, y0 = centre + shift[0], centre + shift[1]
        matrix = (cos, sin, centre - cos * x0 - sin * y0, -sin, cos, centre + sin * x0 - cos * y0)
        size = (square.shape[1], square.shape[0])
        image = Image.fromarray(square).transform(
            size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=fill or self.fill
        )
        return np.asarray(image)


def with_border(square: np.ndarray, old: tuple[int, ...], new: tuple[int, ...]) -> np.ndarray:
    """`square` with the border that the letterbox added in colour `new`: whole outer rows and columns of `old`."""
    is_old = (square == np.asarray(old, np.uint8)).all(axis=2)
    made = square.copy()
    for lines, view in ((is_old.all(axis=1), made), (is_old.all(axis=0), made.swapaxes(0, 1))):
        inside = np.flatnonzero(~lines)
        if len(inside):
            view[: inside[0]] = new
            view[inside[-1] + 1 :] = new
    return made


def with_levels_of(square: np.ndarray, other: np.ndarray, fill: tuple[int, int, int]) -> np.ndarray:
    """`square` with the grey histogram of the letterboxed slice `other`; its border stays as it is."""
    return equal_histogram(square, fill, pooled_histogram([other], fill))


def recompressed(square: np.ndarray, quality: int) -> np.ndarray:
    """`square` after a JPEG of this quality; colours at full resolution, so that a grey slice stays grey."""
    file = io.BytesIO()
    Image.fromarray(square).save(file, "JPEG", quality=quality, subsampling=0)
    return np.asarray(Image.open(file))


def body(square: np.ndarray) -> np.ndarray:
    """bool (H, W): the largest bright part of a slice in the lung window with its holes, the lungs, filled.

    Everything is body where the bright parts are too small to be one: then there is nothing to mask by.
    """
    from scipy import ndimage

    bright = ndimage.binary_opening(square[..., 1] > _AIR, iterations=2)  # the table touches the back in thin lines
    parts, count = ndimage.label(bright)
    if not count:
        return np.ones(bright.shape, bool)
    largest = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    filled = ndimage.binary_fill_holes(ndimage.binary_dilation(largest, iterations=2))
    return filled if filled.mean() > _LEAST_BODY else np.ones(bright.shape, bool)


def grey_curve(changes: np.ndarray) -> np.ndarray:
    """float32 (256,): a rising piecewise linear map of the grey values, as a change of window centre and width.

    `changes` moves equally spaced knots by these shares of the grey range; a knot never falls below the one before.
    """
    places = np.linspace(0, 255, len(changes))
    values = np.maximum.accumulate(places + 255 * np.asarray(changes))
    return np.interp(np.arange(256), places, np.clip(values, 0, 255)).astype(np.float32)


def blurred(grey: np.ndarray, sigma: float) -> np.ndarray:
    """float32 (H, W, 3) after a Gaussian of `sigma` pixels; the edge is repeated outwards."""
    if sigma < 0.1:  # the kernel would be a single pixel
        return grey
    reach = math.ceil(3 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    for axis in (0, 1):
        wide = np.pad(grey, [(reach, reach) if a == axis else (0, 0) for a in range(3)], mode="edge")
        length = grey.shape[axis]
        parts = (np.take(wide, range(i, i + length), axis) * weight for i, weight in enumerate(kernel))
        grey = np.asarray(np.sum(list(parts), axis=0), np.float32)
    return grey
