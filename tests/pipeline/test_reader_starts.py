"""Readers start from any program: one without a main guard, from the standard input, whatever the start method."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

PROGRAM = """
import sys
from pathlib import Path
from lungct_hf import LungCT
from lungct_hf.pipeline.run import Options, predict_files
print("once", flush=True)
model, source, output = sys.argv[1:]
manifest = predict_files(LungCT.from_pretrained(model), [source], Options(Path(output), workers=2))
print(manifest["rows"], manifest["decisions"].get("error", 0))
"""


@pytest.fixture
def few(tmp_path: Path, phantoms: list[Image.Image]) -> Path:
    (folder := tmp_path / "few").mkdir()
    for number, phantom in enumerate(phantoms):
        phantom.save(folder / f"{number}.png")
    return folder


def run(program: str, *words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, program, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | variables)


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_program_without_a_main_guard_is_run_once(method: str, model_dir: Path, few: Path, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    words = model_dir, few, tmp_path / "rows.csv"
    done = run(str(tmp_path / "program.py"), *words, LUNGCT_TESTS_START_METHOD=method)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["once", f"{len(list(few.iterdir()))} 0"] and not done.stderr


def test_readers_that_cannot_start_are_no_damaged_files(model_dir: Path, few: Path, tmp_path: Path) -> None:
    """A Python that cannot be started anew, as one that is embedded in another program."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase "$*" in *spawn_main*) exit 7;; esac\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    before = f"import multiprocessing; multiprocessing.set_executable({str(python)!r})"
    (tmp_path / "program.py").write_text(before + PROGRAM)
    done = run(str(tmp_path / "program.py"), model_dir, few, tmp_path / "rows.csv")
    assert done.returncode == 1 and not (tmp_path / "rows.csv").exists()
    assert "LungCTError: The reader processes end before they read anything" in done.stderr.splitlines()[-1]
