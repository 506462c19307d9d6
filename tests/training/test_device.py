"""An Apple GPU is taken only where it computes as the CPU does. There is none here: steps are handed in."""

import pytest
import torch

from helpers import TINY, train
from lungct_hf.errors import LungCTError, UsageError
from lungct_hf.fit.device import fault_of, on_cpu, training_step

MPS, CUDA, CPU = torch.device("mps"), torch.device("cuda"), torch.device("cpu")


@pytest.fixture(scope="module")
def right() -> dict[str, torch.Tensor]:
    return training_step(CPU)


@pytest.mark.parametrize("part", ["logits", "batch statistics", "gradients"])
def test_what_a_device_computes_is_compared_with_the_cpu(right: dict[str, torch.Tensor], part: str) -> None:
    steps = {"cpu": right, "mps": right | {part: right[part] * 1.0001}}
    assert fault_of(MPS, lambda device: steps[device.type]) is None, "other sums, no fault"
    steps["mps"] = right | {part: right[part] * 1.1}
    assert f"other {part} than the CPU (by 10.0%" in str(fault_of(MPS, lambda device: steps[device.type]))
    steps["mps"] = right | {part: right[part] * float("nan")}
    assert part in str(fault_of(MPS, lambda device: steps[device.type]))


def test_a_device_that_lacks_an_operation() -> None:
    def step(device: torch.device) -> dict[str, torch.Tensor]:
        if device == MPS:
            raise NotImplementedError("The operator aten::x is not implemented for MPS.")
        return {}

    assert fault_of(MPS, step) == "fails at a training step (The operator aten::x is not implemented for MPS)"


def test_the_step_is_repeatable() -> None:
    """So a difference is the device's."""
    assert fault_of(CPU, training_step) is None


def test_which_device_is_taken(right: dict[str, torch.Tensor]) -> None:
    said: list[str] = []
    steps = {"cpu": right, "mps": right | {"gradients": -right["gradients"]}}
    broken, whole = (lambda device: steps[device.type]), (lambda device: steps["cpu"])
    assert on_cpu("auto", None, said.append) and on_cpu("cpu", MPS, said.append) and on_cpu("cpu", CUDA, said.append)
    assert not on_cpu("auto", CUDA, said.append) and not on_cpu("auto", MPS, said.append, whole)
    assert not said
    assert on_cpu("auto", MPS, said.append, broken) and "gradients" in said[0] and "CPU" in said[0]
    with pytest.raises(LungCTError, match="Fix: --device cpu"):
        on_cpu("mps", MPS, said.append, broken)
    for found in (None, CUDA):
        with pytest.raises(UsageError, match="no Apple GPU"):
            on_cpu("mps", found, said.append)


@pytest.mark.slow
def test_asking_for_a_gpu_that_is_not_there(tmp_path) -> None:
    if torch.backends.mps.is_available():
        pytest.skip("this machine has an Apple GPU")
    done = train("--device", "mps", "--output-dir", tmp_path / "run", *TINY)
    assert done.returncode == 2 and "no Apple GPU" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
