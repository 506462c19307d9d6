"""What the Space's tests share: a tiny trained run, and slices in the forms people have them in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import draw_slice
from space_server import LUNGCT, Server, serve


@pytest.fixture(scope="session")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., AbstractContextManager[Server]]:
    """`with serving(command, NAME="value") as server`: `serve` in a folder of its own."""
    return lambda command, **extra: serve(tmp_path_factory.mktemp("app"), command, **extra)


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as training leaves it: runs/NAME with model/ in it."""
    import torch

    from lungct_hf import LungCTClassifier
    from lungct_hf.contract import Contract
    from lungct_hf.slices.preprocess import Preprocessing

    torch.manual_seed(3)
    classifier = LungCTClassifier.create("mobilenetv2_035", Preprocessing(size=64))
    provenance = {
        "init": {"kind": "random", "source": None, "sha256": None},
        "data": {"kind": "phantom", "source": "phantoms", "slices": 45, "groups": 15},
    }
    classifier.contract = Contract("mobilenetv2_035", Preprocessing(size=64), provenance=provenance)
    run = tmp_path_factory.mktemp("runs") / "tiny"
    classifier.save_pretrained(run / "model")
    return run


@pytest.fixture(scope="session")
def server(serving, run_dir: Path) -> Iterator[Server]:
    """`lungct demo` of the run."""
    with serving([*LUNGCT, "demo", str(run_dir)]) as started:
        yield started


@pytest.fixture(scope="session")
def slices(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One picture in the forms people have it in; 16 bits and a wide one show that the file itself arrives."""
    folder = tmp_path_factory.mktemp("slices")
    grey = draw_slice(2, np.random.default_rng(5), size=120)
    pictures = {
        "grey.png": Image.fromarray(grey),
        "grey.jpg": Image.fromarray(grey),
        "deep.png": Image.fromarray(grey.astype(np.uint16) * 257),
        "wide.tif": Image.fromarray(np.hstack([grey, grey[:, ::-1]])),
        "colour photo.webp": Image.fromarray(np.dstack([grey, grey[::-1], 255 - grey])),
    }
    for name, picture in pictures.items():
        picture.save(folder / name)
    return {name: folder / name for name in pictures}
