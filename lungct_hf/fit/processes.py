"""The accelerator of one run, and what is seen of it while it goes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch._dynamo
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs
from tqdm import tqdm

from ..errors import LungCTError, UsageError, brief
from .options import Options
from .tracking import CsvTracker


def make_accelerator(options: Options, history: CsvTracker) -> Accelerator:
    """A fresh accelerator with trackers of its own; several in one process share its device and process group."""
    try:
        return Accelerator(
            cpu=PartialState().device.type == "cpu",
            mixed_precision=options.mixed_precision,
            gradient_accumulation_steps=options.recipe.accumulate,
            log_with=["tensorboard", history],
            project_dir=options.run / "logs",
            # Head-first epochs leave the body without gradients; several processes must be told to expect that.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=options.recipe.head_epochs > 0)],
        )
    except ValueError as error:  # accelerate refuses a precision that this machine does not have
        raise UsageError(f"--mixed-precision {options.mixed_precision}: {error} Fix: --mixed-precision no.") from error


def compiled_by(accelerator: Accelerator) -> str | None:
    """The backend of torch.compile that accelerate was configured with (--dynamo_backend); None for none."""
    backend = str(accelerator.state.dynamo_plugin.backend.value).lower()
    return None if backend == "no" else backend


@contextmanager
def compiling() -> Iterator[None]:
    """Raises LungCTError where torch.compile fails, which it does at the first step."""
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        raise LungCTError(
            f"torch.compile, which accelerate is configured for, failed here ({brief(error)}). Fix: install a C++ "
            "compiler (g++), or train without it: ACCELERATE_DYNAMO_BACKEND=no."
        ) from error


def finish_trackers(accelerator: Accelerator) -> None:
    """Close the logs. `end_training` would also end the process group, which the next fold needs."""
    for tracker in accelerator.trackers:
        tracker.finish()


def epoch_bar(text: str, *, slices: int, done: int, shown: bool) -> tqdm:
    """A progress bar over the slices of one epoch; a log file gets few lines."""
    terminal = sys.stderr.isatty()
    return tqdm(
        total=slices,
        initial=done,
        desc=text,
        unit="img",
        mininterval=0.5 if terminal else 10,
        delay=0 if terminal else 5,
        disable=not shown,
        leave=False,
    )


def stop_here(accelerator: Accelerator, step: int) -> None:
    """Say where a run was asked to stop, and close what it writes to."""
    accelerator.print(f"\nStopped at step {step}.")
    finish_trackers(accelerator)
