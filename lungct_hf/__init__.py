"""lungct_hf: a lung CT slice classifier for the Hugging Face Hub whose claims strangers can check. Research only."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["LungCTClassifier", "LungCTError", "__version__"]

if TYPE_CHECKING:
    from .errors import LungCTError
    from .model import LungCTClassifier


def __getattr__(name: str) -> object:
    # Lazy, so that `import lungct_hf` stays quick and needs no torch.
    if name == "LungCTClassifier":
        from .model import LungCTClassifier

        return LungCTClassifier
    if name == "LungCTError":
        from .errors import LungCTError

        return LungCTError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
