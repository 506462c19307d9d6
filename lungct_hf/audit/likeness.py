"""How alike two slices are in their fine structure, whatever their brightness, contrast or a shift of few pixels.

The likeness of two thumbnails is the largest correlation of their high frequencies (ribs, vessels; the coarse layout,
which all chests share, is filtered out) over shifts of up to 3 of 64 pixels. On IQ-OTH/NCCD, copies that were
re-encoded, resized, brightened, or shifted by up to 16 of 512 pixels reach 0.93 and more, and slices of two classes at
most 0.64. One of the two may be mirrored; `BLIND_SPOTS` says which copies are not recognised.
"""

from __future__ import annotations

import numpy as np

from .slices import THUMBNAIL

BLIND_SPOTS = (
    "copies that were inverted, turned by more than a few degrees, or cropped or padded by more than a few percent"
)
_HIGHEST = 24  # cycles per thumbnail; above it are noise and JPEG blocks
_SHIFTS = np.arange(-3, 3.01, 0.25)  # thumbnail pixels
_COARSE = 32  # side of the coarse picture by which candidates are found
_BATCH = 1024


def _frequencies(highest: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns (cycles per thumbnail) of a half spectrum cut at `highest`."""
    return np.r_[0 : highest + 1, -highest:0], np.arange(highest + 1)


def _blur(sigma: float, highest: int) -> np.ndarray:
    """The spectrum of a Gaussian of `sigma` thumbnail pixels."""
    rows, columns = _frequencies(highest)
    squared = (rows[:, None] ** 2 + columns[None, :] ** 2) / THUMBNAIL**2
    return np.exp(-2 * np.pi**2 * sigma**2 * squared)


def _spectrum(thumbnails: np.ndarray, weights: np.ndarray, highest: int) -> np.ndarray:
    ramp = np.minimum(1, np.minimum(np.arange(THUMBNAIL) + 0.5, THUMBNAIL - np.arange(THUMBNAIL) - 0.5) / 4)
    pictures = thumbnails.astype(np.float32)
    pictures -= pictures.mean(axis=(1, 2), keepdims=True)
    full = np.fft.rfft2(pictures * np.outer(ramp, ramp).astype(np.float32))  # faded edges: a shift wraps around
    rows, columns = _frequencies(highest)
    return full[:, rows][:, :, columns] * weights


def spectra(thumbnails: np.ndarray) -> np.ndarray:
    """complex64 (N, 49, 25) of unit norm (zero for flat pictures): the fine structure, ready for `likeness`."""
    weights = 1 - _blur(1.0, _HIGHEST)
    weights[:, 1:] *= np.sqrt(2)  # the half of the spectrum that is left out is its mirror image
    out = np.empty((len(thumbnails), *weights.shape), np.complex64)
    for start in range(0, len(thumbnails), _BATCH):
        part = _spectrum(thumbnails[start : start + _BATCH], weights, _HIGHEST)
        norm = np.sqrt((np.abs(part) ** 2).sum(axis=(1, 2), keepdims=True))
        out[start : start + _BATCH] = np.divide(part, norm, out=np.zeros_like(part), where=norm > 1e-3)
    return out


def likeness(spectrum: np.ndarray, i: np.ndarray, j: np.ndarray, mirrored: bool = False) -> np.ndarray:
    """float32 in -1..1 for each pair of rows i, j of `spectra`'s result; `mirrored`: j flipped left to right."""
    rows, columns = _frequencies(_HIGHEST)
    turn = 2j * np.pi / THUMBNAIL
    left = np.exp(turn * np.outer(_SHIFTS, rows)).astype(np.complex64)
    right = np.exp(turn * np.outer(columns, _SHIFTS)).astype(np.complex64)
    out = np.empty(len(i), np.float32)
    for start in range(0, len(i), _BATCH):
        part = slice(start, start + _BATCH)
        other = _flipped(spectrum[j[part]]) if mirrored else spectrum[j[part]]
        product = spectrum[i[part]] * other.conj()
        out[part] = (left @ product @ right).real.max(axis=(1, 2))
    return out


def _flipped(spectrum: np.ndarray) -> np.ndarray:
    """The spectra of the same pictures flipped left to right, without another transform."""
    rows, columns = _frequencies(_HIGHEST)
    turn = np.exp(-2j * np.pi * columns * (THUMBNAIL - 1) / THUMBNAIL).astype(np.complex64)
    return spectrum[:, -rows].conj() * turn  # row k lies at index k, and -k at index -k


def coarse(thumbnails: np.ndarray) -> np.ndarray:
    """float32 (N, 1024) of unit norm: structure of middle size, which small shifts hardly change."""
    half = _COARSE // 2 - 1
    weights = _blur(2.0, half) - _blur(6.0, half)
    out = np.empty((len(thumbnails), _COARSE * _COARSE), np.float32)
    rows, columns = _frequencies(half)
    for start in range(0, len(thumbnails), _BATCH):
        part = _spectrum(thumbnails[start : start + _BATCH], weights, half)
        full = np.zeros((len(part), _COARSE, _COARSE // 2 + 1), np.complex64)
        full[:, rows[:, None], columns[None, :]] = part
        flat = np.fft.irfft2(full, s=(_COARSE, _COARSE)).reshape(len(part), -1)
        norm = np.linalg.norm(flat, axis=1, keepdims=True)
        out[start : start + _BATCH] = np.divide(flat, norm, out=np.zeros_like(flat), where=norm > 1e-6)
    return out
