"""Grey levels per class, and the traces that processing leaves in a histogram: a class must not be told by them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .slices import Slices

_SIDE = 8  # levels on either side of an empty one that must be in use
_EXPECTED = 8  # pixels per level there: an empty level has then a chance of e**-8


@dataclass(frozen=True)
class Trace:
    """A property of a histogram that no lung should change. `step` is the difference between classes that matters."""

    name: str
    step: float
    words: str


# What a picture shows (a nodule, more bone) must not count, so only the dark end and the gaps are looked at.
TRACES = (
    Trace("comb", 0.015, "share of grey levels left empty between used ones, as equalisation leaves them"),
    Trace("black", 0.02, "share of pixels at exactly 0"),
    Trace("darkest", 8, "grey level below which the darkest 1 % of pixels lie"),
)
# Looked at only where the whole data set was visibly processed; on untouched pictures they follow the contents.
TRACES_OF_PROCESSED = (
    Trace("used", 4, "number of grey levels in use"),
    Trace("gap", 4, "longest run of empty grey levels between used ones"),
    Trace("rough", 0.02, "mean jump between neighbouring grey levels' counts"),
)
PROCESSED_COMB, PROCESSED_GAP = 0.10, 24


def traces(histograms: np.ndarray) -> dict[str, np.ndarray]:
    """float64 (N,) per trace, from uint32 (N, 256) histograms."""
    counts = histograms.astype(np.float64)
    total = counts.sum(axis=1)
    sums = np.concatenate([np.zeros((len(counts), 1)), counts.cumsum(axis=1)], axis=1)
    inner = np.arange(_SIDE, 256 - _SIDE)
    left = (sums[:, inner] - sums[:, inner - _SIDE]) / _SIDE
    right = (sums[:, inner + 1 + _SIDE] - sums[:, inner + 1]) / _SIDE
    expected = np.minimum(left, right) >= _EXPECTED
    comb = (expected & (counts[:, inner] == 0)).sum(axis=1) / np.maximum(expected.sum(axis=1), 1)
    between = counts[:, 1:-1]
    jumps = np.abs(between - (counts[:, :-2] + counts[:, 2:]) / 2).sum(axis=1)
    return {
        "comb": comb,
        "black": counts[:, 0] / total,
        "darkest": (sums[:, 1:] < 0.01 * total[:, None]).sum(axis=1).astype(np.float64),
        "used": (counts > 0).sum(axis=1).astype(np.float64),
        "gap": _longest_gap(counts > 0),
        "rough": jumps / np.maximum(between.sum(axis=1), 1),
    }


def fine_structure(histograms: np.ndarray) -> np.ndarray:
    """float32 (N, 256) of unit norm: each level's count less a smooth curve through its neighbours, over its noise.

    Windowing, rescaling and export leave such a pattern; what a picture shows changes the curve, hardly the pattern.
    """
    from scipy.ndimage import gaussian_filter1d

    counts = histograms.astype(np.float64)
    curve = gaussian_filter1d(counts, 4, axis=1)
    pattern = (counts - curve) / np.sqrt(curve + 25)
    norm = np.linalg.norm(pattern, axis=1, keepdims=True)
    return np.divide(pattern, norm, out=np.zeros_like(pattern), where=norm > 0).astype(np.float32)


def statistics(slices: Slices) -> dict[str, dict[str, float]]:
    """Per class: medians over its slices of mean, spread, percentiles and traces; `empty_levels` of all its pixels."""
    found = traces(slices.histograms)
    levels = np.arange(256)
    counts = slices.histograms.astype(np.float64)
    total = counts.sum(axis=1)
    mean = counts @ levels / total
    spread = np.sqrt(np.maximum(counts @ levels**2 / total - mean**2, 0))
    cumulative = counts.cumsum(axis=1) / total[:, None]
    per_slice = {"mean": mean, "deviation": spread}
    per_slice |= {f"p{p}": (cumulative < p / 100).sum(axis=1) for p in (5, 25, 50, 75, 95)}
    per_slice |= {"white": counts[:, 255] / total, **found}
    out = {}
    for label, name in enumerate(slices.classes):
        rows = slices.rows(label)
        out[name] = {key: round(float(np.median(value[rows])), 4) for key, value in per_slice.items()}
        out[name]["empty_levels"] = int((slices.histograms[rows].sum(axis=0) == 0).sum())
    return out


def class_differences(slices: Slices) -> tuple[bool, list[dict[str, object]]]:
    """Whether the whole data set looks processed, and how well each trace tells each pair of classes apart.

    `auc` is the chance that a slice of the one class has more of the trace than one of the other, folded to 0.5..1;
    the smaller of the values over slices and over group medians counts, so that one patient cannot make a class.
    """
    found = traces(slices.histograms)
    by_class = [slices.rows(label) for label in range(len(slices.classes))]
    processed = all(
        np.median(found["comb"][rows]) >= PROCESSED_COMB or np.median(found["gap"][rows]) >= PROCESSED_GAP
        for rows in by_class
    )
    out: list[dict[str, object]] = []
    for trace in (*TRACES, *(TRACES_OF_PROCESSED if processed else ())):
        value = found[trace.name]
        for a, first in enumerate(slices.classes):
            for b in range(a + 1, len(slices.classes)):
                one, two = by_class[a], by_class[b]
                by_slice = auc(value[one], value[two])
                by_group = auc(_by_group(slices, value, one), _by_group(slices, value, two))
                agree = (by_slice - 0.5) * (by_group - 0.5) > 0
                low, high = float(np.median(value[one])), float(np.median(value[two]))
                out.append(
                    {
                        "trace": trace.name,
                        "classes": [first, slices.classes[b]],
                        "medians": [round(low, 4), round(high, 4)],
                        "auc": round(0.5 + min(abs(by_slice - 0.5), abs(by_group - 0.5)) * agree, 4),
                        "matters": abs(high - low) >= trace.step,
                    }
                )
    return processed, out


def _by_group(slices: Slices, value: np.ndarray, rows: np.ndarray) -> np.ndarray:
    ordered = rows[np.argsort(slices.group_numbers[rows], kind="stable")]
    borders = np.flatnonzero(np.diff(slices.group_numbers[ordered])) + 1
    return np.asarray([np.median(part) for part in np.split(value[ordered], borders)])


def auc(one: np.ndarray, two: np.ndarray) -> float:
    """The chance that a value of `two` exceeds one of `one`, ties counting half."""
    ordered = np.sort(one)
    below, up_to = np.searchsorted(ordered, two, "left"), np.searchsorted(ordered, two, "right")
    return float((below + up_to).mean() / (2 * len(one)))


def _longest_gap(used: np.ndarray) -> np.ndarray:
    """float64 (N,): the longest run of unused levels between two used ones."""
    out = np.zeros(len(used))
    for row, levels in enumerate(used):
        places = np.flatnonzero(levels)
        out[row] = np.diff(places).max(initial=1) - 1
    return out
