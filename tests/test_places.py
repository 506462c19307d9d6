"""Nothing is needed but the folders one names: no home, no right to write in it, a user nobody knows, no place for
temporary files.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from helpers import ROOT, TINY, train_command, write_cohort
from hub_server import HubServer
from release_runs import write_run
from space.space_server import free_port

_UNKNOWN = 54321  # a user id that no table has
_LUNGCT = [sys.executable, "-m", "lungct_hf.cli"]
_NO_TEMPORARY = "import tempfile; tempfile._candidate_tempdir_list = lambda: ['/proc']"


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "lung")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("data") / "clinic", patients=5, slices=1)


def clean(**variables: str) -> dict[str, str]:
    """The environment of somebody who has set nothing."""
    path = ":".join(filter(None, [variables.pop("first", ""), str(ROOT), *sys.path]))
    return {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": path, **variables}


def nobody() -> list[str]:
    """What runs a command as a user without a name, who may read everything here and write nothing."""
    setpriv = shutil.which("setpriv")
    may_read = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
    as_user = [str(setpriv), "--reuid", str(_UNKNOWN), "--regid", str(_UNKNOWN), "--clear-groups", *may_read]
    if setpriv is None or subprocess.run([*as_user, "true"], capture_output=True).returncode:
        pytest.skip("only root, with setpriv, can become a user that nobody knows")
    return as_user


def own_folder(path: Path) -> Path:
    path.mkdir()
    os.chown(path, _UNKNOWN, _UNKNOWN)
    return path


def says(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert all(word in sentence for word in words), sentence


def home_of(kind: str, tmp_path: Path) -> dict[str, str]:
    if kind == "none":
        return {}
    if kind == "root":
        return {"HOME": "/"}
    (home := tmp_path / "home").mkdir(mode=0o555)
    return {"HOME": str(home)}


@pytest.mark.parametrize("kind", ["none", "root"])
def test_predicting_needs_no_home(kind: str, finished_run: Path, cohort: Path, tmp_path: Path) -> None:
    here, variables = own_folder(tmp_path / "work"), clean(**home_of(kind, tmp_path))
    command = [*nobody(), *_LUNGCT, "predict", str(cohort), "--model", str(finished_run), "-o", "rows.csv"]
    done = subprocess.run(command, cwd=here, env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "15 rows" in done.stderr, done.stderr
    assert sorted(path.name for path in here.iterdir()) == ["rows.csv", "rows.csv.manifest.json"]


@pytest.mark.parametrize("kind", ["none", "root"])
def test_what_is_fetched_needs_a_folder_and_the_sentence_names_it(kind: str, cohort: Path, tmp_path: Path) -> None:
    with HubServer() as hub:
        variables = clean(**home_of(kind, tmp_path), HF_ENDPOINT=hub.endpoint)
        there = {"config.json": b"{}", "lungct.json": b"{}"}
        api = HfApi(endpoint=hub.endpoint, token=hub.add_user("alice"))
        api.create_repo("alice/lung")
        adds = [CommitOperationAdd(name, content) for name, content in there.items()]
        api.create_commit("alice/lung", adds, commit_message="A model")
        command = [*nobody(), *_LUNGCT, "predict", str(cohort), "--model", "alice/lung"]
        done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=120)
    says(done, "HF_HOME")


def test_without_a_place_for_temporary_files(finished_run: Path, cohort: Path, tmp_path: Path) -> None:
    """What needs none runs; the rest says what to set."""
    (first := tmp_path / "first").mkdir()
    (first / "sitecustomize.py").write_text(_NO_TEMPORARY)

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        variables = clean(first=str(first), HOME=str(tmp_path))
        return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=120)

    predict = [*_LUNGCT, "predict", str(cohort), "--model", str(finished_run)]
    assert run(*predict, "-o", "rows.csv").returncode == 0
    says(run(*predict), "TMPDIR")
    says(run(*_LUNGCT, "evaluate", "--model", str(finished_run), "-o", "out"), "TMPDIR")
    says(run(*train_command("--data", cohort, "--output-dir", tmp_path / "run", *TINY)), "TMPDIR")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["none", "read-only"])
def test_every_command_runs_without_a_home(kind: str, finished_run: Path, cohort: Path, tmp_path: Path) -> None:
    here, variables = own_folder(tmp_path / "work"), clean(**home_of(kind, tmp_path))
    run = shutil.copytree(finished_run, tmp_path / "run")
    for command in (
        train_command("--data", cohort, "--output-dir", "trained", *TINY, "--epochs", "1", "--fold-count", "3"),
        [*_LUNGCT, "evaluate", "--model", str(run), "-o", "judged"],
        [*_LUNGCT, "audit", str(cohort), "--html", "audit.html"],
        [*_LUNGCT, "verify", str(run)],
        [*_LUNGCT, "predict", str(cohort), "--model", str(run), "-o", "rows.csv"],
    ):
        done = subprocess.run(
            [*nobody(), *command], cwd=here, env=variables, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert (here / "trained" / "model" / "model.safetensors").is_file()
    with (tmp_path / "log").open("w+") as log:
        demo = subprocess.Popen(
            [*nobody(), *_LUNGCT, "demo", str(run)],
            cwd=here,
            env=variables | {"GRADIO_SERVER_PORT": str(free_port())},
            stdout=log,
            stderr=log,
        )
        try:
            for _ in range(600):
                if "Running on local URL" in (tmp_path / "log").read_text() or demo.poll() is not None:
                    break
                time.sleep(0.1)
            assert demo.poll() is None, (tmp_path / "log").read_text()
            demo.send_signal(signal.SIGINT)
            assert demo.wait(timeout=60) == 130
        finally:
            demo.kill()
            demo.wait()
