"""The same network in torch, for machines that have it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..contract import Contract
from ..model.network import network_outputs
from .session import Outputs

_BATCH = 16


class TorchSession:
    """A network on whatever device it is; a run leaves it in the mode, training or evaluation, that it was in."""

    backend = "torch"

    def __init__(self, network: nn.Module, contract: Contract) -> None:
        self._network, self._preprocessing = network, contract.preprocessing
        self._measured = contract.measured_output

    @torch.inference_mode()
    def run(self, squares: np.ndarray) -> Outputs:
        """uint8 squares (N, size, size, 3) to the network's outputs."""
        was_training, like = self._network.training, next(self._network.parameters())
        if was_training:
            self._network.eval()
        parts = []
        try:
            for start in range(0, max(1, len(squares)), _BATCH):
                inputs = torch.from_numpy(self._preprocessing.normalise(squares[start : start + _BATCH])).to(like)
                logits, cam, pooled, source = network_outputs(self._network, inputs)
                features = pooled if self._measured == "features" else source
                parts.append([values.cpu().numpy() for values in (logits, features, cam)])
        finally:
            if was_training:
                self._network.train()
        return Outputs(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def load_session(folder: Path, threads: int | None = None) -> TorchSession:
    """`model.safetensors` of a model directory, on the CPU. `threads` sets the process's torch threads."""
    from .classifier import LungCTClassifier

    if threads is not None:
        torch.set_num_threads(threads)
    classifier = LungCTClassifier.from_pretrained(folder)
    return TorchSession(classifier.network, classifier.contract)
