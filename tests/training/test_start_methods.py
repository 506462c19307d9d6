"""Loader processes however a system starts them: a copy of the process, or a new one that imports the script again."""

from pathlib import Path

import pytest

from helpers import TINY, train, write_cohort


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])  # Linux before and from Python 3.14; macOS
def test_loader_processes_end_with_a_model(method: str, tmp_path: Path) -> None:
    cohort = write_cohort(tmp_path / "data", patients=5, slices=1)
    flags = ["--data", cohort, "--output-dir", tmp_path / "run", *TINY, "--epochs", "2", "--fold-count", "3"]
    done = train(*flags, "--workers", "2", LUNGCT_TESTS_START_METHOD=method)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    assert done.stdout.count("epoch   1/2") == 1  # no worker told the story again
