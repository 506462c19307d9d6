"""Canaries: a few phantoms and the logits the model gave them on the day of its release, kept in the repo.

    canaries/canaries.json    {"tolerance": 1e-4, "generator": 1, "labels": [the model's classes],
                               "slices": [{"file", "sha256", "label", "logits"}]}
    canaries/*.png            8 bit, in the model's window

A canary's `label` is what the phantom shows, which need not be a class of the model.
Whoever loads the model can see in a second whether it still is that model.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..classes import Classes
from ..contract import Contract
from ..errors import LungCTError
from ..files import read_json, write_atomic, write_json
from ..known_sets import phantoms
from ..slices.phantom import GENERATOR_VERSION, draw_phantom

FOLDER = "canaries"
TOLERANCE = 1e-4  # of a logit, between loaders and between machines
_PATIENTS = (90001, 90002)
_SIZE = 192


@dataclass(frozen=True, eq=False)
class Canaries:
    """`files` {name: content}, `images` as RGB, in the same order, and the `golden` logits (N, C)."""

    files: dict[str, bytes]
    images: list[Image.Image]
    golden: np.ndarray


def draw_canaries(contract: Contract) -> dict[str, bytes]:
    """{file name: PNG}: for each class of phantoms two patients, in the model's window."""
    drawn = {}
    for label in phantoms().classes:
        for patient in _PATIENTS:
            grey = contract.window.apply(draw_phantom(label, patient, 0.0, size=_SIZE))
            buffer = io.BytesIO()
            Image.fromarray(grey).save(buffer, "PNG", optimize=False)
            drawn[f"{label}_{patient}.png"] = buffer.getvalue()
    return drawn


def images_of(files: Mapping[str, bytes]) -> list[Image.Image]:
    return [Image.open(io.BytesIO(content)).convert("RGB") for content in files.values()]


def write_canaries(folder: Path, files: Mapping[str, bytes], golden: np.ndarray, classes: Classes) -> None:
    """Write canaries/ into the directory of a model of `classes`; `golden` float32 (N, C) in the order of `files`."""
    slices = []
    for (name, content), logits in zip(files.items(), golden.tolist(), strict=True):
        write_atomic(folder / FOLDER / name, content)
        digest = hashlib.sha256(content).hexdigest()
        slices.append({"file": name, "sha256": digest, "label": name.partition("_")[0], "logits": logits})
    record = {"tolerance": TOLERANCE, "generator": GENERATOR_VERSION, "labels": list(classes), "slices": slices}
    write_json(folder / FOLDER / "canaries.json", record)


def read_canaries(folder: Path) -> Canaries:
    """The canaries of a model directory. LungCTError when there are none, or a picture is another one."""
    record = read_json(
        folder / FOLDER / "canaries.json", f"There is no {FOLDER}/canaries.json. Fix: release the model."
    )
    try:
        rows = [(str(row["file"]), str(row["sha256"]), [float(v) for v in row["logits"]]) for row in record["slices"]]
        golden = np.asarray([logits for _, _, logits in rows], np.float32).reshape(len(rows), -1)
    except (KeyError, TypeError, ValueError) as error:
        raise LungCTError(
            f"{FOLDER}/canaries.json is incomplete ({error!r}). Fix: release the model again."
        ) from error
    files = {}
    for name, digest, _ in rows:
        path = folder / FOLDER / Path(name).name
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != digest:
            raise LungCTError(f"{FOLDER}/{name} is missing or not the picture that canaries.json names.")
        files[name] = content
    if not rows or not np.isfinite(golden).all():
        raise LungCTError(f"{FOLDER}/canaries.json names no canary, or a logit that is not finite.")
    return Canaries(files, images_of(files), golden)


def deviations(found: Mapping[str, np.ndarray | str], golden: np.ndarray) -> list[str]:
    """A sentence for every loader that failed or whose logits are further than TOLERANCE from `golden` (N, C)."""
    said = []
    for name, logits in found.items():
        if isinstance(logits, str):
            said.append(f"{name} cannot load the model ({logits})")
            continue
        if logits.shape != golden.shape:
            said.append(f"{name} gives logits of shape {logits.shape}, needed: {golden.shape}")
            continue
        distance = np.abs(logits - golden).max()
        if not distance <= TOLERANCE:
            said.append(f"{name} gives a canary other logits, up to {distance:.2g} away (limit {TOLERANCE:g})")
    return said
