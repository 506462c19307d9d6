"""Pictures of class-activation maps laid over the network's input."""

from __future__ import annotations

import hashlib
import re
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from ..files import write_atomic
from ..runtime.prediction import Prediction

_COLOUR = np.array([255.0, 96.0, 0.0], np.float32)  # orange: seen by the colour-blind, and in no CT
_OPACITY = 0.55


def overlay(square: np.ndarray, cam: np.ndarray) -> Image.Image:
    """`cam`, float (h, w) 0..1, in orange over a slice, uint8 (size, size, 3)."""
    size = square.shape[0]
    smooth = np.asarray(Image.fromarray(cam.astype(np.float32)).resize((size, size), Image.Resampling.BILINEAR))
    share = _OPACITY * np.clip(smooth, 0.0, 1.0)[..., None]
    return Image.fromarray(np.rint(square * (1 - share) + _COLOUR * share).astype(np.uint8))


def overlay_name(row: Prediction) -> str:
    """A file name that is unique to a row: its own name, frame, and eight digits of its whole name."""
    stem = re.sub(r"[^\w.-]+", "_", PurePosixPath(row.file.replace("\\", "/")).stem)
    stem = stem.encode()[:120].decode("utf-8", "ignore") or "slice"  # file names are limited in bytes
    return f"{stem}-{row.frame}-{hashlib.sha256(row.file.encode()).hexdigest()[:8]}.png"


def save_overlay(folder: Path, row: Prediction, square: np.ndarray) -> None:
    """Write one row's picture into `folder`, in one step."""
    if row.cam is not None:
        content = BytesIO()
        overlay(square, row.cam).save(content, "png")
        write_atomic(folder / overlay_name(row), content.getvalue())
