"""Views of a slice in which how it was made tells as little as possible: equal grey levels, equal texture.

What a model scores on them is what it knows beside tone, or beside noise and sharpness. Both are made at the network's
input size, so that shrinking brings nothing back, from nothing but the slice and what the training slices have on
average. The border of the letterbox stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

_LEVELS = 256


def content_box(square: np.ndarray, fill: tuple[int, int, int]) -> tuple[slice, slice]:
    """Rows and columns of a letterboxed slice, uint8 (size, size, 3), that are no border of the colour `fill`."""
    inside = (square != np.array(fill, np.uint8)).any(axis=2)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows):
        return slice(0, len(square)), slice(0, len(square))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def pooled_histogram(squares: Iterable[np.ndarray], fill: tuple[int, int, int]) -> np.ndarray:
    """The share of each grey level, float64 (256,), in the slices together, every slice counting the same."""
    total = np.zeros(_LEVELS)
    for square in squares:
        grey = _grey(square[content_box(square, fill)])
        total += np.bincount(grey.ravel(), minlength=_LEVELS) / grey.size
    return total / total.sum()


def equal_histogram(square: np.ndarray, fill: tuple[int, int, int], histogram: np.ndarray) -> np.ndarray:
    """The slice with exactly the grey levels `histogram` (256,), whatever its own were: uint8 (size, size, 3).

    Exact specification (Coltuc, Bolon and Chassery 2006): pixels are ranked by their value, those of equal value by
    the mean of their surroundings, and the ranks get the levels in order.
    """
    box = content_box(square, fill)
    grey = _grey(square[box])
    near, wide = (_box_mean(grey, reach).ravel() for reach in (1, 2))
    order = np.lexsort((wide, near, grey.ravel()))
    ranks = (np.arange(grey.size) + 0.5) / grey.size
    levels = np.searchsorted(np.cumsum(histogram), ranks).clip(0, _LEVELS - 1).astype(np.uint8)
    made = np.empty(grey.size, np.uint8)
    made[order] = levels
    return _pasted(square, box, made.reshape(grey.shape))


def pooled_spectrum(squares: Iterable[np.ndarray], fill: tuple[int, int, int]) -> np.ndarray:
    """The mean amplitude at each distance from the spectrum's centre, float64 (size,), over the slices.

    At the fine end stand noise and sharpness: how grainy and how crisp pictures are, whatever they show.
    """
    profiles = [_profile(_amplitudes(square, fill)) for square in squares]
    return np.mean(profiles, axis=0)


def equal_texture(square: np.ndarray, fill: tuple[int, int, int], spectrum: np.ndarray) -> np.ndarray:
    """The slice with the amplitudes `spectrum` (size,) at every fineness, its shapes kept: uint8 (size, size, 3).

    Each ring of its Fourier spectrum is scaled to the common mean; the phases, which carry the shapes, and the mean
    grey stay.
    """
    box = content_box(square, fill)
    whole = _centred(square, fill)
    transformed = np.fft.fft2(whole)
    rings = _rings(len(whole))
    own = _profile(np.abs(transformed))
    gain = np.divide(spectrum, own, out=np.ones_like(own), where=own > 1e-9)
    gain[0] = 1.0
    grey = _grey(square[box]).astype(np.float64)
    made = np.fft.ifft2(transformed * gain[rings]).real[box] + grey.mean()
    return _pasted(square, box, np.clip(np.rint(made), 0, _LEVELS - 1).astype(np.uint8))


def _grey(picture: np.ndarray) -> np.ndarray:
    """uint8 (h, w): the first channel of a grey slice, the usual weights of a coloured one."""
    if (picture[..., 0] == picture[..., 1]).all() and (picture[..., 0] == picture[..., 2]).all():
        return picture[..., 0]
    return np.rint(picture @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)


def _pasted(square: np.ndarray, box: tuple[slice, slice], grey: np.ndarray) -> np.ndarray:
    made = square.copy()
    made[box] = grey[..., None]
    return made


def _box_mean(grey: np.ndarray, reach: int) -> np.ndarray:
    from scipy.ndimage import uniform_filter

    return uniform_filter(grey.astype(np.float32), 2 * reach + 1, mode="nearest")


def _centred(square: np.ndarray, fill: tuple[int, int, int]) -> np.ndarray:
    """The grey slice less its mean, 0 where the border is: float64 (size, size)."""
    box = content_box(square, fill)
    grey = _grey(square[box]).astype(np.float64)
    whole = np.zeros(square.shape[:2])
    whole[box] = grey - grey.mean()
    return whole


def _amplitudes(square: np.ndarray, fill: tuple[int, int, int]) -> np.ndarray:
    return np.abs(np.fft.fft2(_centred(square, fill)))


def _profile(amplitudes: np.ndarray) -> np.ndarray:
    """The mean amplitude of each ring: float64 (size,), 0 where no frequency is that far out."""
    rings = _rings(len(amplitudes)).ravel()
    count = np.bincount(rings, minlength=len(amplitudes))
    return np.bincount(rings, amplitudes.ravel(), minlength=len(amplitudes)) / np.maximum(count, 1)


def _rings(size: int) -> np.ndarray:
    """int (size, size): the distance of each frequency from the centre, in cycles a picture, rounded."""
    cycles = np.fft.fftfreq(size, 1 / size)
    return np.rint(np.hypot(*np.meshgrid(cycles, cycles))).astype(np.int64)
