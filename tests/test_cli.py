"""The `lungct` command: its words, its exit codes, and that starting it stays quick."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers import ROOT
from lungct_hf import __version__, cli, errors
from lungct_hf.hub import ModelRepo


@dataclass
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def lungct(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def call(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["lungct", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capsys.readouterr()
        return Outcome(int(caught.value.code or 0), out, err)

    return call


@pytest.fixture
def demo_settings(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """What `lungct demo` hands to the app instead of starting it."""
    settings: dict[str, str | None] = {}

    def run_path(path: str, run_name: str) -> None:
        assert Path(path).name == "app.py" and run_name == "__main__"
        settings.update({name: os.environ.get(name) for name in ("LUNGCT_MODEL", "LUNGCT_REVISION")})

    monkeypatch.setattr(cli.runpy, "run_path", run_path)
    # Whether the model is there is looked at first; tests/test_end_to_end.py has one that is not.
    monkeypatch.setattr("lungct_hf.runtime.LungCT.from_pretrained", lambda *arguments: None)
    for name in ("LUNGCT_MODEL", "LUNGCT_REVISION"):
        monkeypatch.setenv(name, "")  # so that what the command sets is undone after the test
    return settings


def write_model(folder: Path, *, age: float = 0) -> Path:
    folder.mkdir(parents=True)
    for name in ("config.json", "lungct.json", "model.safetensors"):
        (folder / name).write_text("{}")
        os.utime(folder / name, (1e9 - age, 1e9 - age))
    return folder


def test_version_and_help(lungct) -> None:
    done = lungct("--version")
    assert (done.code, done.out) == (0, f"lungct {__version__}\n")
    shown = lungct("--help")
    assert shown.code == 0 and "demo" in shown.out and "push" in shown.out


def test_starting_the_command_imports_nothing_heavy() -> None:
    heavy = {"torch", "gradio", "numpy", "huggingface_hub", "transformers"}
    code = f"import sys, lungct_hf.cli; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_wrong_usage_is_exit_code_2(lungct) -> None:
    assert lungct("nonsense").code == 2
    assert lungct("push", "only-one-argument").code == 2


def test_demo_without_any_model_says_what_to_do(lungct, demo_settings, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = lungct("demo")
    assert done.code == 2 and demo_settings == {}
    assert done.err.startswith("error: No model was named") and "training/train.py" in done.err


def test_demo_takes_the_newest_run(lungct, demo_settings, tmp_path: Path, monkeypatch) -> None:
    write_model(tmp_path / "runs" / "a-newer" / "model")
    write_model(tmp_path / "runs" / "b-older" / "model", age=100)
    (tmp_path / "runs" / "c-unfinished").mkdir()
    monkeypatch.chdir(tmp_path)
    assert lungct("demo").code == 0
    assert demo_settings["LUNGCT_MODEL"] == str(Path("runs/a-newer/model"))


def test_demo_takes_a_run_a_model_or_a_repo(lungct, demo_settings, tmp_path: Path) -> None:
    model = write_model(tmp_path / "runs" / "one" / "model")
    for given in (model.parent, model, "owner/name@v1"):
        assert lungct("demo", given).code == 0
        assert demo_settings["LUNGCT_MODEL"] == str(given)
    assert ModelRepo.open(model.parent).path == ModelRepo.open(model).path == model


def test_demo_settings_come_from_the_environment_unless_a_model_is_named(lungct, demo_settings, monkeypatch) -> None:
    monkeypatch.setenv("LUNGCT_MODEL", "owner/name")
    monkeypatch.setenv("LUNGCT_REVISION", "v1.0.0")
    lungct("demo")
    assert demo_settings == {"LUNGCT_MODEL": "owner/name", "LUNGCT_REVISION": "v1.0.0"}
    lungct("demo", "other/model")
    assert demo_settings == {"LUNGCT_MODEL": "other/model", "LUNGCT_REVISION": None}
    lungct("demo", "other/model", "--revision", "abc")
    assert demo_settings == {"LUNGCT_MODEL": "other/model", "LUNGCT_REVISION": "abc"}


def test_demo_without_gradio_names_the_extra(lungct, demo_settings, monkeypatch) -> None:
    monkeypatch.setattr(errors.importlib.util, "find_spec", lambda name: None)
    done = lungct("demo", "owner/name")
    assert done.code == 1 and "pip install 'lungct-hf[space]'" in done.err and len(done.err.splitlines()) == 1


def test_push_refuses_what_is_no_model(lungct, tmp_path: Path) -> None:
    done = lungct("push", tmp_path / "missing", "owner/name")
    assert done.code == 2 and done.err.startswith("error: There is no directory")
    (tmp_path / "config.json").write_text("{}")
    done = lungct("push", tmp_path, "owner/name")
    assert done.code == 2 and "no lungct.json and no model.safetensors" in done.err and "Traceback" not in done.err


def test_push_sends_the_model_of_a_run_and_prints_where_it_is(lungct, tmp_path: Path, monkeypatch) -> None:
    import lungct_hf.hub

    model = write_model(tmp_path / "one" / "model")
    calls = []

    def push_folder(folder: Path, repo: str, **options: object) -> lungct_hf.hub.PushResult:
        calls.append((folder, repo, options))
        return lungct_hf.hub.PushResult(repo, "c" * 40, "http://hub/o/n/commit/c", "http://hub/o/n")

    monkeypatch.setattr(lungct_hf.hub, "push_folder", push_folder)
    done = lungct("push", model.parent, "o/n", "--private", "--create-pr", "--message", "First")
    assert (done.code, done.out) == (0, f"http://hub/o/n\ncommit {'c' * 40}\n")
    assert calls == [(model, "o/n", {"message": "First", "private": True, "create_pr": True})]


def test_a_push_without_a_token_is_one_line(lungct, tmp_path: Path) -> None:
    done = lungct("push", write_model(tmp_path / "model"), "owner/name")
    assert done.code == 1 and done.err.startswith("error: ") and "HF_TOKEN" in done.err
    assert len(done.err.splitlines()) == 1
