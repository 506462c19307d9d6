"""What the input checks measure on a slice: body, air and enclosed dark regions, on a reduced picture; numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

SIDE = 128  # the longer side is reduced to at most this: 1 pixel is about 3 mm of a chest
_COLOURED = 24  # of 255 between the channels: JPEG leaves up to about 10 in grey pictures
_NEAR_AIR = 15  # grey levels above air that still are air: 88 HU, noise included
_TIGHT = 30  # grey levels around the median of tissue: 176 HU, from fat to muscle


@dataclass(frozen=True)
class Layout:
    """How dark and bright lie in a picture. Fractions are 0..1, greys 0..255.

    The picture is split at Otsu's threshold; dark regions that reach the border are outside, the rest is the body, and
    the dark regions it encloses are what may be lung.
    """

    spread: float  # between the 1st and the 99th percentile of grey
    tissue: float  # median grey of the bright part of the body
    tightness: float  # fraction of that part within `_TIGHT` of its median: tissue has few densities
    bone: float  # fraction of that part that is white
    air: float  # grey of the darkest part outside, or -1 where nothing is outside
    lung: float  # median grey of the enclosed dark regions, or -1
    lung_fraction: float  # of the body
    lung_black: float  # fraction of the enclosed dark regions that is black: bones of an inverted slice
    core_fraction: float  # of the body that is deep inside enclosed dark regions, so neither rim nor crevice
    core_black: float  # fraction of that core that is black
    core_aspect: float  # width by height of the core's bounding box
    haze: float  # fraction of the body halfway between dark and bright without being at an edge
    ends: float  # fraction of the top and the bottom row that is bright, the smaller of the two
    sides: float  # the same of the left and the right column, the greater of the two
    dark_border: float  # fraction of the border that is dark
    veil: float  # area outside that is dark but brighter than air, over the body's: lung that a close crop cut open


def colour_fraction(small: Image.Image) -> float:
    """Fraction of an RGB picture, reduced already, that is coloured."""
    pixels = np.asarray(small)
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    high, low = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    return float(np.mean(high - low > _COLOURED))


def reduced(picture: Image.Image, side: int) -> Image.Image:
    """The picture with whole blocks of pixels averaged until neither side is longer than `side`."""
    factor = -(-max(picture.size) // side)
    return picture.reduce(factor) if factor > 1 else picture


def small_grey(small: Image.Image) -> np.ndarray:
    """A reduced picture as grey, without the even bands that padding and letterboxes leave around it."""
    grey = np.asarray(small.convert("L"))
    for _ in range(2):
        flat = np.ptp(grey, axis=1) <= 3
        inside = np.flatnonzero(~flat)
        if inside.size:
            # A ragged reduction may leave one mixed row; it is part of the slice.
            grey = grey[inside[0] : inside[-1] + 1]
        grey = grey.T
    return np.ascontiguousarray(grey)


def layout(grey: np.ndarray, threshold: int | None = None) -> Layout:
    """Measure a grey picture of at most 254 pixels a side; `threshold` is the brightest dark level (Otsu's)."""
    dark = grey <= (otsu(grey) if threshold is None else threshold)
    border = np.zeros_like(dark)
    border[0] = border[-1] = border[:, 0] = border[:, -1] = True
    outside = flood(_seeds(grey, dark & border, float(dark[border].mean())), dark)
    body = ~outside
    enclosed, tissue = dark & body, grey[body & ~dark]
    area = max(int(body.sum()), 1)
    core = _eroded(_eroded(enclosed).T).T
    rows, columns = np.flatnonzero(core.any(1)), np.flatnonzero(core.any(0))
    air = _quantile(grey[outside], 0.2)
    middle = _quantile(tissue, 0.5)
    return Layout(
        spread=_quantile(grey, 0.99) - _quantile(grey, 0.01),
        tissue=middle,
        tightness=float(np.mean(np.abs(tissue.astype(np.int16) - int(middle)) <= _TIGHT)) if tissue.size else 0.0,
        bone=float(np.mean(tissue >= 250)) if tissue.size else 0.0,
        air=air,
        lung=_quantile(grey[enclosed], 0.5),
        lung_fraction=int(enclosed.sum()) / area,
        lung_black=float(np.mean(grey[enclosed] <= 20)) if enclosed.any() else 0.0,
        core_fraction=int(core.sum()) / area,
        core_black=float(np.mean(grey[core] <= 2)) if rows.size else 0.0,
        core_aspect=float(np.ptp(columns) + 1) / float(np.ptp(rows) + 1) if rows.size else 0.0,
        haze=_haze(grey, dark, body),
        ends=float(min(np.mean(~dark[0]), np.mean(~dark[-1]))),
        sides=float(max(np.mean(~dark[:, 0]), np.mean(~dark[:, -1]))),
        dark_border=float(dark[border].mean()),
        veil=int((outside & (grey > max(air, 40.0) + _NEAR_AIR)).sum()) / area,
    )


def _quantile(values: np.ndarray, share: float) -> float:
    """A quantile of grey levels by counting, several times as fast as by sorting; -1 of nothing."""
    if not values.size:
        return -1.0
    counts = np.bincount(values.ravel(), minlength=256).cumsum()
    return float(np.searchsorted(counts, share * counts[-1]))


def _eroded(mask: np.ndarray) -> np.ndarray:
    """The pixels whose two neighbours on either side along the last axis are set as well; none at the border."""
    inner = np.zeros_like(mask)
    inner[:, 2:-2] = mask[:, :-4] & mask[:, 1:-3] & mask[:, 2:-2] & mask[:, 3:-1] & mask[:, 4:]
    return inner


def _seeds(grey: np.ndarray, candidates: np.ndarray, dark_border: float) -> np.ndarray:
    """The border pixels from which outside is flooded.

    Where most of the border is dark, that is the air around a body, however bright noise or a window made it. Where
    little is, the picture is a close crop whose border cuts through lung, which is brighter than air.
    """
    if not candidates.any():
        return candidates
    air = _quantile(grey[candidates], 0.1) if dark_border >= 0.5 else 40.0
    return candidates & (grey <= air + _NEAR_AIR) if dark_border < 0.9 else candidates


def _haze(grey: np.ndarray, dark: np.ndarray, body: np.ndarray) -> float:
    enclosed = dark & body
    inner = enclosed if enclosed.sum() > 0.03 * body.sum() else dark
    if not inner.any() or not (~dark).any():
        return 1.0
    low, high = _quantile(grey[inner], 0.5), _quantile(grey[~dark], 0.5)
    step = high - low
    wide = grey.astype(np.int16)
    slope = np.abs(wide[1:-1, 2:] - wide[1:-1, :-2]) + np.abs(wide[2:, 1:-1] - wide[:-2, 1:-1])
    inside = grey[1:-1, 1:-1]
    between = (inside > low + 0.3 * step) & (inside < low + 0.7 * step) & (slope < 0.3 * step)
    return float((between & body[1:-1, 1:-1]).sum() / max(int(body.sum()), 1))


def otsu(grey: np.ndarray) -> int:
    """The grey level that best splits a picture in two (Otsu 1979): the greatest variance between the classes."""
    counts = np.bincount(grey.ravel(), minlength=256).astype(np.float64)
    below, mass = np.cumsum(counts), np.cumsum(counts * np.arange(256))
    weight = below * (below[-1] - below)
    variance = np.divide((mass[-1] * below / below[-1] - mass) ** 2, weight, out=np.zeros(256), where=weight > 0)
    return int(np.flatnonzero(variance == variance.max()).mean())


def flood(seeds: np.ndarray, passable: np.ndarray) -> np.ndarray:
    """All of `passable` that is connected (by sides) to `seeds`; arrays of at most 254 pixels a side.

    Each sweep runs along whole columns, then rows: a passable pixel is reached when, looking along its line, a reached
    pixel comes before a wall. Chests need about five sweeps.
    """
    reached, count = seeds & passable, -1
    walls = [_last_seen(np.ascontiguousarray(wall)) for wall in (~passable, ~passable.T)]
    while count != (count := int(np.count_nonzero(reached))):
        for before_wall, after_wall in walls:
            before, after = _last_seen(reached)
            reached = np.ascontiguousarray(((before > before_wall) | (after > after_wall)).T)
    return reached


def _last_seen(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel the row of the nearest set pixel above it and, counted from the bottom, below it."""
    rows = np.arange(1, len(mask) + 1, dtype=np.uint8)[:, None]
    return _running_max(mask * rows), _running_max(mask[::-1] * rows)[::-1]


def _running_max(values: np.ndarray) -> np.ndarray:
    """`np.maximum.accumulate` down the columns in log2(rows) whole-array steps, which takes a quarter of the time."""
    step = 1
    while step < len(values):
        values[step:] = np.maximum(values[step:], values[:-step])
        step *= 2
    return values
