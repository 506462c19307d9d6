"""Every test is offline and leaves nothing behind: caches go to a temporary folder, foreign sockets are refused."""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent

# Read at import time by the libraries, so set before any of them is imported; programs the tests start inherit it.
_CACHE = tempfile.mkdtemp(prefix="lungct-tests-")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING", "LUNGCT_MODEL", "LUNGCT_REVISION"))]:
    del os.environ[name]
os.environ |= {
    "HF_HOME": f"{_CACHE}/hf",
    "HF_ENDPOINT": "http://127.0.0.1:9",  # nobody listens on the discard port
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TORCH_HOME": f"{_CACHE}/torch",
    "MPLCONFIGDIR": f"{_CACHE}/mpl",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_TEMP_DIR": f"{_CACHE}/gradio",
    "LUNGCT_TESTS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # As keep_freed_memory does, for every program the tests start: torch needs half the time.
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    # Several workers whose torch takes all cores each would stand in each other's way.
    "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    "PYTHONPATH": os.pathsep.join([str(TESTS / "offline"), *filter(None, [os.environ.get("PYTHONPATH")])]),
}
sys.path.insert(0, str(TESTS))

_spec = importlib.util.spec_from_file_location("offline_sockets", TESTS / "offline" / "sitecustomize.py")
assert _spec is not None and _spec.loader is not None
offline = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(offline)


@pytest.fixture(autouse=True)
def no_foreign_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reaches beyond this machine."""
    import socket

    for owner, attribute in (
        (socket.socket, "connect"),
        (socket.socket, "connect_ex"),
        (socket, "getaddrinfo"),
    ):
        monkeypatch.setattr(owner, attribute, getattr(owner, attribute))  # put back after the test
    offline.block()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The IQ-OTH/NCCD folder named by LUNGCT_REAL_DATA; skips where there is none."""
    folder = os.environ.get("LUNGCT_REAL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("real slices are not here: set LUNGCT_REAL_DATA to the IQ-OTH/NCCD folder")
    return Path(folder)
