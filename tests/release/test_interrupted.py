"""Killed at any request, a release leaves nothing half-published, and the same command finishes it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_here import run_here
from hub_server import HubServer
from hub_wire import Faults, Request
from release_runs import write_run

LUNGCT = str(Path(sys.executable).with_name("lungct"))
REPO = "alice/lung"
SHARDS = 8  # of the longest test, so that it says early where it fails
COMMAND = ("release", "run", "--repo", REPO, "--version", "1.0.0")


@pytest.fixture
def home(hub: HubServer, run_dir: Path, tmp_path: Path) -> dict[str, str]:
    """alice's environment; her run is tmp_path/run."""
    return {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.add_user("alice"), "HF_HOME": str(tmp_path / "home")}


class Killer:
    """Kills the process `pid` with SIGKILL at the `number`-th request that fits: before its work is done, or after."""

    def __init__(self, hub: HubServer, pattern: str, moment: str, number: int = 1) -> None:
        self.pattern, self.moment, self.left, self.pid, self.hub = re.compile(pattern), moment, number, 0, hub
        self.struck = False
        hub.watch = self

    def __call__(self, request: Request, moment: str) -> None:
        if moment == self.moment and self.pattern.search(f"{request.method} {request.path}"):
            self.left -= 1
            if self.left == 0:
                while not self.pid:
                    time.sleep(0.01)
                os.kill(self.pid, signal.SIGKILL)
                self.struck = True
                raise ConnectionAbortedError  # the reply goes nowhere; before its work, the request counts as unsent


def start_fork(folder: Path, home: dict[str, str]) -> int:
    """The command in a forked process, which has torch loaded already."""
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            os.setsid()
            code = run_here(COMMAND, folder, home)[0]
        finally:
            os._exit(code)
    return pid


def killed(hub: HubServer, folder: Path, home: dict[str, str], pattern: str, moment: str, number: int = 1) -> bool:
    """Start the command and kill it there; whether it came that far."""
    killer = Killer(hub, pattern, moment, number)
    killer.pid = start_fork(folder, home)
    _, status = os.waitpid(killer.pid, 0)
    hub.watch = None
    try:
        os.killpg(killer.pid, signal.SIGKILL)  # the process that was loading the model back
    except ProcessLookupError:
        pass
    assert killer.struck == os.WIFSIGNALED(status), status
    return killer.struck


def check_whole(hub: HubServer) -> None:
    """Whatever is there is a whole release or none."""
    if ("model", REPO) not in hub.store.repos:
        return
    repo = hub.repo(REPO)
    titles = [commit.title for commit in repo.history("main")]
    assert titles in (["initial commit"], ["Release v1.0.0", "initial commit"])
    assert repo.tags in ({}, {"v1.0.0": repo.branches["main"]})
    if len(titles) == 2:
        there = hub.files(REPO)
        assert set(json.loads(there["lungct.json"])["release"]["files"]) < set(there)


def check_finished(hub: HubServer, folder: Path, home: dict[str, str]) -> None:
    code, said = run_here(COMMAND, folder, home)
    assert code == 0, said
    repo = hub.repo(REPO)
    assert [commit.title for commit in repo.history("main")] == ["Release v1.0.0", "initial commit"]
    assert repo.tags == {"v1.0.0": repo.branches["main"]} and not repo.pull_refs


@pytest.mark.parametrize(
    ("pattern", "moment"),
    [("POST .*/commit/", "after"), ("POST .*/tag/", "before")],
)
def test_killed_at_the_steps_that_count(
    hub: HubServer, home: dict[str, str], tmp_path: Path, pattern: str, moment: str
) -> None:
    assert killed(hub, tmp_path, home, pattern, moment)
    check_whole(hub)
    check_finished(hub, tmp_path, home)


def test_the_program_itself_killed_while_it_uploads(hub: HubServer, home: dict[str, str], tmp_path: Path) -> None:
    killer = Killer(hub, "PUT /objects/", "before", 5)
    environment = os.environ | home
    with subprocess.Popen([LUNGCT, *COMMAND], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL) as process:
        killer.pid = process.pid
        assert process.wait(120) == -signal.SIGKILL
    hub.watch = None
    check_whole(hub)
    assert not hub.repo(REPO).tags and len(hub.repo(REPO).history("main")) == 1
    check_finished(hub, tmp_path, home)


def points(requests: list[Request]) -> Iterator[tuple[int, str]]:
    """(number, moment) to kill at: every request before its work, and after it where it changes something.

    Downloads of the process that loads the model back are alike, so of each kind the first and the last are taken.
    """
    kinds: dict[str, list[int]] = {}
    for number, request in enumerate(requests, start=1):
        download = request.method in ("GET", "HEAD") and re.search("/resolve/|/objects/", request.path)
        kinds.setdefault(request.method if download else f"{number}", []).append(number)
        if request.method not in ("GET", "HEAD"):
            yield number, "after"
    for numbers in kinds.values():
        yield from ((number, "before") for number in sorted({numbers[0], numbers[-1]}))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("shard", range(SHARDS))
def test_killed_at_every_request(hub: HubServer, home: dict[str, str], tmp_path: Path, shard: int) -> None:
    check_finished(hub, tmp_path, home)
    plan = sorted(points([request for request in hub.requests if "agent-harnesses" not in request.path]))
    assert len(plan) > 60
    plan = plan[shard::SHARDS]
    struck = 0
    for number, moment in plan:
        hub.store.repos.clear()
        hub.store.objects.clear()
        struck += killed(hub, tmp_path, home, "^(?!GET /api/agent-harnesses)", moment, number)
        check_whole(hub)
        check_finished(hub, tmp_path, home)
    assert struck > 0.9 * len(plan)  # some requests are sent side by side, so the last ones may be fewer


def test_of_two_that_race_one_wins_and_the_other_is_told(
    hub: HubServer, home: dict[str, str], tmp_path: Path, clean_run: Path
) -> None:
    assert run_here(COMMAND, tmp_path, home)[0] == 0
    second = [*COMMAND[:-1], "1.1.0", "-m", "Mine."]

    def other(request: Request, moment: str) -> None:
        if request.method == "POST" and "/commit/" in request.path and moment == "before":
            hub.watch = None
            hub.store.put(REPO, {"README.md": b"theirs"}, title="Release v1.1.0")

    hub.watch = other
    before = hub.files(REPO)
    code, said = run_here(second, tmp_path, home)
    assert code == 1 and "Someone else committed" in said and "Nothing of yours was published" in said
    after = hub.files(REPO)
    assert {name for name in after if after[name] != before[name]} == {"README.md"}
    assert set(hub.repo(REPO).tags) == {"v1.0.0"}
    code, said = run_here(second, tmp_path, home)
    assert code == 0 and hub.repo(REPO).tags["v1.1.0"] == hub.repo(REPO).branches["main"], said


def test_a_release_without_its_tag_is_compared_with_all_the_same(
    hub: HubServer, home: dict[str, str], tmp_path: Path
) -> None:
    hub.faults.add("POST", "/tag/", times=99, action="status:503")
    code, _ = run_here(COMMAND, tmp_path, home)
    assert code == 1 and not hub.repo(REPO).tags and len(hub.repo(REPO).history("main")) == 2
    hub.faults = Faults()
    write_run(tmp_path / "worse", seed=1, signal=0.3)
    for number in ("1.0.0", "1.1.0"):
        code, said = run_here(["release", "worse", "--repo", REPO, "--version", number, "--dry-run"], tmp_path, home)
        assert code == 3 and "regression: " in said and "never came to its tag" in said, said
    code, said = run_here(["release", "worse", "--repo", REPO, "--version", "0.9.0", "--dry-run"], tmp_path, home)
    assert code == 3 and "version-not-greater" in said
    check_finished(hub, tmp_path, home)
