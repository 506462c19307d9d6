"""Checkpoints: one file each, complete or absent, from which training continues bit for bit."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from ..errors import LungCTError, brief
from ..files import write_atomic

_NAME = re.compile(r"step-(\d+)\.pt")
_KEEP = 2
_WAIT_SECONDS = 120.0


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write `state` (tensors and plain values) as step-NNNNNNNN.pt, then drop all but the newest two."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path = folder / f"step-{step:08d}.pt"
    write_atomic(path, buffer.getvalue())
    for old in _checkpoints(folder)[:-_KEEP]:
        old.unlink(missing_ok=True)
    return path


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint in `folder`, or None when there is none. Only tensors and plain values are unpickled."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)
    found = _checkpoints(folder)
    if not found:
        return None
    try:
        return torch.load(found[-1], map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a damaged file
        raise LungCTError(
            f"The checkpoint {found[-1].name} is damaged ({brief(error)}). "
            "Fix: delete that file; the one before it is used then."
        ) from error


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*.pt") if _NAME.fullmatch(path.name))


@contextlib.contextmanager
def sole_owner(run: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the run folder for this process; wait a while for one that is just ending, refuse one that is not.

    The operating system frees the lock of a killed process.
    """
    run.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"Waiting for the process that still holds {run} ...")
        try:
            lock.acquire(timeout=_WAIT_SECONDS)
        except Timeout as error:
            raise LungCTError(
                f"Another process is training in {run}. Fix: wait for it, stop it, or use another --output-dir."
            ) from error
    with lock:
        lock.release()  # the acquisition above; the one of this block remains
        yield
