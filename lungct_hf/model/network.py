"""The bare timm network with a new fully connected layer for the data's classes. Building it never downloads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import nn

from ..errors import LungCTError, UsageError

ARCHITECTURE = "mobilenetv2_100"


def build_network(architecture: str = ARCHITECTURE, classes: int = 3, *, drop_rate: float = 0.0) -> nn.Module:
    """A timm MobileNetV2 with random weights: (N, 3, H, W) normalised input to (N, classes) logits.

    `drop_rate` is the dropout probability before the last layer (0..1).
    """
    known = timm.list_models("mobilenetv2_*")
    if architecture not in known:
        raise UsageError(f"Unknown architecture {architecture!r}; needed is one of {', '.join(known)}.")
    network = timm.create_model(architecture, pretrained=False, num_classes=classes, drop_rate=drop_rate)
    # timm's start for so narrow a layer gives logits of several units; torchvision's keeps the first loss near ln 3.
    nn.init.normal_(network.classifier.weight, std=0.01)
    nn.init.zeros_(network.classifier.bias)
    return network


def classes_of(network: nn.Module) -> int:
    """How many classes a network of `build_network` tells apart."""
    return int(network.num_classes)  # type: ignore[arg-type]


def logits_and_features(network: nn.Module, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (N, 3) and the pooled features (N, D) before the last layer, float32, from one pass."""
    features = network.forward_head(network.forward_features(inputs), pre_logits=True)  # type: ignore[operator]
    return network.get_classifier()(features).float(), features.float()  # type: ignore[operator]


def logits_cam_features(network: nn.Module, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (N, 3), class-activation maps (N, 3, h, w) and pooled features (N, D), float32, from one pass.

    The last layer is linear and what it sees is a mean over places, so the same layer applied at every place is the
    class-activation map (Zhou et al. 2016) and its mean over the places is the logit: no gradients are needed.
    """
    maps = network.forward_features(inputs)  # type: ignore[operator]
    features = network.forward_head(maps, pre_logits=True)  # type: ignore[operator]
    layer: Any = network.get_classifier()  # type: ignore[operator]
    cam = nn.functional.conv2d(maps, layer.weight[:, :, None, None], layer.bias)
    return layer(features).float(), cam.float(), features.float()


def load_strictly(network: nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Load `state`, raising LungCTError that names every kind of difference instead of guessing."""
    wanted = network.state_dict()
    missing = sorted(set(wanted) - set(state))
    extra = sorted(set(state) - set(wanted))
    shapes = [
        f"{name} is {tuple(state[name].shape)}, needed {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in state and state[name].shape != value.shape
    ]
    if missing or extra or shapes:
        found = [f"{len(missing)} missing ({', '.join(missing[:3])})"] if missing else []
        found += [f"{len(extra)} not known ({', '.join(extra[:3])})"] if extra else []
        found += [f"{len(shapes)} of another shape ({'; '.join(shapes[:3])})"] if shapes else []
        raise LungCTError(
            f"The weights in {source} do not fit the network its config.json names: {'; '.join(found)}. "
            "Fix: take model.safetensors and config.json from the same revision."
        )
    not_finite = sorted(name for name, value in state.items() if not torch.isfinite(value).all())
    if not_finite:
        raise LungCTError(f"The weights in {source} hold values that are not finite, e.g. in {not_finite[0]}.")
    network.load_state_dict(state, strict=True)
