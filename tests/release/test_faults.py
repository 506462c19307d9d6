"""What can go wrong between here and the Hub: a clear sentence, nothing half-published, and a second run completes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from command_here import run_here
from hub_server import HubServer
from hub_wire import Faults, Request
from release_runs import write_run

REPO = "alice/lung"
COMMAND = ("release", "run", "--repo", REPO, "--version", "1.0.0")
# The calls of a release, as (method, pattern).
CALLS = {
    "look": ("GET", "/api/models/alice/lung$"),
    "create": ("POST", "/api/repos/create"),
    "refs": ("GET", "/refs"),
    "history": ("GET", "/commits/main"),
    "preupload": ("POST", "/preupload/"),
    "lfs batch": ("POST", "/objects/batch"),
    "lfs upload": ("PUT", "/objects/"),
    "lfs verify": ("POST", "/objects/verify"),
    "commit": ("POST", "/commit/"),
    "tree": ("GET", "/tree/"),
    "resolve": ("HEAD", "/resolve/"),
    "small file": ("GET", "/resolve/"),
    "large file": ("GET", "/objects/"),
    "tag": ("POST", "/tag/"),
}


@pytest.fixture
def home(hub: HubServer, run_dir: Path, tmp_path: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.add_user("alice"), "HF_HOME": str(tmp_path / "home")}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's own pauses between attempts, and the limits of its rate."""
    from huggingface_hub.utils import _http

    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)


def fails(folder: Path, home: dict[str, str], *words: str, command: tuple[str, ...] = COMMAND) -> str:
    """The one sentence on stderr; it holds `words`, and no token is in anything that was said."""
    code, said = run_here(command, folder, home)
    assert code == 1, said
    last = said.strip().splitlines()[-1]
    assert last.startswith("error: ") and "Traceback" not in said and home["HF_TOKEN"] not in said
    assert all(word in last for word in words), last
    return last


def nothing_half(hub: HubServer) -> None:
    if ("model", REPO) in hub.store.repos:
        titles = [commit.title for commit in hub.repo(REPO).history("main")]
        assert titles in (["initial commit"], ["Release v1.0.0", "initial commit"])
        assert set(hub.repo(REPO).tags) <= {"v1.0.0"}


def completes(hub: HubServer, folder: Path, home: dict[str, str]) -> None:
    hub.faults = Faults()
    code, said = run_here(COMMAND, folder, home)
    assert code == 0, said
    assert [c.title for c in hub.repo(REPO).history("main")] == ["Release v1.0.0", "initial commit"]
    assert hub.repo(REPO).tags == {"v1.0.0": hub.repo(REPO).branches["main"]}


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_day_on_which_everything_goes_wrong(hub: HubServer, home: dict[str, str], tmp_path: Path) -> None:
    """One after the other; each says what it is, publishes nothing by halves, and is forgotten by the next."""
    before = files(tmp_path / "run")
    tokens = hub.store.tokens
    cases: list[tuple[str, str, str, list[str]]] = [
        ("POST", "/repos/create", "status:402", ["payment"]),
        ("POST", "/preupload/", "status:429", ["429", "Try again later"]),
        ("PUT", "/objects/", "status:500", ["500"]),
        ("PUT", "/objects/", "cut", ["could not be reached, or the connection was cut"]),
        ("PUT", "/objects/", "status:413", ["no room"]),
        ("POST", "/objects/batch", "status:503", ["503"]),
        ("POST", "/commit/", "status:403", ["write", "403"]),
        ("POST", "/commit/", "status:500", ["500"]),
    ]
    for method, path, action, words in cases:
        hub.faults = Faults()
        hub.faults.add(method, path, 1000, action)
        fails(tmp_path, home, *(word.replace("403", "injected") for word in words))
        nothing_half(hub)
    hub.faults = Faults()
    for role, words in (("expired", ["token", "expired"]), ("read", ["write"])):
        kept = tokens[home["HF_TOKEN"]]
        tokens[home["HF_TOKEN"]] = (kept[0], role)
        fails(tmp_path, home, *words)
        tokens[home["HF_TOKEN"]] = kept
        assert len(hub.repo(REPO).history("main")) == 1 and not hub.repo(REPO).tags
    completes(hub, tmp_path, home)
    assert files(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("call", "action", "words"),
    [
        ("large file", "flip-byte", ["damaged", "no tag"]),
        pytest.param("small file", "short-body", ["no tag"], marks=pytest.mark.slow),
        pytest.param("large file", "cut", ["no tag"], marks=pytest.mark.slow),
    ],
)
def test_what_comes_back_damaged_is_not_tagged(
    hub: HubServer, home: dict[str, str], tmp_path: Path, call: str, action: str, words: list[str]
) -> None:
    method, pattern = CALLS[call]
    hub.faults.add(method, pattern, 1000, action)  # nothing is read of a repo that is not there yet
    fails(tmp_path, home, *words, "Run the same command again")
    assert not hub.repo(REPO).tags
    nothing_half(hub)
    completes(hub, tmp_path, home)


def test_a_lost_reply_to_commit_or_tag_is_looked_up(hub: HubServer, home: dict[str, str], tmp_path: Path) -> None:
    for _, pattern in (CALLS["commit"], CALLS["tag"], CALLS["create"]):
        hub.faults.add("POST", pattern, 1, "drop-reply")
    code, said = run_here(COMMAND, tmp_path, home)
    assert code == 0, said
    assert len(hub.seen("POST", "/commit/")) == len(hub.seen("POST", "/tag/")) == 1
    completes(hub, tmp_path, home)


def test_the_token_is_nowhere(hub: HubServer, home: dict[str, str], tmp_path: Path) -> None:
    token = home["HF_TOKEN"]
    seen: list[bytes] = []

    def look(request: Request, moment: str) -> None:
        if moment == "before" and request.method == "HEAD":
            seen.extend(path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK))

    hub.watch = look
    code, said = run_here(COMMAND, tmp_path, home)
    hub.watch = None
    assert code == 0 and token not in said
    assert any(b"lungct_hf.release.loaders" in line for line in seen)
    assert not any(token.encode() in line for line in seen)
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert not kept and not any(token.encode() in content for content in hub.files(REPO).values())


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with no room for a model's evidence."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = hasattr(os, "geteuid") and os.geteuid() == 0
    if not mounted or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]).returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_under_the_cache(hub: HubServer, home: dict[str, str], tmp_path: Path, full_disk: Path) -> None:
    assert run_here(COMMAND, tmp_path, home)[0] == 0
    write_run(tmp_path / "next", seed=1)
    command = ("release", "next", "--repo", REPO, "--version", "1.1.0")
    fails(tmp_path, home | {"HF_HOME": str(full_disk)}, "the disk is full", "HF_HOME", command=command)
    assert "v1.1.0" not in hub.repo(REPO).tags and len(hub.repo(REPO).history("main")) == 2
    assert run_here(command, tmp_path, home)[0] == 0 and "v1.1.0" in hub.repo(REPO).tags


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("call", CALLS)
def test_every_status_at_every_call(hub: HubServer, home: dict[str, str], tmp_path: Path, call: str) -> None:
    method, pattern = CALLS[call]
    for action in ("status:429", "status:500", "status:503", "cut"):
        for times in (1, 1000):
            hub.store.repos.clear()
            hub.store.objects.clear()
            shutil.rmtree(tmp_path / "home", ignore_errors=True)
            hub.faults = Faults()
            hub.faults.add(method, pattern, times, action)
            code, said = run_here(COMMAND, tmp_path, home)
            hub.faults = Faults()
            assert code in (0, 1) and "Traceback" not in said and home["HF_TOKEN"] not in said, said
            if code:
                assert said.strip().splitlines()[-1].startswith("error: ")
            nothing_half(hub)
            completes(hub, tmp_path, home)


def test_a_private_repo_is_released_to_and_checked_by_its_owner_only(
    hub: HubServer, home: dict[str, str], tmp_path: Path
) -> None:
    code, said = run_here([*COMMAND, "--private"], tmp_path, home)
    assert code == 0 and hub.repo(REPO).private, said
    assert run_here(["verify", f"{REPO}@v1.0.0"], tmp_path, home)[0] == 0
    stranger = {**home, "HF_TOKEN": hub.add_user("bob"), "HF_HOME": str(tmp_path / "bob")}
    for words in (["verify", REPO], ["versions", REPO], ["rollback", REPO, "1.0.0"], ["compare", REPO, "run"]):
        code, said = run_here(words, tmp_path, stranger)
        assert code == 1 and said.startswith("error: ") and "no repository" in said, said


def test_a_full_history_is_read_page_by_page(hub: HubServer, home: dict[str, str], tmp_path: Path) -> None:
    assert run_here(COMMAND, tmp_path, home)[0] == 0
    hub.page_size = 2
    for number in range(7):
        hub.store.put(REPO, {"notes.txt": f"{number}".encode()})
    code, said = run_here(COMMAND, tmp_path, home)
    assert code == 0 and "finishing" in said and len(hub.repo(REPO).history("main")) == 9
    assert HfApi(endpoint=hub.endpoint).repo_info(REPO, revision="v1.0.0").sha == hub.repo(REPO).tags["v1.0.0"]
