"""The `lungct` command inside this process, where torch is loaded already: the same code, a fraction of the time."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from huggingface_hub import constants

from hub_fixtures import point_client_at
from lungct_hf.cli import app
from lungct_hf.errors import exit_on_error


def run_here(words: Sequence[str | Path], cwd: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """(exit code, what was printed), with the variables that a process of its own would have had."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        patch.chdir(cwd)
        for name, value in environment.items():
            patch.setenv(name, value)
        if "HF_ENDPOINT" in environment:
            point_client_at(environment["HF_ENDPOINT"], patch)
        if "HF_HOME" in environment:
            patch.setattr(constants, "HF_HUB_CACHE", str(Path(environment["HF_HOME"]) / "hub"))
        try:
            with exit_on_error():
                app([str(word) for word in words])
        except SystemExit as left:
            return int(left.code or 0), said.getvalue()
    return 0, said.getvalue()
