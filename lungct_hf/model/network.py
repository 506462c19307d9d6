"""The bare timm network with a new fully connected layer for the data's classes. Building it never downloads."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import timm
import torch
from timm.layers import SelectAdaptivePool2d
from torch import nn

from ..errors import LungCTError, UsageError, brief
from ..guard import STAGE

ARCHITECTURE = "mobilenetv2_100"
# The timm architectures that are tested from training to every loader. All of them end in feature maps, their mean
# over the places and one linear layer: calibration, class-activation maps, the distance to the training slices, the
# ONNX export and transformers rest on that.
FAMILIES = ("mobilenetv2_*", "efficientnet_b0")


def build_network(architecture: str, classes: int, *, drop_rate: float = 0.0) -> nn.Module:
    """A timm network with random weights: (N, 3, H, W) normalised input to (N, classes) logits.

    `drop_rate` is the dropout probability before the last layer (0..1). Raises UsageError as `check_architecture`.
    """
    check_architecture(architecture)
    network = timm.create_model(architecture, pretrained=False, num_classes=classes, drop_rate=drop_rate)
    # timm's start for so narrow a layer gives logits of several units; torchvision's keeps the first loss near ln C.
    nn.init.normal_(network.get_classifier().weight, std=0.01)
    nn.init.zeros_(network.get_classifier().bias)
    return network


def check_architecture(architecture: str) -> None:
    """Look whether a network can be trained and published here, before anything else is done; no weights are made.

    Raises UsageError with the reason for an architecture that timm does not know, whose head is not pooled features
    and one linear layer, or that is none of the tested ones (FAMILIES).
    """
    tested = f"Fix: take a tested architecture ({', '.join(tested_architectures())})."
    if not timm.is_model(architecture):
        raise UsageError(f"timm {timm.__version__} knows no architecture {architecture!r}. {tested}")
    problem = _head_problem(architecture)
    if problem is None and architecture not in tested_architectures():
        problem = "its head would do, but nobody has tested it from training to every loader"
    if problem:
        raise UsageError(f"The architecture {architecture!r} cannot be used: {problem}. {tested}")


@cache
def stages_of(architecture: str) -> int:
    """How many stages (`blocks`) a network of one of the FAMILIES has; no weights are made."""
    with torch.device("meta"):
        return len(timm.create_model(architecture, pretrained=False).blocks)


@cache
def tested_architectures() -> tuple[str, ...]:
    """What FAMILIES stands for with the timm that is installed."""
    return tuple(name for family in FAMILIES for name in timm.list_models(family))


@cache
def _head_problem(architecture: str) -> str | None:
    """Why what follows the feature maps is not their mean and one linear layer; None where it is.

    The network is built and run without memory for numbers (device "meta"), so a large one costs nothing.
    """
    called: list[str] = []
    try:
        with torch.device("meta"), torch.inference_mode():
            network: Any = timm.create_model(architecture, pretrained=False, num_classes=2).eval()
            layer = network.get_classifier()
            maps = network.forward_features(torch.zeros(1, *network.pretrained_cfg["input_size"]))
            for module in network.modules():
                if next(module.parameters(recurse=False), None) is not None:
                    module.register_forward_hook(lambda one, *_: called.append(type(one).__name__))
            network.forward_head(maps, pre_logits=True)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        return f"it does not run as timm's image classifiers do ({brief(error)})"
    if maps.ndim != 4:
        return f"its features are {maps.shape[1]} tokens, and maps with a mean over the places are needed"
    if not isinstance(layer, nn.Linear):
        return f"its last layer is a {type(layer).__name__}, and one linear layer is needed"
    if called:
        return f"a {called[0]} stands between its feature maps and the last layer, where only their mean may"
    if layer.in_features != maps.shape[1]:
        return f"its last layer takes {layer.in_features} features and its maps, channels first, have {maps.shape[1]}"
    if not any(isinstance(one, SelectAdaptivePool2d) and one.pool_type == "avg" for one in network.modules()):
        return "its features are not the mean of its maps over the places"
    return None


def classes_of(network: nn.Module) -> int:
    """How many classes a network of `build_network` tells apart."""
    return int(network.num_classes)  # type: ignore[arg-type]


def logits_and_features(
    network: nn.Module, inputs: torch.Tensor, output: str = "source"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (N, C) and what the abstain rule measures, float32, from one pass.

    `output` "source" gives the statistics (N, D) of the guard's stage, "features" the pooled features before the last
    layer, which models of schema 1 look at.
    """
    logits, _, features, source = network_outputs(network, inputs)
    return logits, source if output == "source" else features


def network_outputs(network: nn.Module, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """All that `onnx/model.onnx` gives, float32, from one pass: logits (N, C), class-activation maps (N, C, h, w),
    pooled features (N, D), and mean and standard deviation of each channel (N, 2 K) of the guard's stage.

    The last layer is linear and what it sees is a mean over places, so the same layer applied at every place is the
    class-activation map (Zhou et al. 2016) and its mean over the places is the logit: no gradients are needed.
    """
    inner, maps = _stage_and_maps(network, inputs)
    features = network.forward_head(maps, pre_logits=True)  # type: ignore[operator]
    layer: Any = network.get_classifier()  # type: ignore[operator]
    cam = nn.functional.conv2d(maps, layer.weight[:, :, None, None], layer.bias)
    mean = inner.mean(dim=(2, 3), keepdim=True)
    scatter = (inner - mean).square().mean(dim=(2, 3)).sqrt()
    source = torch.cat([mean.flatten(1), scatter], dim=1)
    return layer(features).float(), cam.float(), features.float(), source.float()


def _stage_and_maps(network: Any, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the guard's stage gives, and the feature maps that the head pools: timm's `forward_features`, step by step.

    Not by a hook on the stage: several threads may run one network at once.
    """
    maps = inner = network.bn1(network.conv_stem(inputs))
    for number, stage in enumerate(network.blocks, start=1):
        maps = stage(maps)
        inner = maps if number == STAGE else inner
    return inner, network.bn2(network.conv_head(maps))


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
