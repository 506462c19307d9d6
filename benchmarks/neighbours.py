"""What the index of near-copies misses and takes, beside comparing each slice with each.

    python benchmarks/neighbours.py --slices 20000
    python benchmarks/neighbours.py --slices 200000 --index-only

Draws people with a few slices each (a smooth pattern, noise, a small shift, sometimes mirrored) as 48-pixel
thumbnails, and finds the pairs that tie slices together: by comparing each with each, and by the index.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from lungct_hf.cohort import link
from lungct_hf.cohort.rule import Cuts

SIDE, PER_PERSON = 48, 4


def drawn(slices: int) -> np.ndarray:
    """uint8 (slices, 48, 48)."""
    thumbs = np.empty((slices, SIDE, SIDE), np.uint8)
    for number in range(slices):
        person = np.random.default_rng(number // PER_PERSON).integers(40, 216, (9, 9), dtype=np.uint8)
        rng = np.random.default_rng([1, number])
        grown = np.asarray(Image.fromarray(person).resize((SIDE + 4, SIDE + 4), Image.Resampling.BICUBIC), np.float32)
        down, right = rng.integers(0, 3, 2)
        seen = grown[down : down + SIDE, right : right + SIDE]
        seen = seen[:, ::-1] if rng.random() < 0.1 else seen
        thumbs[number] = np.clip(seen * rng.uniform(0.9, 1.1) + rng.normal(0, 5, seen.shape), 0, 255)
    return thumbs


def pairs(find: Callable[..., link.Found], thumbs: np.ndarray) -> tuple[dict[str, np.ndarray], float]:
    """{kind: sorted pairs as one number each} and the seconds it took."""
    start = time.perf_counter()
    found: dict[str, list[np.ndarray]] = {}
    for kind, i, j, _ in find(thumbs, None, Cuts(), False):
        found.setdefault(kind, []).append((i * len(thumbs) + j)[i < j])
    return {kind: np.unique(np.concatenate(part)) for kind, part in found.items()}, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=20_000)
    parser.add_argument("--index-only", action="store_true", help="do not compare each with each")
    options = parser.parse_args()
    thumbs = drawn(options.slices)
    by_index, seconds = pairs(link._indexed, thumbs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{options.slices} slices: index {seconds:.0f} s, peak {peak:.0f} MiB RSS")
    if options.index_only:
        return
    every, whole = pairs(link._compared, thumbs)
    print(f"each with each {whole:.0f} s, {whole / seconds:.1f} times as long")
    for kind, wanted in every.items():
        kept = np.isin(wanted, by_index.get(kind, np.empty(0, np.int64))).mean() if len(wanted) else 1.0
        print(f"{kind}: {len(wanted)} pairs, the index finds {100 * kept:.3f} %")


if __name__ == "__main__":
    main()
