"""The same network in torch, for machines that have it. The only module of this room that imports torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..model import LungCTClassifier
from ..model.network import logits_cam_features
from .session import Outputs

_BATCH = 16


class TorchSession:
    """`model.safetensors` of a model directory, on the CPU. `threads` sets the process's torch threads."""

    backend = "torch"

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        classifier = LungCTClassifier.from_pretrained(folder)
        self._network, self._preprocessing = classifier.network.eval(), classifier.preprocessing

    @torch.inference_mode()
    def run(self, squares: np.ndarray) -> Outputs:
        """uint8 squares (N, size, size, 3) to the network's outputs."""
        parts = []
        for start in range(0, max(1, len(squares)), _BATCH):
            inputs = torch.from_numpy(self._preprocessing.normalise(squares[start : start + _BATCH]))
            logits, cam, features = logits_cam_features(self._network, inputs)
            parts.append((logits.numpy(), features.numpy(), cam.numpy()))
        return Outputs(*(np.concatenate(values) for values in zip(*parts, strict=True)))
