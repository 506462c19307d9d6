"""Small things the tests share: tiny cohorts, and the real entry points as subprocesses."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
LABELS = ("normal", "benign", "malignant")
# The smallest run that goes through every step: seconds, not minutes.
TINY = ["--architecture", "mobilenetv2_035", "--image-size", "64", "--batch-size", "8", "--init", "random"]
TINY += ["--threads", "1"]  # the test workers share the cores already


def draw_slice(label: int, rng: np.random.Generator, size: int = 72) -> np.ndarray:
    """Grey noise with no, a small or a large bright disc: learnable, and every file differs."""
    picture = rng.normal(90, 12, (size, size))
    radius = (0, size // 10, size // 4)[label]
    centre = rng.integers(size // 3, 2 * size // 3, 2)
    rows, columns = np.ogrid[:size, :size]
    picture[(rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2] += 90
    return np.clip(picture, 0, 255).astype(np.uint8)


def write_cohort(folder: Path, *, patients: int = 5, slices: int = 3, seed: int = 0, ragged: int = 0) -> Path:
    """Class folders of PNGs with metadata.csv (patient_id); `ragged` more slices for each class's last patient."""
    rng = np.random.default_rng(seed)
    rows = []
    for label, name in enumerate(LABELS):
        (folder / name).mkdir(parents=True)
        for patient in range(patients):
            for number in range(slices + (ragged if patient == patients - 1 else 0)):
                file = f"{name}/{name[0]}{patient:02d}_{number}.png"
                Image.fromarray(draw_slice(label, rng)).save(folder / file)
                rows.append((file, f"{name[0]}{patient:02d}"))
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["file_name", "patient_id"])
        writer.writerows(rows)
    return folder


def write_pictures(folder: Path, rng: np.random.Generator, more: dict[str, Image.Image] | None = None) -> list[Path]:
    """Slices as files of several kinds: not square, tiny, grey, RGB, palette, alpha, turned by EXIF; and `more`."""
    pictures = (more or {}) | {
        "wide.jpg": Image.fromarray(draw_slice(2, rng, 200)).crop((0, 30, 200, 131)),
        "tall.png": Image.fromarray(draw_slice(2, rng, 131)).crop((10, 0, 70, 131)).convert("RGB"),
        "tiny.png": Image.fromarray(draw_slice(0, rng, 20)),
        "palette.png": Image.fromarray(draw_slice(1, rng, 64)).convert("P"),
        "alpha.png": Image.fromarray(draw_slice(1, rng, 64)).convert("RGBA"),
        "grey.webp": Image.fromarray(draw_slice(2, rng, 77)),
    }
    for name, picture in pictures.items():
        picture.save(folder / name)
    turned = Image.fromarray(draw_slice(2, rng, 90)).crop((0, 0, 90, 50))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "turned.jpg", exif=exif)
    return sorted(folder.iterdir())


def chances(rows: Iterable[Any]) -> np.ndarray:
    """The probabilities (N, C) of Predictions that were answered."""
    return np.array([list(row.probabilities.values()) for row in rows])


def wake_up(network: torch.nn.Module, size: int) -> torch.nn.Module:
    """Give a random network batch-norm statistics of its own; without them its signal dies before the logits."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
    with torch.no_grad():
        network.train()(torch.randn(16, 3, size, size))
    return network.eval()


def train_command(*flags: str | Path) -> list[str]:
    return [sys.executable, str(ROOT / "training" / "train.py"), *map(str, flags)]


def train(*flags: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the training script to its end in a process of its own."""
    return run(train_command(*flags), cwd=cwd, **environment)


def run(
    command: list[str], *, cwd: Path | None = None, timeout: float = 280, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, timeout=timeout, env=os.environ | environment, check=False
    )
