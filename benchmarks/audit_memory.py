"""Time and peak memory of `lungct audit` on a large generated data set.

    python benchmarks/audit_memory.py --slices 20000

Writes small PNGs (people with a few slices each) to a temporary folder, audits them, prints one line and removes them.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("normal", "benign", "malignant")


def write_slices(folder: Path, slices: int, per_person: int, size: int) -> None:
    """`slices` PNGs in class folders: one smooth random pattern per person, with a little noise per slice."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True)

    def write(number: int) -> None:
        person = number // per_person
        pattern = np.random.default_rng(person).integers(40, 216, (12, 12), dtype=np.uint8)
        grown = np.asarray(Image.fromarray(pattern).resize((size, size), Image.Resampling.BICUBIC), np.float32)
        noise = np.random.default_rng([person, number]).normal(0, 6, grown.shape)
        picture = Image.fromarray(np.clip(grown + noise, 0, 255).astype(np.uint8))
        picture.save(folder / CLASSES[person % 3] / f"case ({number}).png", compress_level=1)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, range(slices)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=20_000)
    parser.add_argument("--per-person", type=int, default=4)
    parser.add_argument("--size", type=int, default=96, help="side of the pictures in pixels")
    options = parser.parse_args()
    from lungct_hf.audit import audit_data

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        write_slices(Path(folder), options.slices, options.per_person, options.size)
        written = time.perf_counter() - start
        start = time.perf_counter()
        found = audit_data(folder, progress=sys.stderr.isatty())
        seconds = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    codes = ", ".join(warning.code for warning in found.warnings) or "none"
    print(f"{options.slices} slices: written in {written:.0f} s, audited in {seconds:.0f} s, peak {peak:.0f} MiB RSS")
    print(f"{found.figures['groups']['groups']} groups; warnings: {codes}")


if __name__ == "__main__":
    main()
