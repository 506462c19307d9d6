"""Fetching: one commit, checked files, the cache when the Hub is away, and one clear sentence when it cannot work."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pytest
from huggingface_hub import constants

from hub_fixtures import point_client_at
from hub_server import HubServer
from lungct_hf.errors import LungCTError, UsageError
from lungct_hf.hub import ModelRepo, split_revision

WEIGHTS = b"\0weights " * 5000
CLOSED = "http://127.0.0.1:9"  # nothing listens on the discard port


@pytest.fixture
def model(hub: HubServer) -> str:
    hub.store.create_repo("alice/lung")
    hub.store.put("alice/lung", {"config.json": b'{"a": 1}', "model.safetensors": WEIGHTS})
    return "alice/lung"


def refusal(*args, **kwargs) -> LungCTError:
    with pytest.raises(LungCTError) as caught:
        ModelRepo.open(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return caught.value


def test_split_revision():
    assert split_revision("a/b@v1.0") == ("a/b", "v1.0")
    assert split_revision("a/b") == ("a/b", None)
    assert split_revision("a/b@refs/pr/1") == ("a/b", "refs/pr/1")
    for text in ("a/b@", "@v1"):
        with pytest.raises(UsageError):
            split_revision(text)


def test_a_directory_wins_and_has_no_revisions(tmp_path: Path):
    fetched = ModelRepo.open(tmp_path)
    assert (fetched.path, fetched.repo_id, fetched.revision) == (tmp_path, None, None)
    assert refusal(tmp_path, "v1").exit_code == 2
    assert refusal(f"{tmp_path}@v1").exit_code == 2


def test_everything_comes_from_one_commit(hub: HubServer, model: str):
    head = hub.repo(model).branches["main"]
    hub.repo(model).tags["v1"] = head
    hub.store.put(model, {"config.json": b'{"a": 2}'})
    fetched = ModelRepo.open(f"{model}@v1")
    assert (fetched.repo_id, fetched.revision, fetched.requested_revision) == (model, head, "v1")
    assert (fetched.path / "config.json").read_bytes() == b'{"a": 1}'
    assert (fetched.path / "model.safetensors").read_bytes() == WEIGHTS
    assert ModelRepo.open(model).revision == hub.repo(model).branches["main"]
    assert ModelRepo.open(model, head[:10]).revision == head
    named = [r.path for r in hub.requests if "/revision/" in r.path]
    assert [p.rpartition("/")[2] for p in named] == ["v1", "main", head[:10]]


def test_only_what_is_asked_for(hub: HubServer, model: str):
    fetched = ModelRepo.open(model, files=["*.json"])
    assert [p.name for p in fetched.path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("path", ["/objects/", "resolve/[0-9a-f]{40}/config.json"])
def test_a_flipped_bit_is_noticed_and_mended(hub: HubServer, model: str, path: str):
    hub.faults.add("GET", path, action="flip-byte")
    fetched = ModelRepo.open(model)
    assert (fetched.path / "model.safetensors").read_bytes() == WEIGHTS
    assert (fetched.path / "config.json").read_bytes() == b'{"a": 1}'


def test_a_file_damaged_twice_is_named_and_not_kept(hub: HubServer, model: str):
    hub.faults.add("GET", "/objects/", times=2, action="flip-byte")
    message = str(refusal(model))
    assert "model.safetensors" in message and "damaged" in message
    assert (ModelRepo.open(model).path / "model.safetensors").read_bytes() == WEIGHTS


def test_a_damaged_cache_is_noticed(hub: HubServer, model: str):
    blob = (ModelRepo.open(model).path / "model.safetensors").resolve()
    blob.write_bytes(WEIGHTS[:-1] + b"X")
    assert (ModelRepo.open(model).path / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize("action", ["cut", "short-body"])
def test_a_cut_download_is_tried_again_once(hub: HubServer, model: str, action: str):
    hub.faults.add("GET", "/objects/", action=action)
    assert (ModelRepo.open(model).path / "model.safetensors").read_bytes() == WEIGHTS


def test_a_download_that_is_always_cut_is_one_sentence(hub: HubServer, model: str):
    hub.faults.add("GET", "/objects/", times=99, action="cut")
    assert "connection was cut" in str(refusal(model))
    assert len(hub.seen("GET", "/objects/")) == 2


def test_a_busy_hub_is_asked_again(hub: HubServer, model: str):
    hub.faults.add("GET", "/revision/main", times=2, action="status:503")
    assert ModelRepo.open(model).revision


def test_server_ids_that_are_not_gits_do_not_lock_anyone_out(hub: HubServer, model: str):
    """Another Hub may number small files in its own way; large files carry their sha256 everywhere."""
    repo = hub.repo(model)
    commit = repo.commits[repo.branches["main"]]
    entry = commit.tree["config.json"]
    commit.tree["config.json"] = type(entry)("0" * 40, entry.size)
    hub.store.blobs["0" * 40] = hub.store.blobs[entry.oid]
    assert (ModelRepo.open(model).path / "config.json").read_bytes() == b'{"a": 1}'


# --- when the Hub is away


def test_the_cache_serves_when_the_hub_is_away(hub: HubServer, model: str, monkeypatch: pytest.MonkeyPatch):
    first = ModelRepo.open(model)
    point_client_at(CLOSED, monkeypatch)
    with pytest.warns(UserWarning, match=rf"{CLOSED} could not be reached; using the cached copy of {model} at"):
        again = ModelRepo.open(model)
    assert (again.path, again.revision) == (first.path, first.revision)


def test_nothing_cached_and_no_hub_names_the_endpoint(hub: HubServer, monkeypatch: pytest.MonkeyPatch):
    point_client_at(CLOSED, monkeypatch)
    message = str(refusal("alice/lung"))
    assert CLOSED in message and "cache" in message


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_offline_asks_nobody(hub: HubServer, model: str, monkeypatch: pytest.MonkeyPatch, how: str):
    first = ModelRepo.open(f"{model}@main")
    asked = len(hub.requests)
    if how == "environment":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = ModelRepo.open(model, local_files_only=how == "argument")
    assert again.revision == first.revision and len(hub.requests) == asked
    assert "not (wholly) in the local cache" in str(refusal("alice/other", local_files_only=True))


# --- one clear sentence


def test_no_such_repo(hub: HubServer):
    message = str(refusal("alice/nothing"))
    assert "no repository alice/nothing" in message and "hf auth login" in message


def test_private_repo(hub: HubServer, model: str, monkeypatch: pytest.MonkeyPatch):
    hub.repo(model).private = True
    assert "not signed in" in str(refusal(model))
    assert "private" in str(refusal(model, token=hub.add_user("bob", "read")))
    monkeypatch.setenv("HF_TOKEN", hub.add_user("alice", "read"))
    assert (ModelRepo.open(model).path / "model.safetensors").read_bytes() == WEIGHTS


def test_no_such_revision_lists_those_there_are(hub: HubServer, model: str):
    hub.repo(model).tags["v1.0"] = hub.repo(model).branches["main"]
    message = str(refusal(model, "v9"))
    assert "no revision 'v9'" in message and "v1.0, main" in message


def test_gated_repo(hub: HubServer, model: str):
    hub.repo(model).gated = True
    assert "gated" in str(refusal(model)) and "gated" in str(refusal(model, token=hub.add_user("bob")))


@pytest.mark.parametrize("role", ["wrong", "expired"])
def test_a_bad_token_is_named_but_never_shown(hub: HubServer, model: str, role: str, caplog: pytest.LogCaptureFixture):
    secret = "hf_averysecretthing" if role == "wrong" else hub.add_user("alice", "expired")
    caplog.set_level(logging.DEBUG)
    error = refusal(model, token=secret)
    assert "refused the access token" in str(error) and "hf auth login" in str(error)
    assert secret not in f"{error}{error.__cause__}{error.__context__}{caplog.text}"


@pytest.mark.parametrize("secret", ["hf_with\nbreak", "hf_ümlaut", "hf_with space"])
def test_a_token_that_cannot_be_sent_is_not_shown(hub: HubServer, model: str, secret: str):
    error = refusal(model, token=secret)
    assert "access token holds" in str(error) and secret not in f"{error}{error.__context__!r}"


@pytest.mark.parametrize("text", ["./missing", "/missing/model", "a/b/c", "~/missing", "runs/x/"])
def test_a_path_that_is_not_there(text: str):
    assert "no directory" in str(refusal(text))


def test_a_file_is_not_a_model(tmp_path: Path):
    (tmp_path / "model.safetensors").touch()
    assert "is a file" in str(refusal(tmp_path / "model.safetensors"))


@pytest.mark.parametrize("text", ["alice/lu ng", "alice/--x", "-a/b", ""])
def test_a_name_that_is_none(text: str):
    assert refusal(text or "@").exit_code == 2


def test_a_full_disk_is_one_sentence(hub: HubServer, model: str, monkeypatch: pytest.MonkeyPatch):
    import errno

    from lungct_hf.hub import fetch as module

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", "/cache/blobs/x")

    monkeypatch.setattr(module, "snapshot_download", full)
    assert "the disk is full" in str(refusal(model)) and "/cache/blobs/x" in str(refusal(model))
