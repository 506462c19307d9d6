"""Where the time of a slice goes: CPU milliseconds on one core, step by step, from a file to the network's input.

    python benchmarks/steps.py                    # 24 phantoms of 512 x 512 as JPEG
    python benchmarks/steps.py --slices DIR       # your own pictures, an even choice of --count

The steps take turns, round after round, and the best round of each counts: a busy machine only ever adds to it.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image

from lungct_hf.allocator import keep_freed_memory
from lungct_hf.known_sets import phantoms
from lungct_hf.slices.checks import check_picture
from lungct_hf.slices.grey import one_channel
from lungct_hf.slices.phantom import draw_phantom
from lungct_hf.slices.preprocess import Preprocessing
from lungct_hf.slices.read import read_pages
from lungct_hf.slices.source import Frame, open_slices
from lungct_hf.slices.window import LUNG_WINDOW

CLASSES = phantoms().classes


def drawn(count: int) -> list[bytes]:
    """Phantoms as JPEG files, stored as RGB like those of most data sets."""
    files = []
    for seed in range(count):
        hu = draw_phantom(CLASSES[seed % len(CLASSES)], seed, 0.0, size=512)
        encoded = io.BytesIO()
        Image.fromarray(LUNG_WINDOW.apply(hu)).convert("RGB").save(encoded, "JPEG", quality=90)
        files.append(encoded.getvalue())
    return files


def decode(content: bytes) -> list[Image.Image]:
    return [picture for picture, _ in read_pages(io.BytesIO(content))]


def spent(step: Callable[[Any], Any], inputs: Sequence[Any]) -> float:
    begun = time.process_time()
    for one in inputs:
        step(one)
    return 1000 * (time.process_time() - begun) / len(inputs)


def main(
    slices: Annotated[Path | None, typer.Option(help="A folder of pictures. Default: phantoms.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Pictures.")] = 24,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of every step.")] = 9,
    size: Annotated[int, typer.Option(min=16, help="Side of the network's input.")] = 224,
) -> None:
    """Measure every step and print a table."""
    keep_freed_memory()  # as reader processes and the demo do
    if slices:
        found = sorted(path for path in slices.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        files = [path.read_bytes() for path in found[:: max(1, len(found) // count)][:count]]
    else:
        files = drawn(count)
    preprocessing = Preprocessing(size=size)
    decoded = [picture for content in files for picture in decode(content)]
    frames = [frame for content in files for frame in open_slices(content) if isinstance(frame, Frame)]
    pixels = [frame.pixels for frame in frames]
    square = preprocessing.squares(pixels[:1])

    def whole(content: bytes) -> None:
        preprocessing.squares([frame.pixels for frame in open_slices(content) if isinstance(frame, Frame)])

    steps: dict[str, tuple[Callable[[Any], Any], Sequence[Any]]] = {
        "decoding": (decode, files),
        "one channel": (one_channel, decoded),
        "input checks": (check_picture, pixels),
        f"letterbox to {size}": (lambda picture: preprocessing.squares([picture]), pixels),
        "all of it, from the bytes": (whole, files),
        "normalising": (lambda _: preprocessing.normalise(square), pixels),
    }
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(rounds):
        for name, (step, inputs) in steps.items():
            best[name] = min(best[name], spent(step, inputs))
    print(f"| step, {len(files)} pictures | ms |\n|---|---:|")
    print("\n".join(f"| {name} | {value:.2f} |" for name, value in best.items()))


if __name__ == "__main__":
    typer.run(main)
