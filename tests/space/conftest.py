"""What the Space's tests share: a small published model, a server, and slices in the forms people have them in."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client
from PIL import Image

from hub_server import HubServer
from lungct_hf.known_sets import phantoms
from lungct_hf.slices.phantom import draw_phantom
from published import phantom_picture, write_published
from slices.made_slices import ct_dataset, dicom_bytes
from space_server import LUNGCT, Server, serve


@pytest.fixture(scope="session")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., AbstractContextManager[Server]]:
    """`with serving(command, NAME="value") as server`: `serve` in a folder of its own."""
    return lambda command, **extra: serve(tmp_path_factory.mktemp("app"), command, **extra)


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as training leaves it: runs/NAME with model/ in it."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    write_published(run / "model")
    return run


@pytest.fixture(scope="session")
def server(serving, run_dir: Path) -> Iterator[Server]:
    """`lungct demo` of the run."""
    with serving([*LUNGCT, "demo", str(run_dir)]) as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Server, tmp_path_factory) -> Client:
    return Client(server.url, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))


@pytest.fixture(scope="session")
def slices(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One phantom in the forms people have it in, a study of it, and what is no slice."""
    folder = tmp_path_factory.mktemp("slices")
    grey = phantom_picture("malignant", 0)
    deep = np.asarray(grey).astype(np.uint16) * 257
    pictures = {
        "grey.png": grey,
        "grey.jpg": grey,
        "deep.png": Image.fromarray(deep),
        "wide.tif": grey.crop((0, 16, 192, 176)),
        "colour photo.webp": Image.merge("RGB", [Image.effect_noise((120, 90), 90) for _ in range(3)]),
    }
    for name, picture in pictures.items():
        picture.save(folder / name)
    files = {name: folder / name for name in pictures}
    heights = (4.0, -4.0, 0.0)  # in no order
    with zipfile.ZipFile(folder / "study.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number, z in enumerate(heights):
            hu = draw_phantom(phantoms().classes.positive[0], 0, z, size=192)
            content = dicom_bytes(ct_dataset(hu, ImagePositionPatient=[0, 0, z], PixelSpacing=[1.5, 1.5]))
            archive.writestr(f"series/{number}.dcm", content)
            if z == 0.0:
                (folder / "slice.dcm").write_bytes(content)
        archive.writestr("notes/readme.png", b"not a picture")
    return files | {"study.zip": folder / "study.zip", "slice.dcm": folder / "slice.dcm"}


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as started:
        yield started
    assert not started.crashes, started.crashes[0]


@pytest.fixture
def access(hub: HubServer, tmp_path: Path) -> dict[str, str]:
    return {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "LUNGCT_MODEL": "alice/tiny",
    }
