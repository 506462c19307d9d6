"""torchvision's parameter names for MobileNetV2, translated to timm's `mobilenetv2_100`.

The two networks compute the same function; only the names differ. timm has no ImageNet-1K V2 weights for
MobileNetV2, torchvision does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from ..errors import LungCTError

Value = TypeVar("Value")

# Inverted residual blocks per timm stage (Sandler et al. 2018, table 2); torchvision numbers them features.1 to 17.
_BLOCKS_PER_STAGE = (1, 2, 3, 4, 3, 3, 1)
_BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
# timm's layer for each torchvision layer inside a block: the first block has no expansion.
_FIRST_BLOCK = {"conv.0.0": "conv_dw", "conv.0.1": "bn1", "conv.1": "conv_pw", "conv.2": "bn2"}
_BLOCK = {
    "conv.0.0": "conv_pw",
    "conv.0.1": "bn1",
    "conv.1.0": "conv_dw",
    "conv.1.1": "bn2",
    "conv.2": "conv_pwl",
    "conv.3": "bn3",
}


def torchvision_to_timm() -> dict[str, str]:
    """Every name in torchvision's state dict (classifier included) with timm's name for it."""
    layers = {"features.0.0": "conv_stem", "features.0.1": "bn1", "features.18.0": "conv_head", "features.18.1": "bn2"}
    number = 1
    for stage, blocks in enumerate(_BLOCKS_PER_STAGE):
        for block in range(blocks):
            inner = _FIRST_BLOCK if number == 1 else _BLOCK
            layers |= {
                f"features.{number}.{theirs}": f"blocks.{stage}.{block}.{ours}" for theirs, ours in inner.items()
            }
            number += 1
    names: dict[str, str] = {}
    for theirs, ours in layers.items():
        is_bn = ours.rpartition(".")[2].startswith("bn")
        for leaf in _BN if is_bn else ("weight",):
            names[f"{theirs}.{leaf}"] = f"{ours}.{leaf}"
    return names | {"classifier.1.weight": "classifier.weight", "classifier.1.bias": "classifier.bias"}


def rename_to_timm(state: Mapping[str, Value]) -> dict[str, Value]:
    """Rename a torchvision MobileNetV2 state dict; `num_batches_tracked` entries may be absent.

    Raises LungCTError when a weight is missing or a name is unknown.
    """
    names = torchvision_to_timm()
    unknown = sorted(set(state) - set(names))
    missing = sorted(name for name in set(names) - set(state) if not name.endswith("num_batches_tracked"))
    if unknown or missing:
        raise LungCTError(
            "The weights are not those of torchvision's mobilenet_v2 (width 1.0): "
            f"{len(missing)} missing (e.g. {missing[:2]}), {len(unknown)} unknown (e.g. {unknown[:2]})."
        )
    return {names[name]: value for name, value in state.items()}
