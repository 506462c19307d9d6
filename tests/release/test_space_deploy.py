"""The demo as a Space: a wheel that installs, bounds that hold, the version pinned, and a second run that is idle."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from command_here import run_here
from helpers import run
from hub_server import HubServer
from hub_wire import Request
from lungct_hf import __version__
from lungct_hf.release.wheel import build_wheel

SPACE, MODEL = "alice/demo", "alice/lung"
COMMAND = ("space", "deploy", SPACE, "--model", f"{MODEL}@v1.0.0")
WHEEL = f"lungct_hf-{__version__}-py3-none-any.whl"


@pytest.fixture
def home(hub: HubServer, tmp_path: Path) -> dict[str, str]:
    """alice, whose model has two versions; only its lungct.json is asked for."""
    hub.store.create_repo(MODEL)
    for number in ("1.0.0", "1.1.0"):
        hub.repo(MODEL).tags[f"v{number}"] = hub.store.put(MODEL, {"lungct.json": f'{{"v": "{number}"}}'.encode()})
    return {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.add_user("alice"), "HF_HOME": str(tmp_path / "home")}


def deploy(home: dict[str, str], tmp_path: Path, *words: str, code: int = 0) -> str:
    found, said = run_here(words or COMMAND, tmp_path, home)
    assert found == code and home["HF_TOKEN"] not in said and "Traceback" not in said, said
    return said


def state(hub: HubServer) -> tuple[int, int, dict[str, str]]:
    """Commits, restarts and variables of the Space."""
    repo = hub.repo(SPACE, "space")
    values = {key: found["value"] for key, found in repo.variables.items()}
    return len(repo.history("main")) - 1, repo.runtime.get("restarts", 0), values


def test_one_commit_pinned_and_restarted_and_then_nothing(
    hub: HubServer, home: dict[str, str], tmp_path: Path
) -> None:
    deploy(home, tmp_path)
    assert state(hub) == (1, 1, {"LUNGCT_MODEL": MODEL, "LUNGCT_REVISION": hub.repo(MODEL).tags["v1.0.0"]})
    there = hub.files(SPACE, repo_type="space")
    assert {"app.py", "style.css", "README.md", "requirements.txt", WHEEL} <= set(there)
    assert "already" in deploy(home, tmp_path)
    assert state(hub)[:2] == (1, 1)
    deploy(home, tmp_path, *COMMAND[:-1], f"{MODEL}@v1.1.0")
    assert state(hub) == (1, 2, {"LUNGCT_MODEL": MODEL, "LUNGCT_REVISION": hub.repo(MODEL).tags["v1.1.0"]})


def test_requirements_are_bounded_and_name_this_very_wheel(
    hub: HubServer, home: dict[str, str], tmp_path: Path
) -> None:
    deploy(home, tmp_path)
    there = hub.files(SPACE, repo_type="space")
    lines = there["requirements.txt"].decode().splitlines()
    for name in ("gradio", "huggingface_hub"):
        assert any(re.fullmatch(rf"{name}(\[mcp\])?>=[\d.]+,<[\d.]+", line) for line in lines), lines
    ours = next(line for line in lines if line.startswith("lungct-hf"))
    digest = hashlib.sha256(there[WHEEL]).hexdigest()
    assert ours.endswith(f"@ {hub.endpoint}/spaces/{SPACE}/resolve/main/{WHEEL}#sha256={digest}")
    card = yaml.safe_load(there["README.md"].decode().split("---")[1])
    assert card["models"] == [MODEL] and card["sdk"] == "gradio"


def test_a_private_space_needs_no_address_to_install_from(
    hub: HubServer, home: dict[str, str], tmp_path: Path
) -> None:
    deploy(home, tmp_path, *COMMAND, "--private")
    there = hub.files(SPACE, repo_type="space")
    assert hub.repo(SPACE, "space").private and "lungct_hf/runtime/__init__.py" in there
    lines = [line for line in there["requirements.txt"].decode().splitlines() if not line.startswith("#")]
    assert not any("@" in line or line.startswith("lungct") for line in lines)
    assert WHEEL not in there  # nothing would install it
    assert all("<" in line or "==" in line for line in lines if line.strip()), lines
    assert any(line.startswith("numpy") for line in lines) and any(line.startswith("gradio[mcp]>=") for line in lines)


def test_what_an_earlier_deploy_left_does_not_shadow_the_new_one(
    hub: HubServer, home: dict[str, str], tmp_path: Path
) -> None:
    deploy(home, tmp_path, *COMMAND, "--private")
    theirs = {"notes.md": b"mine", "data/lungct_hf/a.txt": b"mine", "wheels/lungct_hf-0.0.1-py3-none-any.whl": b"mine"}
    hub.store.put(SPACE, theirs | {"lungct_hf-0.0.1-py3-none-any.whl": b"old"}, repo_type="space")
    hub.repo(SPACE, "space").private = False
    assert "removed" in deploy(home, tmp_path)
    there = hub.files(SPACE, repo_type="space")
    assert not any(name.startswith("lungct_hf/") for name in there)
    assert [name for name in there if name.startswith("lungct_hf-")] == [WHEEL]
    assert {name: there[name] for name in theirs} == theirs
    before = state(hub)
    assert "already" in deploy(home, tmp_path) and state(hub) == before


def test_a_private_deploy_does_not_land_in_a_public_space(
    hub: HubServer, home: dict[str, str], tmp_path: Path
) -> None:
    hub.store.create_repo(SPACE, "space")
    said = deploy(home, tmp_path, *COMMAND, "--private", code=1)
    assert "is public" in said and state(hub) == (0, 0, {})


@pytest.mark.parametrize("path", ["/commit/", "/variables", "/restart"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_cut_off_anywhere_the_next_run_finishes(
    hub: HubServer, home: dict[str, str], tmp_path: Path, path: str, moment: str
) -> None:
    def cut(request: Request, when: str) -> None:
        if when == moment and path in request.path and request.method == "POST":
            raise ConnectionAbortedError  # again and again, so that this run cannot get past it

    hub.watch = cut
    code, said = run_here(COMMAND, tmp_path, home)
    hub.watch = None
    # A commit whose replies are all lost is found by looking, so that run may end well.
    assert code == 1 or (path, moment) == ("/commit/", "after"), said
    deploy(home, tmp_path)
    commits, restarts, values = state(hub)
    assert (
        commits == 1
        and restarts >= 1
        and values == {"LUNGCT_MODEL": MODEL, "LUNGCT_REVISION": hub.repo(MODEL).tags["v1.0.0"]}
    )
    deploy(home, tmp_path)
    assert state(hub) == (commits, restarts, values)


def test_a_model_that_can_move_or_is_not_there_is_refused(
    hub: HubServer, home: dict[str, str], tmp_path: Path
) -> None:
    assert f"{MODEL}@vX.Y.Z" in deploy(home, tmp_path, "space", "deploy", SPACE, "--model", MODEL, code=2)
    said = deploy(home, tmp_path, "space", "deploy", SPACE, "--model", f"{MODEL}@main", code=2)
    assert "may change" in said and "names main" in said
    assert "v9.0.0" in deploy(home, tmp_path, "space", "deploy", SPACE, "--model", f"{MODEL}@v9.0.0", code=1)
    assert ("space", SPACE) not in hub.store.repos


def test_a_private_model_needs_a_secret_and_that_is_said(hub: HubServer, home: dict[str, str], tmp_path: Path) -> None:
    assert "secret" not in deploy(home, tmp_path)
    hub.repo(MODEL).private = True
    said = deploy(home, tmp_path)
    assert "set HF_TOKEN" in said and f"/spaces/{SPACE}/settings" in said and "everybody" in said


def test_no_right_to_write_is_one_sentence(hub: HubServer, home: dict[str, str], tmp_path: Path) -> None:
    bob = home | {"HF_TOKEN": hub.add_user("bob", "read")}
    assert "write" in deploy(bob, tmp_path, code=1).splitlines()[-1]


def test_the_wheel_is_the_same_each_time_and_its_record_is_true() -> None:
    name, content = build_wheel()
    assert (name, content) == build_wheel() and name == WHEEL
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        record = f"lungct_hf-{__version__}.dist-info/RECORD"
        rows = {row[0]: row for row in csv.reader(io.StringIO(archive.read(record).decode()))}
        assert set(rows) == set(archive.namelist())
        for path, digest, size in rows.values():
            if path != record:
                import base64

                found = hashlib.sha256(archive.read(path)).digest()
                assert digest == "sha256=" + base64.urlsafe_b64encode(found).rstrip(b"=").decode()
                assert int(size) == len(archive.read(path))
        assert {"lungct_hf/_shipped/model_card.md", "lungct_hf/_shipped/space/app.py"} <= set(rows)
        assert not any("__pycache__" in path for path in rows)


def test_pip_installs_the_wheel_and_it_runs_from_there(tmp_path: Path) -> None:
    name, content = build_wheel()
    (tmp_path / name).write_bytes(content)
    place = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(place)]
    done = run([*command, str(tmp_path / name)])
    assert done.returncode == 0, done.stderr
    code = "import lungct_hf; from lungct_hf.resources import shipped; print(lungct_hf.__file__, shipped('space'))"
    done = run([sys.executable, "-c", code], cwd=tmp_path, PYTHONPATH=str(place))
    assert done.returncode == 0 and all(path.startswith(str(place)) for path in done.stdout.split()), done.stderr


def test_pip_installs_what_the_requirements_of_a_public_space_name(
    hub: HubServer, home: dict[str, str], tmp_path: Path
) -> None:
    deploy(home, tmp_path)
    text = hub.files(SPACE, repo_type="space")["requirements.txt"].decode()
    (tmp_path / "ours.txt").write_text(next(line for line in text.splitlines() if line.startswith("lungct-hf")))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-cache-dir"]
    done = run([*command, "--target", str(tmp_path / "site"), "-r", str(tmp_path / "ours.txt")])
    assert done.returncode == 0 and (tmp_path / "site" / "lungct_hf" / "cli.py").is_file(), done.stderr
