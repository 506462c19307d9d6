"""One clean run for all tests of a worker, a copy of it for each, and the same run as a released folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hub_fixtures import environment, hub, no_account, token
from lungct_hf.release.prepare import prepare, seal
from lungct_hf.release.publish import Order, new_record
from lungct_hf.release.remote import Remote
from lungct_hf.release.version import Version
from release_runs import evaluate_elsewhere, write_elsewhere, write_run

__all__ = ["environment", "hub", "no_account", "token"]
REPO = "alice/lung"


@pytest.fixture(scope="session")
def clean_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that the gate lets pass. Not to be written to."""
    return write_run(tmp_path_factory.mktemp("runs") / "clean")


@pytest.fixture
def run_dir(clean_run: Path, tmp_path: Path) -> Path:
    """A copy of the clean run, to be spoilt."""
    return Path(shutil.copytree(clean_run, tmp_path / "run"))


@pytest.fixture(scope="session")
def sealed(clean_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model directory that a release of the clean run publishes. Not to be written to."""
    prepared = prepare(clean_run, tmp_path_factory.mktemp("sealed"))
    order = Order(REPO, Version.parse("1.0.0"), "The first.")
    seal(prepared.folder, new_record(order, Remote(REPO), prepared, []), "# Changelog\n", REPO)
    return prepared.folder


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slices that the clean run was not made from, in folders whose names mean nothing to it, and map.yaml."""
    return write_elsewhere(tmp_path_factory.mktemp("elsewhere"))


@pytest.fixture(scope="session")
def tested_run(clean_run: Path, elsewhere: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clean run, tested on them as `other`. Not to be written to."""
    run = Path(shutil.copytree(clean_run, tmp_path_factory.mktemp("runs") / "tested"))
    evaluate_elsewhere(run, elsewhere)
    return run


@pytest.fixture
def published(sealed: Path, tmp_path: Path) -> Path:
    """A copy of it, to be tampered with."""
    return Path(shutil.copytree(sealed, tmp_path / "published"))
