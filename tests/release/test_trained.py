"""What training really writes can be released and verified: one fold, and a cross-validation."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_here import run_here
from helpers import TINY, train, write_cohort
from hub_server import HubServer

# After one epoch from random weights nothing was learned, and the gate says so.
CODES = ("random-init", "shortcut-probe")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("flags", [["--fold-count", "3"], ["--folds", "3", "--seeds", "0"]], ids=["one fold", "folds"])
def test_a_trained_run_becomes_a_version(hub: HubServer, tmp_path: Path, flags: list[str]) -> None:
    cohort = write_cohort(tmp_path / "clinic", patients=6, slices=2)
    done = train("--data", cohort, "--output-dir", tmp_path / "run", *TINY, "--epochs", "1", *flags)
    assert done.returncode == 0, done.stderr
    home = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.add_user("alice"), "HF_HOME": str(tmp_path / "home")}
    command = ["release", "run", "--repo", "alice/lung", "--version", "0.1.0"]
    code, said = run_here(command, tmp_path, home)
    refused = {line.strip().partition(":")[0] for line in said.splitlines() if line.startswith("  ") and ": " in line}
    assert code == 3 and set(CODES) <= refused, said
    assert not refused & {"split-mismatch", "data-mismatch", "metrics-mismatch", "card-mismatch", "loader-mismatch"}
    code, said = run_here([*command, *(word for c in CODES for word in ("--allow", c))], tmp_path, home)
    assert code == 0, said
    assert run_here(["verify", "alice/lung@v0.1.0"], tmp_path, home)[0] == 0
