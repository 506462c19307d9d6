"""A deployed Space, run from nothing but its own files and variables, serves the version it was pinned to."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from command_here import run_here
from helpers import run
from hub_server import HubServer
from space.space_server import serve

SPACE, REPO = "alice/demo", "alice/lung"


@pytest.mark.slow
def test_release_then_deploy_then_serve(hub: HubServer, run_dir: Path, tmp_path: Path) -> None:
    home = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.add_user("alice"), "HF_HOME": str(tmp_path / "home")}
    for words in (
        ["release", "run", "--repo", REPO, "--version", "1.0.0"],
        ["space", "deploy", SPACE, "--model", f"{REPO}@v1.0.0", "--private"],
    ):
        code, said = run_here(words, tmp_path, home)
        assert code == 0, said
    place = tmp_path / "space"
    for name, content in hub.files(SPACE, repo_type="space").items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    done = run([sys.executable, "-c", "import lungct_hf; print(lungct_hf.__file__)"], cwd=place)
    assert done.stdout.startswith(str(place)), done.stderr  # not the checkout that the tests run from
    values = {key: found["value"] for key, found in hub.repo(SPACE, "space").variables.items()}
    commit = hub.repo(REPO).tags["v1.0.0"]
    with serve(place, [sys.executable, "app.py"], PYTHONPATH="", **values, **home) as server:
        assert commit in str(server.wait_for("ready"))
