"""Stored DICOM values: which bits of a sample count and whether they have a sign, as stated or as it must be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from .dicom_file import integer
from .hounsfield import Fault, find_fault, stray_fraction

if TYPE_CHECKING:
    from pydicom import Dataset


def stated_values(dataset: Dataset, samples: np.ndarray) -> np.ndarray:
    """Samples as they were decoded, with what lies beyond BitsStored cut off: overlays, what writers left there."""
    if samples.dtype.kind == "f":
        return samples
    return _cut(samples, _bits(dataset, samples), bool(integer(dataset, "PixelRepresentation")))


def hidden_padding(dataset: Dataset, samples: np.ndarray) -> np.ndarray | None:
    """Where samples hold one negative value that BitsStored has no room for: padding, which nothing else declares."""
    bits, size = _bits(dataset, samples), samples.dtype.itemsize
    if samples.dtype.kind == "f" or bits >= 8 * size:
        return None
    beyond = samples.view(f"i{size}") < -(2 ** (bits - 1))
    strange = samples[beyond]
    return beyond if strange.size and (strange == strange[0]).all() else None


def best_reading(
    dataset: Dataset, samples: np.ndarray, to_hu: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, Fault | None, bool]:
    """HU of a frame, why they cannot be HU, and whether the header's sign or bits had to be overruled for them.

    The header is believed where its HU can be HU. Else the one other reading of the bits that can be is taken; where
    there is none, or there are two, it stays with the header's, which nobody will be shown.
    """
    hu = to_hu(stated_values(dataset, samples))
    fault = find_fault(hu)
    is_possible = fault is None
    if samples.dtype.kind == "f" or (is_possible and not stray_fraction(hu)):
        return hu, fault, False
    found: list[np.ndarray] = []
    for values in _other_readings(dataset, samples):
        other = to_hu(values)
        # A reading that already can be HU gives way only to one without a single value that no CT gives.
        is_better = not is_possible or stray_fraction(other) == 0
        if is_better and find_fault(other) is None and not any(np.array_equal(other, one) for one in [hu, *found]):
            found.append(other)
    return (found[0], None, True) if len(found) == 1 else (hu, fault, False)


def _other_readings(dataset: Dataset, samples: np.ndarray) -> Iterator[np.ndarray]:
    bits, allocated = _bits(dataset, samples), 8 * samples.dtype.itemsize
    is_signed, high_bit = bool(integer(dataset, "PixelRepresentation")), integer(dataset, "HighBit")
    if high_bit is not None and high_bit != bits - 1 and 0 <= high_bit < allocated:
        if high_bit >= bits:  # the samples lie in the upper bits
            yield _cut(samples.view(f"u{samples.dtype.itemsize}") >> (high_bit + 1 - bits), bits, is_signed)
        else:
            yield _cut(samples, high_bit + 1, is_signed)
    yield _cut(samples, bits, not is_signed)
    yield _cut(samples, allocated, not is_signed)
    if bits < allocated:
        yield _cut(samples, allocated, is_signed)
    if bits > 12 and 0 <= int(samples.min()) and int(samples.max()) < 4096:  # negative values of 12 bits
        yield _cut(samples, 12, True)


def _bits(dataset: Dataset, samples: np.ndarray) -> int:
    allocated = 8 * samples.dtype.itemsize
    stored = integer(dataset, "BitsStored") or allocated
    return stored if 0 < stored <= allocated else allocated


def _cut(samples: np.ndarray, bits: int, is_signed: bool) -> np.ndarray:
    """The lowest `bits` of each sample as numbers with or without a sign (two's complement)."""
    size = samples.dtype.itemsize
    unused = 8 * size - bits
    kept = np.ascontiguousarray(samples).view(f"i{size}" if is_signed else f"u{size}") << unused
    return kept >> unused
