"""Logits for many slices under one or several processes, each slice exactly once."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from ..model.network import classes_of, logits_and_features
from ..slices.preprocess import Preprocessing

_BATCH = 32


class View(Protocol):
    """Slices as uint8 (size, size, 3), by row."""

    def __getitem__(self, row: int) -> np.ndarray: ...


def predict_rows(
    network: nn.Module,
    squares: View,
    rows: np.ndarray,
    preprocessing: Preprocessing,
    accelerator: Accelerator,
) -> np.ndarray:
    """float32 logits (len(rows), 3) in the order of `rows`, in full precision, the same on every process.

    Every process takes each n-th row without padding, so there is nothing to drop after gathering.
    """
    return predict_with_features(network, squares, rows, preprocessing, accelerator)[0]


@torch.inference_mode()
def predict_with_features(
    network: nn.Module,
    squares: View,
    rows: np.ndarray,
    preprocessing: Preprocessing,
    accelerator: Accelerator,
) -> tuple[np.ndarray, np.ndarray]:
    """As `predict_rows`, and the statistics (len(rows), D) of the guard's stage (guard.py) from the same pass."""
    was_training = network.training
    network.eval()
    positions = np.arange(len(rows))[accelerator.process_index :: accelerator.num_processes]
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for start in range(0, len(positions), _BATCH):
        mine = positions[start : start + _BATCH]
        batch = preprocessing.normalise(np.stack([squares[int(rows[position])] for position in mine]))
        inputs = torch.from_numpy(batch).to(accelerator.device, memory_format=torch.channels_last)
        found, statistics = logits_and_features(network, inputs)
        parts.append((mine, found.cpu().numpy(), statistics.cpu().numpy()))
    network.train(was_training)
    logits = np.full((len(rows), classes_of(network)), np.nan, np.float32)
    gathered = gather_object(parts)
    features = np.empty((len(rows), gathered[0][2].shape[1] if gathered else 0), np.float32)
    for where, values, statistics in gathered:
        logits[where], features[where] = values, statistics
    return logits, features


def mean_log_loss(labels: np.ndarray, logits: np.ndarray) -> float:
    """Mean negative log-likelihood of the true class, nats."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())
