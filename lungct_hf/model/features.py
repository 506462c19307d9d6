"""What a frozen ImageNet backbone sees in a slice: features that change little when a slice is cropped or moved."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ..errors import UsageError
from ..slices.preprocess import Preprocessing
from .imagenet import InitWeights, load_init
from .network import ARCHITECTURE, build_network


def backbone_features(
    pictures: Iterable[Image.Image],
    init: InitWeights | str | Path,
    *,
    batch: int = 32,
    size: int = 224,
    total: int | None = None,
    progress: bool = False,
) -> np.ndarray:
    """The pooled features of MobileNetV2 with the ImageNet weights `init`, float32 (N, 1280), rows of norm 1.

    Args:
        pictures: slices (PIL), decoded one batch at a time; each is letterboxed to `size` pixels.
        init: loaded weights, or what `--init` takes: imagenet1k-v2, or the path of a .pth or .safetensors file.
        total: how many pictures there are, for the bar on stderr that `progress` asks for.

    Raises:
        UsageError: the weights are random.
        LungCTError: they cannot be loaded or do not fit.
    """
    weights = init if isinstance(init, InitWeights) else load_init(str(init))
    if weights.state is None:
        raise UsageError("Features of random weights mean nothing. Fix: imagenet1k-v2, or a file of ImageNet weights.")
    network: Any = build_network(ARCHITECTURE, 1)
    weights.apply(network)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if device is None or device.type == "mps":  # an Apple GPU has computed other numbers (fit/device.py)
        device = torch.device("cpu")
    network = network.eval().to(device).to(memory_format=torch.channels_last)
    preprocessing, waiting = Preprocessing(size=size), iter(pictures)
    found: list[np.ndarray] = []
    # TF32 on a GPU moves a cosine by 1e-3; what is linked must not depend on the machine.
    exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    bar = tqdm(total=total, desc="Backbone features", unit="slice", delay=2, disable=not progress)
    with torch.inference_mode(), exact, bar:
        while part := list(itertools.islice(waiting, batch)):
            inputs = torch.from_numpy(np.stack([preprocessing(picture) for picture in part]))
            inputs = inputs.to(device, memory_format=torch.channels_last)
            pooled = network.forward_head(network.forward_features(inputs), pre_logits=True)
            found.append(torch.nn.functional.normalize(pooled.float(), dim=1).cpu().numpy())
            bar.update(len(part))
    return np.concatenate(found) if found else np.empty((0, 1280), np.float32)
