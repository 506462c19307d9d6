"""Ask a run to stop at the next step: SIGTERM, Ctrl-C, or the launcher's death."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

import torch
from accelerate import Accelerator

_PATIENCE = 300.0  # seconds within which a training step, or the judgement of an epoch, has to end


class Stopped(BaseException):
    """A run was asked to stop where there is nothing to save; like KeyboardInterrupt no Exception."""


class StopRequest:
    """Set by a signal; training looks at it after every step, writes a checkpoint and leaves with `exit_code`.

    Before `begin_steps` and after `end_steps` a signal raises Stopped at once. A run that hangs is ended after
    `patience` seconds: what its checkpoints hold is safe.
    """

    def __init__(self, patience: float = _PATIENCE) -> None:
        self.exit_code = 0
        self._patience, self._in_steps = patience, False
        # A launcher (accelerate, torchrun) that is killed does not take this process along. Left alone, it would go
        # on writing into a folder that somebody resumes, so losing the launcher counts as a request to stop.
        launched = any(name in os.environ for name in ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID"))
        self._launcher = os.getppid() if launched else None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        again, self.exit_code = self.exit_code != 0, 128 + number
        if again:  # launchers pass on a SIGTERM that their whole group got already
            if number == signal.SIGINT:
                signal.signal(signal.SIGINT, signal.default_int_handler)  # a third Ctrl-C does not wait for the step
            return
        last = threading.Timer(self._patience, os._exit, [self.exit_code])
        last.daemon = True
        last.start()
        if not self._in_steps:
            raise Stopped

    def begin_steps(self) -> None:
        """From here on a signal waits until `agreed` is asked."""
        self._in_steps = True

    def end_steps(self) -> None:
        """No step follows. Raises Stopped where a signal came too late to be asked for."""
        self._in_steps = False
        if self.exit_code:
            raise Stopped

    def agreed(self, accelerator: Accelerator) -> bool:
        """Whether training should end after this step; true on all processes as soon as it is on one."""
        if self._launcher is not None and os.getppid() != self._launcher and not self.exit_code:
            self.exit_code = 128 + signal.SIGTERM
        if accelerator.num_processes == 1:
            return self.exit_code != 0
        codes = accelerator.gather(torch.tensor([self.exit_code], device=accelerator.device))
        self.exit_code = int(codes.max())
        return self.exit_code != 0
