"""Tiny data sets: each "person" is a random pattern, their slices are that pattern with a little noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lungct_hf.cohort import Cohort, load_cohort
from lungct_hf.errors import LungCTError

CLASSES = {"Normal cases": "Normal case", "Bengin cases": "Bengin case", "Malignant cases": "Malignant case"}


def draw(person: int, slice_: int, noise: float = 3.0) -> Image.Image:
    """A 48 x 48 grey picture: slices of one person correlate above 0.98, of two people hardly."""
    base = np.random.default_rng(person).uniform(40, 215, (6, 6)).repeat(8, axis=0).repeat(8, axis=1)
    grain = np.random.default_rng([person, slice_]).normal(0, noise, base.shape)
    return Image.fromarray(np.clip(base + grain, 0, 255).astype(np.uint8))


def save(image: Image.Image, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def load(folder: Path | str, **options: Any) -> Cohort:
    """`load_cohort` without a progress bar."""
    return load_cohort(str(folder), progress=False, **options)


def refused(folder: Path | str, *needed: str, kind: type[LungCTError] = LungCTError, **options: Any) -> None:
    """Loading fails with exactly this kind of error, in one sentence that holds every text of `needed`."""
    with pytest.raises(kind) as error:
        load(folder, **options)
    assert type(error.value) is kind, repr(error.value)
    text = str(error.value)
    assert "\n" not in text and all(part in text for part in needed), text


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write class folders as downloaded: `people` per class, `slices` each, numbered through like IQ-OTH/NCCD."""

    def make(name: str = "data", people: int = 6, slices: int = 3, reverse: bool = False) -> Path:
        files = []
        for c, (folder, stem) in enumerate(CLASSES.items()):
            for p in range(people):
                for s in range(slices):
                    # Numbers jump between people, as where slices were taken out.
                    number = p * (slices + 1) + s + 1
                    files.append((tmp_path / name / folder / f"{stem} ({number}).png", 100 * c + p, s))
        for path, person, s in reversed(files) if reverse else files:
            save(draw(person, s), path)
        return tmp_path / name

    return make


@pytest.fixture
def cohort(make_folder: Callable[..., Path]) -> Cohort:
    return load(make_folder())
