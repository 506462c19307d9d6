"""The network as `onnx/model.onnx`: one file, any batch size, checked against torch before it is written.

Input `pixel_values` (N, 3, size, size) float32, as `Preprocessing` gives it. Outputs, float32, are those of
`network.network_outputs`: `logits`, `cam`, `features`, and `source`, by which the guard tells where a slice is from.

The TorchScript-based exporter is used on purpose. For these networks it gives the same bytes every time, in a third of
a second, with only standard operators at opset 17; the graph of the torch.export-based one (torch 2.14) differs in no
way that helps (same convolutions, same outputs), takes ten seconds, needs onnxscript, and carries stack traces with
the paths of the machine it was written on.
"""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..contract import ONNX_FILE, ONNX_INPUT, ONNX_OUTPUTS
from ..errors import LungCTError, UsageError, brief, require
from ..files import write_atomic
from ..slices.preprocess import Preprocessing
from .network import network_outputs

OPSET = 17
TOLERANCE = 1e-4  # largest allowed difference of a logit from torch's
_BATCH = 16


class _Outputs(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return network_outputs(self.network, pixel_values)


def export_onnx(network: nn.Module, preprocessing: Preprocessing, squares: np.ndarray, folder: Path) -> dict[str, Any]:
    """Write `onnx/model.onnx` into the model directory `folder` and return its record for lungct.json.

    `squares` uint8 (N, size, size, 3), N > 1, are the letterboxed slices on which torch and ONNX Runtime are compared.

    Raises:
        UsageError: fewer than two squares, or of another shape.
        LungCTError: onnx is not installed, or a logit differs by more than TOLERANCE; nothing is written then.
    """
    side = preprocessing.size
    if squares.dtype != np.uint8 or squares.ndim != 4 or squares.shape[1:] != (side, side, 3) or len(squares) < 2:
        raise UsageError(
            f"Parity needs uint8 squares of shape (2 or more, {side}, {side}, 3), got {squares.dtype} {squares.shape}."
        )
    content = onnx_bytes(network, preprocessing)
    parity = measure_parity(network, content, preprocessing, squares)
    if not parity["logits"] <= TOLERANCE:
        raise LungCTError(
            f"{ONNX_FILE} was not written: on {len(squares)} slices ONNX Runtime's logits differ from torch's by up "
            f"to {parity['logits']:.2g} (limit {TOLERANCE:g}). Fix: check the weights for extreme values, or report "
            "this with the versions of torch and onnxruntime."
        )
    write_atomic(folder / ONNX_FILE, content)
    return {
        "file": ONNX_FILE,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "opset": OPSET,
        "outputs": list(ONNX_OUTPUTS),
        "parity": {"slices": len(squares), "tolerance": TOLERANCE, "largest_difference": parity},
    }


def onnx_bytes(network: nn.Module, preprocessing: Preprocessing) -> bytes:
    """The ONNX model file of `network` in evaluation mode; the network is left as it was."""
    require("onnx", "train")
    was_training, device = network.training, next(network.parameters()).device
    example = torch.zeros(2, 3, preprocessing.size, preprocessing.size, device=device)
    try:
        with tempfile.TemporaryDirectory(prefix="lungct-onnx-") as scratch, warnings.catch_warnings():
            path = Path(scratch) / "model.onnx"
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            torch.onnx.export(
                _Outputs(network).eval(),
                (example,),
                path,
                dynamo=False,
                opset_version=OPSET,
                input_names=[ONNX_INPUT],
                output_names=list(ONNX_OUTPUTS),
                dynamic_axes={name: {0: "batch"} for name in (ONNX_INPUT, *ONNX_OUTPUTS)},
            )
            return path.read_bytes()
    finally:
        network.train(was_training)


@torch.inference_mode()
def measure_parity(
    network: nn.Module, content: bytes, preprocessing: Preprocessing, squares: np.ndarray
) -> dict[str, float]:
    """The largest absolute difference between torch and ONNX Runtime for each output, one slice alone included."""
    session = _session(content)
    was_training, device = network.training, next(network.parameters()).device
    network.eval()
    largest = dict.fromkeys(ONNX_OUTPUTS, 0.0)
    for part in _batches(squares):
        inputs = preprocessing.normalise(part)
        expected = network_outputs(network, torch.from_numpy(inputs).to(device))
        found = session.run(list(ONNX_OUTPUTS), {ONNX_INPUT: inputs})
        for name, ours, theirs in zip(ONNX_OUTPUTS, found, expected, strict=True):
            difference = float(np.abs(ours - theirs.cpu().numpy()).max())
            largest[name] = max(largest[name], difference if np.isfinite(difference) else float("inf"))
    network.train(was_training)
    return largest


def _batches(squares: np.ndarray) -> Iterator[np.ndarray]:
    yield squares[:1]
    for start in range(1, len(squares), _BATCH):
        yield squares[start : start + _BATCH]


def _session(content: bytes) -> Any:
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own exceptions have no common base below this
        raise LungCTError(f"ONNX Runtime cannot load the exported network ({brief(error)}).") from error
