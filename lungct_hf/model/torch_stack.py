"""Check that torch, torchvision and timm are there and fit together before anything imports them."""

from __future__ import annotations

from ..errors import LungCTError, require


def check_torch_stack() -> None:
    """Raise LungCTError for a missing package or for a torch / torchvision pair from different builds.

    A CPU-only torch with the registry's torchvision (built for CUDA) fails at import with
    "operator torchvision::nms does not exist", and timm imports torchvision.
    """
    for module in ("torch", "torchvision", "timm", "safetensors"):
        require(module, "torch")
    import torch

    try:
        import torchvision  # noqa: F401
    except (RuntimeError, ImportError, OSError) as error:
        from importlib.metadata import version

        raise LungCTError(
            f"torch {torch.__version__} and torchvision {version('torchvision')} do not fit together ({error}). They "
            "must come from the same build. Fix: pip install --upgrade --force-reinstall torch torchvision "
            "(or take both from the same CPU wheel index)."
        ) from error
