"""Which device a run trains on: what accelerate finds, but an Apple GPU only after it has computed as the CPU does.

torch's MPS backend has had faults that raise nothing: depthwise convolutions of channels-last tensors, of which a
MobileNetV2 is made, gave other numbers there. So a small network takes one training step on both first.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ..errors import LungCTError, UsageError, brief
from ..model import build_network

Step = Callable[[torch.device], dict[str, torch.Tensor]]
_TOLERANCE = 0.01  # of a tensor's norm; another order of sums makes some 1e-5, a faulty kernel about 1


def on_cpu(asked: str, found: torch.device | None, say: Callable[[str], None], step: Step | None = None) -> bool:
    """Whether to train on the CPU, of what --device asks (options.DEVICES) and the accelerator that torch has found.

    "auto" falls back to the CPU, and says so, where an Apple GPU computes something else. Raises UsageError for "mps"
    without such a GPU, and LungCTError where it is asked for by name and computes something else.
    """
    if asked == "mps" and (found is None or found.type != "mps"):
        raise UsageError("--device mps: torch finds no Apple GPU here. Fix: --device auto.")
    if asked == "cpu" or found is None:
        return True
    if found.type != "mps":
        return False
    fault = fault_of(found, step or training_step)
    if fault is None:
        return False
    if asked == "mps":
        raise LungCTError(f"--device mps: the Apple GPU {fault}. Fix: --device cpu, or another version of torch.")
    say(f"The Apple GPU is not used: it {fault}. Training on the CPU.")
    return True


def fault_of(device: torch.device, step: Step) -> str | None:
    """What `step` gives on `device` and not on the CPU, as the rest of a sentence; None where it is the same."""
    wanted = step(torch.device("cpu"))
    try:
        found = step(device)
    except (RuntimeError, NotImplementedError, TypeError) as error:  # an operation or a type that it does not have
        return f"fails at a training step ({brief(error).rstrip('.')})"
    for name, value in wanted.items():
        scale = float(value.norm()) or 1.0
        away = float((found[name] - value).norm()) / scale
        if not away <= _TOLERANCE:  # NaN as well
            return f"computes other {name} than the CPU (by {away:.1%} of their size)"
    return None


def training_step(device: torch.device) -> dict[str, torch.Tensor]:
    """Logits, statistics and gradients (on the CPU) of one step of a small MobileNetV2 as training runs it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network("mobilenetv2_035", 3)
        inputs, labels = torch.randn(8, 3, 64, 64), torch.arange(8) % 3
    network = network.to(device).to(memory_format=torch.channels_last).train()
    logits = network(inputs.to(device, memory_format=torch.channels_last))
    nn.functional.cross_entropy(logits, labels.to(device)).backward()
    gradients = [value.grad for value in network.parameters() if value.grad is not None]
    found = {"logits": [logits], "batch statistics": list(network.buffers()), "gradients": gradients}
    return {name: torch.cat([one.detach().cpu().float().flatten() for one in part]) for name, part in found.items()}
