"""A small model, a folder of slices of every fate, and `lungct predict` as a process."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import draw_slice, run
from lungct_hf import known_sets
from lungct_hf.slices.phantom import draw_phantom
from lungct_hf.slices.window import LUNG_WINDOW
from predict_runs import Predict, predict_command

sys.path.append(str(Path(__file__).resolve().parents[1] / "runtime"))
sys.path.append(str(Path(__file__).resolve().parents[1] / "slices"))

from small_model import write_model  # noqa: E402 - it lies beside the runtime's tests


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("repo") / "model")


@pytest.fixture(scope="session")
def phantoms() -> list[Image.Image]:
    """Slices that the input check accepts."""
    labels = known_sets.phantoms().classes
    return [
        Image.fromarray(LUNG_WINDOW.apply(draw_phantom(labels[seed % 3], seed, 0.0, size=192))) for seed in range(4)
    ]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, phantoms: list[Image.Image]) -> Path:
    """Good slices, a refused one, bad files, two files of one name, a multi-page file, an archive."""
    root = tmp_path_factory.mktemp("slices") / "mixed"
    for below in ("a", "b"):
        (root / below).mkdir(parents=True)
        for number, phantom in enumerate(phantoms):
            phantom.rotate(number + 5 * (below == "b")).save(root / below / f"slice {number}.png")
    Image.fromarray(draw_slice(1, np.random.default_rng(0), 96)).save(root / "drawn.png")
    (root / "empty.png").touch()
    (root / "words.jpg").write_text("no picture")
    (root / "cut.png").write_bytes((root / "a" / "slice 0.png").read_bytes()[:2000])
    (root / "gone.png").symlink_to("nowhere")
    pages = [phantom.copy() for phantom in phantoms[:3]]  # Pillow writes no TIFF of an image once saved as a PNG
    pages[0].save(root / "pages.tif", save_all=True, append_images=pages[1:])
    with zipfile.ZipFile(root / "more.zip", "w") as archive:
        for number in range(3):
            archive.write(root / "b" / f"slice {number}.png", f"study/{number}.png")
    return root


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory, phantoms: list[Image.Image]) -> Path:
    """A folder of 240 files, all different on the disk."""
    root = tmp_path_factory.mktemp("many") / "slices"
    root.mkdir()
    for number in range(240):
        phantoms[number % 4].rotate(number / 8).resize((128, 128)).save(root / f"{number}.png", compress_level=1)
    shutil.copy(root / "7.png", root / "again.png")
    (root / "bad.png").write_text("no picture")
    return root


@pytest.fixture
def predict(model_dir: Path) -> Predict:
    def call(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return run(predict_command(model_dir, *arguments), cwd=cwd)

    return call
