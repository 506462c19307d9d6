"""What the input checks measure on a slice: body, air and enclosed dark regions, on a reduced picture; numpy only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

SIDE = 128  # the longer side is reduced to at most this: 1 pixel is about 3 mm of a chest
_COLOURED = 24  # of 255 between the channels: JPEG leaves up to about 10 in grey pictures
_NEAR_AIR = 15  # grey levels above air that still are air: 88 HU, noise included
_TIGHT = 30  # grey levels around the median of tissue: 176 HU, from fat to muscle
_OFF_BORDER, _FEW = 30, 0.05  # grey levels from the border, and the share of a row or column that has them
_LEVELS = np.arange(256)


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
    foot: float  # the brightest of the lowest three rows by the widest row of the body: 1 where that runs out below
    flanks: float  # fraction that is bright of the outer three columns on each side, the greatest
    dark_border: float  # fraction of the border that is dark
    filled: float  # fraction of the picture that is body
    sharpness: (
        float  # of the core's walls: the median step over three pixels, over that from dark to bright; 1 of none
    )
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
        # A ragged reduction may leave one mixed row; it is part of the slice.
        first = next((row for row in range(len(grey)) if not _is_even(grey[row])), None)
        if first is not None:
            last = next(row for row in range(len(grey) - 1, first - 1, -1) if not _is_even(grey[row]))
            grey = grey[first : last + 1]
        grey = grey.T
    return np.ascontiguousarray(grey)


def _is_even(row: np.ndarray) -> bool:
    return int(row.max()) - int(row.min()) <= 3


def layout(grey: np.ndarray, threshold: int | None = None) -> Layout:
    """Measure a grey picture; `threshold` is the brightest dark level (Otsu's)."""
    counts = _counts(grey)
    cut = _otsu(counts) if threshold is None else threshold
    dark = grey <= cut
    inner = dark[1:-1, 1:-1]
    dark_border = (_count(dark) - _count(inner)) / (dark.size - inner.size)
    outside = flood(_seeds(grey, dark, dark_border), dark)
    # Of each part only the counts of its grey levels are needed, and the parts add up to the picture.
    tissue, out = np.where(_LEVELS > cut, counts, 0), _counts(grey[outside])
    enclosed = counts - tissue - out
    in_tissue, in_lung = int(tissue.sum()), int(enclosed.sum())
    area = max(in_tissue + in_lung, 1)
    lungs = dark & ~outside
    inner_lungs = core(lungs)
    widths = np.count_nonzero(~dark, axis=1)
    rows, columns = np.flatnonzero(inner_lungs.any(1)), np.flatnonzero(inner_lungs.any(0))
    in_core = max(_count(inner_lungs), 1)
    middle, lung, air = _quantile(tissue, 0.5), _quantile(enclosed, 0.5), _quantile(out, 0.2)
    is_mostly_enclosed = in_lung > 0.03 * (in_tissue + in_lung)
    steps = _steps(grey)
    low = lung if is_mostly_enclosed else _quantile(counts - tissue, 0.5)
    tight = slice(max(int(middle) - _TIGHT, 0), int(middle) + _TIGHT + 1)
    return Layout(
        spread=_quantile(counts, 0.99) - _quantile(counts, 0.01),
        tissue=middle,
        tightness=int(tissue[tight].sum()) / in_tissue if in_tissue else 0.0,
        bone=int(tissue[250:].sum()) / max(in_tissue, 1),
        air=air,
        lung=lung,
        lung_fraction=in_lung / area,
        lung_black=int(enclosed[:21].sum()) / max(in_lung, 1),
        core_fraction=_count(inner_lungs) / area,
        core_black=_count(inner_lungs & (grey[2:-2, 2:-2] <= 2)) / in_core,
        core_aspect=_span(columns) / _span(rows) if rows.size else 0.0,
        haze=_hazy(grey, steps, outside, low, middle) / area if low >= 0 and middle >= 0 else 1.0,
        ends=min(_share(~dark[0]), _share(~dark[-1])),
        sides=max(_share(~dark[:, 0]), _share(~dark[:, -1])),
        foot=float(widths[-3:].max() / max(np.sort(widths)[int(0.95 * (len(widths) - 1))], 1)),
        flanks=float(max(np.count_nonzero(~edge, axis=0).max() for edge in (dark[:, :3], dark[:, -3:])) / len(dark)),
        dark_border=dark_border,
        filled=(in_tissue + in_lung) / grey.size,
        sharpness=_sharpness(steps, lungs, inner_lungs, dark) / (middle - lung) if rows.size else 1.0,
        veil=int(out[int(max(air, 40.0)) + _NEAR_AIR + 1 :].sum()) / area,
    )


def sides_over_middle(grey: np.ndarray) -> float:
    """How much brighter a picture is where a chest has its lungs than in its middle, where spine and heart are.

    In grey levels, -255..255: below 0 in nearly every chest, however it is windowed or cropped, and above 0 where
    black and white are swapped. What is as grey as the border is cut off first. 0 where too little is left.
    """
    grey = grey[::2, ::2]  # means need no more
    height, width = grey.shape
    border = int(_quantile(_counts(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])), 0.5))
    content = (grey > border + _OFF_BORDER) | (grey < border - _OFF_BORDER)
    rows = np.flatnonzero(np.count_nonzero(content, axis=1) > _FEW * width)
    columns = np.flatnonzero(np.count_nonzero(content, axis=0) > _FEW * height)
    if len(rows) < 8 or len(columns) < 8:
        return 0.0
    body = grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]

    height, width = body.shape

    def mean(left: float, right: float, top: float, bottom: float) -> float:
        return float(body[int(top * height) : int(bottom * height), int(left * width) : int(right * width)].mean())

    return (mean(0.18, 0.36, 0.3, 0.7) + mean(0.64, 0.82, 0.3, 0.7)) / 2 - mean(0.44, 0.56, 0.2, 0.85)


def _counts(grey: np.ndarray) -> np.ndarray:
    """How often each of the 256 grey levels occurs."""
    return np.bincount(grey.ravel(), minlength=256)


def _quantile(counts: np.ndarray, share: float) -> float:
    """A quantile of counted grey levels, several times as fast as by sorting; -1 of nothing."""
    below = counts.cumsum()
    return float(np.searchsorted(below, share * below[-1])) if below[-1] else -1.0


def _span(places: np.ndarray) -> int:
    return int(places[-1] - places[0]) + 1


def _count(mask: np.ndarray) -> int:
    return int(np.count_nonzero(mask))


def _share(mask: np.ndarray) -> float:
    return _count(mask) / mask.size


def core(mask: np.ndarray) -> np.ndarray:
    """The pixels in the middle of 5 x 5 that are all set; the two outermost on every side are cut off."""
    across = mask[:, :-4] & mask[:, 1:-3] & mask[:, 2:-2] & mask[:, 3:-1] & mask[:, 4:]
    return across[:-4] & across[1:-3] & across[2:-2] & across[3:-1] & across[4:]


def _seeds(grey: np.ndarray, dark: np.ndarray, dark_border: float) -> np.ndarray:
    """The dark pixels at the border from which outside is flooded.

    Where most of the border is dark, that is the air around a body, however bright noise or a window made it. Where
    little is, the picture is a close crop whose border cuts through lung, which is brighter than air.
    """
    seeds = dark.copy()
    seeds[1:-1, 1:-1] = False
    if dark_border >= 0.9 or not seeds.any():
        return seeds
    air = _quantile(_counts(grey[seeds]), 0.1) if dark_border >= 0.5 else 40.0
    return seeds & (grey <= air + _NEAR_AIR)


def _steps(grey: np.ndarray) -> np.ndarray:
    """The grey levels from a pixel's left to its right neighbour plus those from its upper to its lower one.

    The outermost pixels have none: the result is two rows and columns smaller.
    """
    across, down = _apart(grey[1:-1, 2:], grey[1:-1, :-2]), _apart(grey[2:, 1:-1], grey[:-2, 1:-1])
    return np.add(across, down, dtype=np.uint16)


def _sharpness(steps: np.ndarray, lungs: np.ndarray, core: np.ndarray, dark: np.ndarray) -> float:
    """The median step at the walls of the core: pixels of `lungs` beside a bright one, within 2 pixels of the core.

    A section has sharp walls, however cloudy what they enclose; in a projection everything fades into everything.
    """
    beside = ~(dark[:-2, 1:-1] & dark[2:, 1:-1] & dark[1:-1, :-2] & dark[1:-1, 2:])
    near = np.zeros(lungs.shape, bool)
    near[2:-2, 2:-2] = core
    for _ in range(2):
        near[1:-1] |= near[2:] | near[:-2]
        near[:, 1:-1] |= near[:, 2:] | near[:, :-2]
    walls = steps[lungs[1:-1, 1:-1] & beside & near[1:-1, 1:-1]]
    return _quantile(np.bincount(walls), 0.5) if walls.size else 0.0


def _hazy(grey: np.ndarray, steps: np.ndarray, outside: np.ndarray, low: float, high: float) -> int:
    """How many pixels of the body are halfway between `low` and `high` without being at an edge."""
    step = high - low
    inside = grey[1:-1, 1:-1]
    # Compared with whole numbers, bytes need not become floats.
    between = (inside > math.floor(low + 0.3 * step)) & (inside < math.ceil(low + 0.7 * step))
    between &= steps < math.ceil(0.3 * step)
    return _count(between & ~outside[1:-1, 1:-1])


def _apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.maximum(one, other) - np.minimum(one, other)


def otsu(grey: np.ndarray) -> int:
    """The grey level that best splits a picture in two (Otsu 1979): the greatest variance between the classes."""
    return _otsu(_counts(grey))


def _otsu(counts: np.ndarray) -> int:
    below, mass = np.cumsum(counts.astype(np.float64)), np.cumsum(counts * _LEVELS.astype(np.float64))
    weight = below * (below[-1] - below)
    variance = np.divide((mass[-1] * below / below[-1] - mass) ** 2, weight, out=np.zeros(256), where=weight > 0)
    return int(np.flatnonzero(variance == variance.max()).mean())


def flood(seeds: np.ndarray, passable: np.ndarray) -> np.ndarray:
    """All of `passable` that is connected (by sides) to `seeds`.

    The picture is one long integer with a bit for each pixel and, behind each row, one that nothing passes. A shift
    moves all pixels at once: by 1, 2, 4, ... places along what is open that far, a sweep fills whole rows, then
    columns. Chests need about five sweeps.
    """
    height, width = passable.shape
    reached, before = _number(seeds & passable), -1
    ways = [_ways(_number(passable), step, length) for step, length in ((1, width), (width + 1, height))]
    while reached != before:
        before = reached
        for forth, back in ways:
            for places, is_open in forth:
                reached |= reached << places & is_open
            for places, is_open in back:
                reached |= reached >> places & is_open
    size = height * (width + 1)
    bits = np.frombuffer(reached.to_bytes(-(-size // 8), "little"), np.uint8)
    return np.unpackbits(bits, count=size, bitorder="little").reshape(height, -1)[:, :-1].astype(bool)


def _number(mask: np.ndarray) -> int:
    """A mask, with an empty column behind it, as an integer whose lowest bit is its first pixel."""
    framed = np.zeros((mask.shape[0], mask.shape[1] + 1), bool)
    framed[:, :-1] = mask
    return int.from_bytes(np.packbits(framed, bitorder="little").tobytes(), "little")


def _ways(passable: int, step: int, length: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """How to go `step` places, twice as many, ... forth and back: (places, where a way of that length ends)."""
    forth, back, ways = passable, passable, (list[tuple[int, int]](), list[tuple[int, int]]())
    places = step
    while places < step * length:
        ways[0].append((places, forth))
        ways[1].append((places, back))
        forth, back = forth & forth << places, back & back >> places
        places *= 2
    return ways
