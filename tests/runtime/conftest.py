"""One small model and one set of odd slices for all tests of the runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import draw_slice, write_pictures
from lungct_hf import LungCTClassifier
from small_model import write_model


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("repo") / "model")


@pytest.fixture(scope="session")
def torch_only(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights without an ONNX file."""
    classifier = LungCTClassifier.from_pretrained(model_dir)
    plain = LungCTClassifier(classifier.network, replace(classifier.contract, onnx=None))
    return plain.save_pretrained(tmp_path_factory.mktemp("torch") / "model")


@pytest.fixture(scope="session")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of several kinds: square and not, tiny, long, grey of 8 and 16 bits, palette, alpha, EXIF, noise."""
    folder, rng = tmp_path_factory.mktemp("slices"), np.random.default_rng(0)
    pictures = {f"disc{number}.png": Image.fromarray(draw_slice(number % 3, rng, 96)) for number in range(6)}
    pictures |= {
        "ribbon.png": Image.fromarray(draw_slice(1, rng, 900)).crop((0, 440, 900, 460)),
        "deep.png": Image.fromarray(draw_slice(2, rng, 77).astype(np.uint16) * 257),
        "noise.png": Image.effect_noise((80, 80), 120),
        "grey.tif": Image.fromarray(draw_slice(1, rng, 100)),
    }
    return write_pictures(folder, rng, pictures)
