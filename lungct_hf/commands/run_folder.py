"""A run or the model directory in it: commands take either."""

from __future__ import annotations

from pathlib import Path


def model_folder(folder: Path) -> Path:
    """The model directory that `folder` is or, being a run, holds."""
    inner = folder / "model"
    return inner if not (folder / "config.json").is_file() and inner.is_dir() else folder
