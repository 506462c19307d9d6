"""No library below the package reports to its makers: seen by the kernel's own record of a whole program."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.small_model import write_model

_WAIT = 12  # seconds; ONNX Runtime reports nine seconds after its start
_ABROAD = re.compile(r"(connect|sendto|sendmsg|sendmmsg)\(.*sa_family=AF_INET6?")
PREDICT = """
import sys, time
{before}
from lungct_hf import LungCT
from lungct_hf.slices.phantom import draw_phantom
{after}
model = LungCT.from_pretrained(sys.argv[1])
print(len(model.predict(draw_phantom("normal", 0, 0.0), force=True)))
time.sleep({wait})
"""


@pytest.fixture(scope="module")
def strace() -> str:
    found = shutil.which("strace")
    if found is None:
        pytest.skip("strace is not installed here (Debian: apt-get install strace)")
    return found


def traced(strace: str, folder: Path, code: str, *arguments: Path) -> tuple[list[str], list[str], str]:
    """(calls that address another host, files left in the home folder, what was printed) of a Python program."""
    home, record = folder / "home", folder / "record"
    home.mkdir()
    done = subprocess.run(
        [strace, "-f", "-qq", "-e", "trace=network", "-o", record, sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        env={"PATH": "/usr/bin:/bin", "HOME": str(home), "PYTHONPATH": ":".join(filter(None, sys.path))},
    )
    if "ptrace" in done.stderr and done.returncode:
        pytest.skip(f"strace may not trace here: {done.stderr.strip()[:100]}")
    assert done.returncode == 0, done.stderr
    calls = [line for line in record.read_text().splitlines() if _ABROAD.search(line)]
    files = [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]
    return calls, files, done.stdout + done.stderr


@pytest.mark.slow
def test_a_prediction_reports_to_nobody(strace: str, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    calls, files, _ = traced(strace, tmp_path, PREDICT.format(before="", after="", wait=_WAIT), model)
    assert calls == [] and files == []


@pytest.mark.slow
def test_the_test_sees_a_report(strace: str, tmp_path: Path) -> None:
    """With the switch undone ONNX Runtime does report, so that the test above can fail."""
    model = write_model(tmp_path / "model")
    undo = "import os; del os.environ['ORT_DISABLE_TELEMETRY']"
    calls, files, _ = traced(strace, tmp_path, PREDICT.format(before="", after=undo, wait=_WAIT), model)
    if not (calls or files):
        pytest.skip("this version of onnxruntime reports nothing even where it may")
    assert any("deviceid" in name for name in files) or calls


def test_the_switches_are_set_and_a_late_import_is_said() -> None:
    """A user who imports onnxruntime first is told: its own switch was read by then."""
    code = """
import os, warnings
for name in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "GRADIO_ANALYTICS_ENABLED"):
    os.environ.pop(name, None)
import onnxruntime
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    import lungct_hf
print(os.environ["ORT_DISABLE_TELEMETRY"], os.environ["HF_HUB_DISABLE_TELEMETRY"])
print(os.environ["GRADIO_ANALYTICS_ENABLED"], *(warning.message for warning in said))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first == "1 1" and second.startswith("False onnxruntime was imported before lungct_hf")
