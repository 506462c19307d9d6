"""A signal always ends a run: at a step where something is to be saved, at once elsewhere, and also one that hangs."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import sys, time
from lungct_hf.fit.stopping import Stopped, StopRequest
stop = StopRequest(patience=float(sys.argv[2]))
if sys.argv[1] == "in a step":
    stop.begin_steps()
try:
    print("ready", flush=True)
    time.sleep(120)
except Stopped:
    print("nothing to save", flush=True)
    sys.exit(stop.exit_code)
"""


@pytest.mark.parametrize(
    ("where", "patience", "said"), [("reading data", 100.0, "nothing to save"), ("in a step", 1.0, "")]
)
def test_sigterm_ends_what_is_no_step_and_what_hangs(where: str, patience: float, said: str) -> None:
    command = [sys.executable, "-c", PROGRAM, where, str(patience)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[0].strip() == said
    assert process.returncode == 128 + signal.SIGTERM
