"""Ask a run to stop at the next step: SIGTERM, Ctrl-C, or the launcher's death."""

from __future__ import annotations

import os
import signal
from types import FrameType

import torch
from accelerate import Accelerator


class StopRequest:
    """Set by a signal; training looks at it after every step, writes a checkpoint and leaves with `exit_code`."""

    def __init__(self) -> None:
        self.exit_code = 0
        # A launcher (accelerate, torchrun) that is killed does not take this process along. Left alone, it would go
        # on writing into a folder that somebody resumes, so losing the launcher counts as a request to stop.
        launched = any(name in os.environ for name in ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID"))
        self._launcher = os.getppid() if launched else None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.exit_code and number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a third Ctrl-C does not wait for the step
        self.exit_code = 128 + number

    def agreed(self, accelerator: Accelerator) -> bool:
        """Whether training should end after this step; true on all processes as soon as it is on one."""
        if self._launcher is not None and os.getppid() != self._launcher and not self.exit_code:
            self.exit_code = 128 + signal.SIGTERM
        if accelerator.num_processes == 1:
            return self.exit_code != 0
        codes = accelerator.gather(torch.tensor([self.exit_code], device=accelerator.device))
        self.exit_code = int(codes.max())
        return self.exit_code != 0
