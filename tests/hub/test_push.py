"""Pushing: one commit with everything, the author's words kept, no commit twice, and no token in any text."""

from __future__ import annotations

import logging
import subprocess
import sys
import traceback
import warnings
from pathlib import Path

import pytest
from huggingface_hub import constants
from samples import METRICS, write_model

from hub_server import HubServer
from lungct_hf.errors import LungCTError, RefusedError
from lungct_hf.hub import author_text, push_folder, with_author_text, write_card, write_eval_results
from lungct_hf.hub.author import INVITATION, PLACEHOLDER

REPO = "alice/lung"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = write_model(tmp_path / "model")
    write_eval_results(folder)
    write_card(folder)
    return folder


@pytest.fixture(params=["xet", "http"])
def transfer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With hf_xet in use, which this Hub has no storage for, and with HF_HUB_DISABLE_XET=1."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", request.param == "http")
    return request.param


def history(hub: HubServer, ref: str = "main") -> list[str]:
    """The titles of the commits, newest first, without the one that every repo starts with."""
    return [commit.title for commit in hub.repo(REPO).history(ref)][:-1]


def push(folder: Path, **kwargs):
    return push_folder(folder, REPO, **{"message": "Train a model", **kwargs})


def refusal(*args, **kwargs) -> LungCTError:
    with pytest.raises(LungCTError) as caught:
        push(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return caught.value


def test_one_commit_holds_the_folder(hub: HubServer, token: str, model: Path, transfer: str, caplog):
    caplog.set_level(logging.INFO, "lungct_hf")
    (model / "notes.tmp").write_text("x")
    (model / ".secret").write_text("x")
    before = {p: p.read_bytes() for p in model.rglob("*") if p.is_file()}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        result = push(model)
    assert history(hub) == ["Train a model"]
    files = hub.files(REPO)
    del files[".gitattributes"]
    assert sorted(files) == sorted(
        p.relative_to(model).as_posix() for p in before if p.name not in ("notes.tmp", ".secret")
    )
    assert ".eval_results/lungct.yaml" in files
    for name, data in files.items():
        if name != "README.md":
            assert data == (model / name).read_bytes(), name
    assert result.commit_sha == hub.repo(REPO).branches["main"]
    assert result.commit_url == f"{hub.endpoint}/{REPO}/commit/{result.commit_sha}"
    assert result.url == f"{hub.endpoint}/{REPO}" and result.repo_id == REPO and result.changed
    assert hub.repo(REPO).resolve("main").tree["model.safetensors"].sha256
    assert {p: p.read_bytes() for p in model.rglob("*") if p.is_file()} == before
    assert caplog.text.count("plain HTTP") == (transfer == "xet")


def test_equal_files_are_all_there(hub: HubServer, token: str, model: Path, transfer: str):
    content = bytes(range(256)) * 2000
    names = [f"evaluation/plot{number}.png" for number in range(5)]
    for name in names:
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_bytes(content)
    push(model)
    assert all(hub.files(REPO)[name] == content for name in names)


def test_the_card_learns_the_name_of_its_repo(hub: HubServer, token: str, model: Path):
    push(model)
    card = hub.files(REPO)["README.md"].decode()
    assert REPO in card and PLACEHOLDER not in card and PLACEHOLDER in (model / "README.md").read_text()


def test_an_unchanged_folder_makes_no_commit(hub: HubServer, token: str, model: Path):
    first = push(model)
    second = push(model)
    assert second.commit_sha == first.commit_sha and not second.changed and len(history(hub)) == 1


def test_a_short_name_goes_to_ones_own_account(hub: HubServer, token: str, model: Path):
    assert push_folder(model, "lung", message="m").repo_id == REPO
    assert push_folder(model, "lung", message="m").changed is False


def test_words_written_on_the_hub_stay_through_two_pushes(hub: HubServer, token: str, model: Path):
    push(model)
    card = hub.files(REPO)["README.md"].decode()
    hub.store.put(REPO, {"README.md": card.replace(INVITATION, "Ask **Bob** {{ why }}.").encode()})
    for number in (1, 2):
        write_model(model, metrics={**METRICS, "run": number}, weights=b"\0%d" % number * 50)
        write_card(model)
        push(model)
        card = hub.files(REPO)["README.md"].decode()
        assert author_text(card) == "Ask **Bob** {{ why }}." and INVITATION not in card
    assert len(history(hub)) == 4


def test_words_written_on_both_sides_are_both_kept(hub: HubServer, token: str, model: Path):
    push(model)
    card = hub.files(REPO)["README.md"].decode()
    hub.store.put(REPO, {"README.md": with_author_text(card, "From the web.").encode()})
    (model / "README.md").write_text(with_author_text((model / "README.md").read_text(), "From my desk."))
    push(model)
    push(model)
    assert author_text(hub.files(REPO)["README.md"].decode()) == "From my desk.\n\nFrom the web."
    assert author_text((model / "README.md").read_text()) == "From my desk."


def test_a_readme_that_somebody_wrote_by_hand_is_not_lost(hub: HubServer, token: str, model: Path):
    hub.store.create_repo(REPO)
    hub.store.put(REPO, {"README.md": b"---\r\nlicense: mit\r\n---\r\n# My lungs\r\nMy words.\r\n"})
    push(model)
    assert author_text(hub.files(REPO)["README.md"].decode()) == "# My lungs\nMy words."


def test_evidence_of_the_model_before_is_removed_and_other_files_stay(hub: HubServer, token: str, model: Path):
    (model / "onnx").mkdir()
    (model / "onnx" / "model.onnx").write_bytes(b"\0onnx")
    (model / "head.safetensors").write_bytes(b"\0head")
    push(model)
    hub.store.put(REPO, {"docs/figure.png": b"\0png", "NOTES.md": b"mine"})
    for name in ("onnx/model.onnx", "head.safetensors", "evaluation/predictions.parquet"):
        (model / name).unlink()
    push(model)
    files = hub.files(REPO)
    assert not {"onnx/model.onnx", "head.safetensors", "evaluation/predictions.parquet"} & set(files)
    assert {"docs/figure.png", "NOTES.md", "evaluation/metrics.json", "model.safetensors"} <= set(files)
    assert len(history(hub)) == 3


# --- private, branches, pull requests


def test_private(hub: HubServer, token: str, model: Path):
    push(model, private=True)
    assert hub.repo(REPO).private
    push(model)
    assert hub.repo(REPO).private


def test_a_private_push_never_lands_in_public(hub: HubServer, token: str, model: Path):
    hub.store.create_repo(REPO)
    assert "public" in str(refusal(model, private=True)) and history(hub) == []


def test_a_branch(hub: HubServer, token: str, model: Path):
    hub.store.create_repo(REPO)
    assert "no revision 'next'" in str(refusal(model, revision="next"))
    hub.repo(REPO).branches["next"] = hub.repo(REPO).branches["main"]
    result = push(model, revision="next")
    assert history(hub) == [] and hub.repo(REPO).branches["next"] == result.commit_sha


def test_a_pull_request(hub: HubServer, model: Path, transfer: str):
    hub.store.create_repo(REPO)
    result = push(model, create_pr=True, token=hub.add_user("bob"))
    assert history(hub) == [] and history(hub, "refs/pr/1") == ["Train a model"]
    assert result.pull_request_url == result.url == f"{hub.endpoint}/{REPO}/discussions/1"


# --- faults


@pytest.mark.parametrize("create_pr", [False, True])
def test_a_lost_reply_leaves_exactly_one_commit(hub: HubServer, token: str, model: Path, transfer, create_pr: bool):
    hub.store.create_repo(REPO)
    hub.faults.add("POST", "/commit/main", action="drop-reply")
    result = push(model, create_pr=create_pr)
    assert history(hub, "refs/pr/1" if create_pr else "main") == ["Train a model"]
    assert result.commit_sha in hub.repo(REPO).commits and len(hub.seen("POST", "/commit/")) == 1
    assert len(hub.repo(REPO).discussions) == create_pr


def test_a_lost_reply_is_found_below_somebody_elses_commit(hub: HubServer, token: str, model: Path, monkeypatch):
    import lungct_hf.hub.push as module

    hub.faults.add("POST", "/commit/main", action="drop-reply")
    monkeypatch.setattr(module, "rest", lambda _: hub.store.put(REPO, {"NOTES.md": b"hello"}, "hello"))
    result = push(model)
    assert history(hub) == ["hello", "Train a model"] and hub.repo(REPO).commits[result.commit_sha].title != "hello"


@pytest.mark.parametrize("action", ["status:500", "status:503", "cut"])
def test_a_commit_that_failed_is_sent_again(hub: HubServer, token: str, model: Path, action: str):
    hub.faults.add("POST", "/commit/", times=2, action=action)
    assert push(model).changed and history(hub) == ["Train a model"]


def test_a_hub_that_stays_broken_is_given_up(hub: HubServer, token: str, model: Path):
    hub.faults.add("POST", "/commit/", times=99, action="status:500")
    assert "answered 500" in str(refusal(model)) and len(hub.seen("POST", "/commit/")) == 4


def test_somebody_else_commits_in_between(hub: HubServer, token: str, model: Path, monkeypatch):
    import lungct_hf.hub.push as module

    send, moved = module._send, []

    def send_late(*args, **kwargs):
        if not moved:
            card = b"---\nlicense: mit\n---\nWritten meanwhile."
            moved.append(hub.store.put(REPO, {"README.md": card, "NOTES.md": b"x"}, "meanwhile"))
        return send(*args, **kwargs)

    monkeypatch.setattr(module, "_send", send_late)
    push(model)
    assert history(hub) == ["Train a model", "meanwhile"] and "NOTES.md" in hub.files(REPO)
    assert author_text(hub.files(REPO)["README.md"].decode()) == "Written meanwhile."


def test_a_file_that_the_hub_ignores_is_named(hub: HubServer, token: str, model: Path):
    hub.store.create_repo(REPO)
    hub.store.put(REPO, {".gitignore": b"*.parquet\n"})
    message = str(refusal(model))
    assert "evaluation/predictions.parquet" in message and ".gitignore" in message


def test_a_damaged_upload_is_refused_by_the_hub_and_nothing_is_committed(hub: HubServer, token: str, model: Path):
    hub.faults.add("PUT", "/objects/", times=99, action="status:400")
    assert "400" in str(refusal(model)) and history(hub) == []


# --- one clear sentence


@pytest.mark.parametrize("name", ["pytorch_model.bin", "sub/last.PT", "a.ckpt", "b.pkl", "c.pth"])
def test_pickles_are_refused(hub: HubServer, token: str, model: Path, name: str):
    (model / "sub").mkdir()
    (model / name).write_bytes(b"x")
    with pytest.raises(RefusedError, match=name.split("/")[-1]) as caught:
        push(model)
    assert caught.value.exit_code == 3 and not hub.requests


def test_a_link_out_of_the_folder_is_refused(hub: HubServer, token: str, model: Path, tmp_path: Path):
    (tmp_path / "private.txt").write_text("mine")
    (model / "notes.txt").symlink_to(tmp_path / "private.txt")
    with pytest.raises(RefusedError, match="notes.txt"):
        push(model)


def test_nothing_to_push(hub: HubServer, token: str, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    assert "no directory" in str(refusal(tmp_path / "missing")) and "no files" in str(refusal(tmp_path / "empty"))


def test_no_token(hub: HubServer, model: Path):
    message = str(refusal(model))
    assert "hf auth login" in message and "HF_TOKEN" in message and not hub.requests


def test_a_name_that_is_none(hub: HubServer, token: str, model: Path):
    with pytest.raises(LungCTError) as caught:
        push_folder(model, "a/b/c", message="m")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("who", ["wrong", "expired", "read", "stranger"])
def test_a_token_that_may_not_write_is_explained_and_never_shown(hub, model: Path, who: str, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    secret = {
        "wrong": lambda: "hf_nobodyhasthistoken",
        "expired": lambda: hub.add_user("alice", "expired"),
        "read": lambda: hub.add_user("alice", "read"),
        "stranger": lambda: hub.add_user("bob"),
    }[who]()
    error = refusal(model, token=secret)
    expected = "refused the access token" if who in ("wrong", "expired") else "does not let the access token write"
    assert expected in str(error) and "hf auth login" in str(error)
    shown = "".join(traceback.format_exception(error)) + caplog.text + "".join(capfd.readouterr())
    assert secret not in shown


def test_a_server_that_echoes_the_token_is_not_quoted(hub: HubServer, model: Path, monkeypatch):
    from hub_store import HubError

    secret = hub.add_user("alice")

    def echo(call, name):
        raise HubError(403, "", f"no rights for {secret}")

    monkeypatch.setattr(hub, "route", echo)
    error = refusal(model, token=secret)
    assert "no rights for <token>" in str(error) and secret not in "".join(traceback.format_exception(error))


def test_a_hub_that_is_not_there(model: Path, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 could not be reached" in str(refusal(model, token="hf_x"))


# --- a user's own process


@pytest.mark.parametrize("xet", ["0", "1"])
def test_push_and_fetch_in_a_process_of_their_own(hub: HubServer, model: Path, environment: dict, xet: str):
    environment |= {"HF_TOKEN": hub.add_user("alice"), "HF_HUB_DISABLE_XET": xet}
    script = (
        "import sys; from lungct_hf.hub import push_folder, ModelRepo\n"
        f"pushed = push_folder({str(model)!r}, {REPO!r}, message='m', private=True)\n"
        f"fetched = ModelRepo.open({REPO!r})\n"
        "assert fetched.revision == pushed.commit_sha\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'the lower room stays light'\n"
        "print(fetched.path)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.strip()) / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert environment["HF_TOKEN"] not in done.stdout + done.stderr and history(hub) == ["m"]


def test_while_the_client_repeats_one_line_says_so(
    hub: HubServer, token: str, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub.utils import _http

    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
    hub.faults.add("PUT", "/objects/", times=3, action="status:503")
    push(model)
    said = [line for line in capsys.readouterr().err.splitlines() if "trying again" in line]
    assert len(said) == 1 and "it answers 503" in said[0] and f"uploading to {REPO}" in said[0]
    assert "/objects/" not in said[0]
