"""Small data sets that resemble chests enough to be audited: a clean one, and faults to plant in it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lungct_hf.audit import Audit, audit_data

CLASSES = ("normal", "benign", "malignant")


@lru_cache(maxsize=512)
def _pattern(person: int, size: int) -> np.ndarray:
    """A body with lungs whose inner structure is the person's own, and no sign of any class."""
    rng = np.random.default_rng(person)
    coarse, fine = (
        np.asarray(
            Image.fromarray(rng.normal(0, 1, (n, n)).astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC)
        )
        for n in (8, 24)
    )
    rows, columns = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    body = (rows / (0.75 + 0.1 * rng.random())) ** 2 + (columns / (0.85 + 0.1 * rng.random())) ** 2 < 1
    lungs = (rows / 0.5) ** 2 + ((np.abs(columns) - 0.4) / 0.28) ** 2 < 1
    return 40 + 160 * body - 110 * lungs + body * (14 * coarse + 22 * fine)


def draw(person: int, number: int = 0, size: int = 96) -> Image.Image:
    """Slice `number` of a person: slices of one person are near-copies, those of two are not."""
    noise = np.random.default_rng([person, number]).normal(0, 4, (size, size))
    return Image.fromarray(np.clip(_pattern(person, size) + noise, 0, 255).astype(np.uint8))


def encode(image: Image.Image, format: str = "PNG", **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


class Planned:
    """A data set that is still being put together: {path: (bytes, patient)}."""

    def __init__(self, people: int = 8, slices: int = 2, splits: tuple[str, ...] = ("",)) -> None:
        self.files: dict[str, tuple[bytes, str]] = {}
        self.slices = slices
        for person in range(3 * people):
            section = splits[person // 3 % len(splits)]
            for number in range(slices):
                self.add(self.path(person, number, section), draw(person, number), f"P{person}")

    def path(self, person: int, number: int = 0, section: str = "") -> str:
        name = f"{CLASSES[person % 3]}/case ({person * self.slices + number + 1}).png"
        return f"{section}/{name}" if section else name

    def add(self, path: str, picture: Image.Image | bytes, patient: str) -> str:
        self.files[path] = (picture if isinstance(picture, bytes) else encode(picture), patient)
        return path

    def change(self, label: str, how: Callable[[Image.Image], Image.Image], **options: int) -> list[str]:
        """Replace every picture of a class."""
        names = [name for name in self.files if name.split("/")[-2] == label]
        for name in names:
            data, patient = self.files[name]
            self.add(name, encode(how(Image.open(io.BytesIO(data))), **({"format": "PNG"} | options)), patient)
        return names

    def write(self, folder: Path, patients: bool = True, backwards: bool = False) -> Path:
        names = list(self.files)
        for name in reversed(names) if backwards else names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(self.files[name][0])
        if patients:
            with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as handle:
                writer = csv.writer(handle)
                writer.writerow(["file_name", "patient_id"])
                writer.writerows((name, self.files[name][1]) for name in names)
        return folder


@pytest.fixture
def audited(tmp_path: Path) -> Callable[..., Audit]:
    """Write a planned data set and audit it."""

    def run(planned: Planned, name: str = "data", **layout: bool) -> Audit:
        return audit_data(str(planned.write(tmp_path / name, **layout)), progress=False)

    return run


def codes(audit: Audit) -> set[str]:
    return {warning.code for warning in audit.warnings}


def files(audit: Audit, code: str) -> set[str]:
    """The files of one warning, which must be there."""
    return set(next(warning for warning in audit.warnings if warning.code == code).files)
