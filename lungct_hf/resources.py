"""Find the files that live beside the package in the repository and inside it in an installed wheel."""

from __future__ import annotations

from pathlib import Path

from .errors import LungCTError


def shipped(name: str) -> Path:
    """The path of "model_card.md" or "space": in the wheel under `_shipped/`, in a checkout at the top level.

    Raises LungCTError when neither is there, which means a broken installation.
    """
    package = Path(__file__).parent
    for root in (package / "_shipped", package.parent):
        if (root / name).exists():
            return root / name
    raise LungCTError(
        f"{name} is missing from this installation of lungct-hf (looked in {package / '_shipped'} and "
        f"{package.parent}). Fix: pip install --force-reinstall lungct-hf, or work from a full checkout."
    )
