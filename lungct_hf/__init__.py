"""lungct_hf: a lung CT slice classifier for the Hugging Face Hub whose claims strangers can check. Research only."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .silence import silence

silence()  # before anything imports a library that reports to its makers

__version__ = "0.1.0"
__all__ = ["LungCT", "LungCTClassifier", "LungCTError", "Prediction", "__version__"]

if TYPE_CHECKING:
    from .errors import LungCTError
    from .runtime import LungCT, Prediction
    from .runtime.classifier import LungCTClassifier

_HOMES = {
    "LungCT": "runtime",
    "LungCTClassifier": "runtime.classifier",
    "LungCTError": "errors",
    "Prediction": "runtime",
}


def __getattr__(name: str) -> object:
    # Lazy, so that `import lungct_hf` stays quick and only the classifier needs torch.
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)
