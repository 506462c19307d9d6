"""How the tests of the pipeline start the real command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Predict = Callable[..., subprocess.CompletedProcess[str]]


def predict_command(model_dir: Path, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "lungct_hf.cli", "predict", *map(str, arguments), "-m", str(model_dir)]
