"""Start the real app in a process of its own on a free loopback port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from helpers import ROOT

LUNGCT = [sys.executable, "-m", "lungct_hf.cli"]
APP = [sys.executable, str(ROOT / "space" / "app.py")]
RUNNING = "Running on local URL: "


@dataclass
class Server:
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def health(self) -> tuple[int, dict[str, Any]]:
        """Status code and answer of /health."""
        answer = httpx.get(f"{self.url}health", timeout=30)
        return answer.status_code, answer.json()

    def wait_for(self, status: str) -> dict[str, Any]:
        """The health record, once its status is this one."""
        for _ in range(600):
            found = self.health()[1]
            if found["status"] == status:
                return found
            time.sleep(0.1)
        raise AssertionError(f"still {found}")


def environment(**extra: str) -> dict[str, str]:
    """What a program the tests start gets: this checkout first on its path, and whatever conftest.py has set."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": path} | extra


def free_port() -> int:
    """A loopback port that nobody listened at a moment ago."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def serve(folder: Path, command: list[str], **extra: str) -> Iterator[Server]:
    """The app, up and answering, until the block ends; it runs in `folder` and its output goes to a file there."""
    port = free_port()
    log = folder / "log"
    with log.open("wb") as handle:
        process = subprocess.Popen(
            command,
            stdout=handle,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment(GRADIO_SERVER_PORT=str(port), **extra),
        )
    try:
        for _ in range(2400):
            if RUNNING in log.read_text() or process.poll() is not None:
                break
            time.sleep(0.1)
        assert process.poll() is None and RUNNING in log.read_text(), f"the app did not start:\n{log.read_text()}"
        url = log.read_text().split(RUNNING)[1].split()[0]
        assert url == f"http://127.0.0.1:{port}/", "GRADIO_SERVER_PORT must be honoured"
        yield Server(url, process, log)
        before = len(log.read_text())  # gradio logs with a traceback what it refuses, and some tests attack the server
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=150) == 130, "Ctrl-C is how a demo is ended"
        assert "Traceback" not in log.read_text()[before:]
    finally:
        process.kill()
        process.wait(timeout=30)
