"""No library below the package reports to its makers, and none writes to the home folder: seen by the kernel's own
record of whole programs, with their native libraries and every process they start.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from helpers import ROOT, TINY, draw_slice, write_cohort
from hub_server import HubServer
from release_runs import write_run
from space.space_server import free_port

_WAIT = 12  # seconds; ONNX Runtime reports nine seconds after its start
_LUNGCT = [sys.executable, "-m", "lungct_hf.cli"]
_CALL = re.compile(r"(connect|sendto|sendmsg|sendmmsg)\(")
_ADDRESS = re.compile(r'sin6?_port=htons\((\d+)\).*?(?:inet_addr\("|inet_pton\(AF_INET6, ")([^"]+)"')
# Every process that has loaded ONNX Runtime stays until it would have reported.
_PATIENT = f"""
import atexit, sys, time
atexit.register(lambda: time.sleep({_WAIT}) if "onnxruntime" in sys.modules else None)
"""
_TELLING = "import os; os.environ.pop('ORT_DISABLE_TELEMETRY', None)"


@dataclass(frozen=True)
class Traced:
    """Programs that run under strace, each with a fresh home and temporary folder that are to stay empty."""

    strace: str
    folder: Path

    @contextmanager
    def start(self, command: list[str], *, before: str = "", **variables: str) -> Iterator[subprocess.Popen[str]]:
        for name in ("home", "tmp", "first"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir()
        (self.folder / "first" / "sitecustomize.py").write_text(_PATIENT + before)
        path = ":".join([str(self.folder / "first"), str(ROOT), *filter(None, sys.path)])
        places = {"HOME": str(self.folder / "home"), "TMPDIR": str(self.folder / "tmp")}
        traced = [self.strace, "-f", "-qq", "--seccomp-bpf", "-e", "trace=network", "-o", str(self.folder / "record")]
        with (self.folder / "said").open("w") as said:
            process = subprocess.Popen(
                [*traced, *command],
                text=True,
                stdout=said,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={
                    "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
                    "PYTHONPATH": path,
                    **places,
                    **variables,
                },
                start_new_session=True,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def run(self, command: list[str], *, before: str = "", code: int = 0, **variables: str) -> str:
        """What a program printed that ended with this code."""
        with self.start(command, before=before, **variables) as process:
            done = process.wait(timeout=500)
        assert done == code, self.said
        return self.said

    @property
    def said(self) -> str:
        return (self.folder / "said").read_text()

    @property
    def abroad(self) -> list[str]:
        """Calls that address another machine, or ask somebody on this one for the address of another."""
        found = []
        for line in (self.folder / "record").read_text().splitlines():
            if not _CALL.search(line):
                continue
            if "io.systemd.Resolve" in line:
                found.append(line)
            elif (address := _ADDRESS.search(line)) and not _is_here(address[2], int(address[1])):
                found.append(line)
        return found

    @property
    def left(self) -> list[str]:
        """What lies in the home folder, and the files in the temporary one (torch and Gradio leave empty folders)."""
        files = [path for path in (self.folder / "tmp").rglob("*") if not path.is_dir()]
        return sorted(str(path.relative_to(self.folder)) for path in [*(self.folder / "home").rglob("*"), *files])


def _is_here(host: str, port: int) -> bool:
    return port != 53 and (host.startswith(("127.", "::ffff:127.")) or host == "::1")


@pytest.fixture
def traced(tmp_path: Path) -> Traced:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed here (Debian: apt-get install strace)")
    allowed = subprocess.run([strace, "-f", "-qq", "-o", "/dev/null", "true"], capture_output=True, text=True)
    if allowed.returncode:
        pytest.skip(f"strace may not trace here: {allowed.stderr.strip()[:100]}")
    return Traced(strace, tmp_path)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that the gate lets pass. Not to be written to."""
    return write_run(tmp_path_factory.mktemp("runs") / "lung")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("data") / "clinic", patients=5, slices=1)


@pytest.mark.slow
def test_predicting_is_silent(traced: Traced, finished_run: Path, cohort: Path) -> None:
    said = traced.run(
        [*_LUNGCT, "predict", str(cohort), "--model", str(finished_run), "--workers", "2", "-o", "a.csv"]
    )
    assert "15 rows" in said and not traced.abroad and not traced.left
    # torch, timm and the second backend
    traced.run([*_LUNGCT, "predict", str(cohort), "--model", str(finished_run), "--backend", "torch", "-o", "b.csv"])
    assert not traced.abroad and not traced.left


@pytest.mark.slow
def test_the_test_sees_a_report(traced: Traced, finished_run: Path, cohort: Path) -> None:
    """With the switch undone ONNX Runtime does report, so that the tests here can fail."""
    code = (
        f"import lungct_hf; {_TELLING}; from lungct_hf import LungCT; "
        f"LungCT.from_pretrained({str(finished_run)!r}).predict({str(cohort)!r})"
    )
    traced.run([sys.executable, "-c", code])
    if not (traced.abroad or traced.left):
        pytest.skip("this version of onnxruntime reports nothing even where it may")
    assert traced.abroad or any("deviceid" in name for name in traced.left)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_training_and_judging_are_silent(traced: Traced, cohort: Path) -> None:
    train = [sys.executable, str(ROOT / "training" / "train.py"), "--data", str(cohort), "--output-dir", "run", *TINY]
    traced.run([*train, "--epochs", "2", "--fold-count", "3", "--workers", "1"])
    assert not traced.abroad and not traced.left
    for command in (
        [
            "evaluate",
            "--model",
            "run",
            "--data",
            str(cohort),
            "--split",
            "run/model/evaluation/split.csv",
            "-o",
            "out",
        ],
        ["audit", str(cohort), "--html", "audit.html"],
        ["split", str(cohort), "--output", "split.csv"],
        ["export", "run", "--data", str(cohort)],
    ):
        traced.run([*_LUNGCT, *command])
        assert not traced.abroad and not traced.left, command


@pytest.mark.slow
def test_the_demo_is_silent(traced: Traced, finished_run: Path) -> None:
    """Started, asked for one answer by HTTP as space/README.md says, and stopped by Ctrl-C."""
    picture, port = traced.folder / "slice.png", free_port()
    Image.fromarray(draw_slice(2, np.random.default_rng(0), 96)).save(picture)
    with traced.start([*_LUNGCT, "demo", str(finished_run)], GRADIO_SERVER_PORT=str(port)) as process:
        for _ in range(1200):
            if "Running on local URL" in traced.said or process.poll() is not None:
                break
            time.sleep(0.1)
        assert process.poll() is None, traced.said
        url = f"http://127.0.0.1:{port}/gradio_api"
        with picture.open("rb") as handle:
            path = httpx.post(f"{url}/upload", files={"files": ("a.png", handle)}, timeout=60).json()[0]
        data = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, "", False]}
        event = httpx.post(f"{url}/call/predict", json=data, timeout=60).json()["event_id"]
        answer = httpx.get(f"{url}/call/predict/{event}", timeout=60).text
        assert '"decision"' in answer
        time.sleep(_WAIT)
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGINT)
        assert process.wait(timeout=120) == 130, traced.said
    assert not traced.abroad and not traced.left


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_releasing_speaks_to_the_hub_alone(traced: Traced, finished_run: Path) -> None:
    """To the Hub that HF_ENDPOINT names, with nothing but versions of what speaks, and to no other."""
    shutil.copytree(finished_run, traced.folder / "run")
    with HubServer() as hub:
        access = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.add_user("alice"), "HF_HOME": str(traced.folder / "hf")}
        for command in (
            ["release", "run", "--repo", "alice/lung", "--version", "1.0.0", "-m", "The first."],
            ["verify", "alice/lung@v1.0.0"],
            ["versions", "alice/lung"],
        ):
            traced.run([*_LUNGCT, *command], **access)
            assert not traced.abroad and not traced.left, command
        assert not hub.crashes and not hub.seen("HEAD", "telemetry") and not hub.seen("POST", "telemetry")
        agents = {
            value for request in hub.requests for name, value in request.headers.items() if "agent" in name.lower()
        }
    assert agents and not any("torch" in agent or "agent/" in agent or "session_id" in agent for agent in agents), (
        agents
    )


def test_the_switches_are_set_and_a_late_import_is_said() -> None:
    """A user who imports onnxruntime first is told: its own switch was read by then."""
    code = """
import os, warnings
NAMES = "ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "HF_UPDATE_DOWNLOAD_COUNTS", "GRADIO_ANALYTICS_ENABLED"
for name in NAMES:
    os.environ.pop(name, None)
import onnxruntime
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    import lungct_hf
print(*(os.environ[name] for name in NAMES))
print(*(warning.message for warning in said))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first == "1 1 0 False" and second.startswith("onnxruntime was imported before lungct_hf")
