"""From a Hub: one commit, only the files that are needed, each checked; from the cache when there is no Hub."""

import logging
import re
from pathlib import Path

import pytest

from hub_fixtures import hub, no_account  # noqa: F401 - fixtures: a fresh Hub, and no account of the person who tests
from hub_server import HubServer
from lungct_hf import LungCT, LungCTError
from lungct_hf.hub import model_repo as module


def upload(hub: HubServer, folder: Path, repo: str = "alice/lung") -> str:  # noqa: F811
    hub.store.create_repo(repo)
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    hub.store.put(repo, files | {"evaluation/roc.png": b"a plot" * 99})
    module._warned.clear()
    return repo


def downloaded(hub: HubServer) -> set[str]:  # noqa: F811
    """Paths whose content was asked for."""
    found = [re.search(r"/resolve/[0-9a-f]{40}/(.+)", request.path) for request in hub.requests]
    return {match[1] for match in found if match}


def test_only_what_the_backend_needs_is_downloaded(hub: HubServer, model_dir: Path) -> None:  # noqa: F811
    repo = upload(hub, model_dir)
    head = hub.repo(repo).branches["main"]
    model = LungCT.from_pretrained(repo)
    assert (model.backend, model.repo_id, model.revision, model.name) == ("onnx", repo, head, f"{repo}@{head}")
    assert downloaded(hub) == {"config.json", "lungct.json", "onnx/model.onnx"}
    hub.requests.clear()
    assert LungCT.from_pretrained(repo, head, backend="torch").revision == head
    assert downloaded(hub) == {"model.safetensors"}


def test_a_repo_without_onnx_is_run_by_torch(hub: HubServer, torch_only: Path) -> None:  # noqa: F811
    repo = upload(hub, torch_only)
    model = LungCT.from_pretrained(repo)
    assert model.backend == "torch" and model.revision == hub.repo(repo).branches["main"]
    assert downloaded(hub) == {"config.json", "lungct.json", "model.safetensors"}


def test_what_can_move_warns_once(
    hub: HubServer,  # noqa: F811
    model_dir: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    repo = upload(hub, model_dir)
    head = hub.repo(repo).branches["main"]
    hub.repo(repo).tags["v1.2.0"] = head
    hub.repo(repo).branches["next"] = head
    with caplog.at_level(logging.WARNING, "lungct_hf"):
        LungCT.from_pretrained(repo, head)
        assert LungCT.from_pretrained(f"{repo}@v1.2.0").revision == head
        assert not caplog.records
        for _ in range(2):
            LungCT.from_pretrained(repo)
            LungCT.from_pretrained(repo, "next")
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and all(head in line for line in said) and "@main" in said[0] and "@next" in said[1]


def test_offline_works_from_the_cache(hub: HubServer, model_dir: Path) -> None:  # noqa: F811
    repo = upload(hub, model_dir)
    with pytest.raises(LungCTError, match="not .* in the local cache"):
        LungCT.from_pretrained(repo, local_files_only=True)
    online = LungCT.from_pretrained(repo)
    hub.requests.clear()
    offline = LungCT.from_pretrained(repo, local_files_only=True)
    assert offline.revision == online.revision and not hub.requests
    with pytest.raises(LungCTError, match="not .* in the local cache"):
        LungCT.from_pretrained(repo, backend="torch", local_files_only=True)


def test_a_cached_file_that_changed_is_not_run(hub: HubServer, model_dir: Path, tmp_path: Path) -> None:  # noqa: F811
    repo = upload(hub, model_dir)
    LungCT.from_pretrained(repo, cache_dir=tmp_path / "cache")
    (file,) = (tmp_path / "cache").rglob("snapshots/*/onnx/model.onnx")
    blob = file.resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"\0")
    with pytest.raises(LungCTError, match="sha256"):
        LungCT.from_pretrained(repo, cache_dir=tmp_path / "cache", local_files_only=True)


def test_a_flipped_bit_on_the_way_is_mended(hub: HubServer, model_dir: Path) -> None:  # noqa: F811
    repo = upload(hub, model_dir)
    hub.faults.add("GET", "/objects/", action="flip-byte")
    assert LungCT.from_pretrained(repo).backend == "onnx"


def test_no_such_repo_or_revision_is_a_sentence(hub: HubServer, model_dir: Path) -> None:  # noqa: F811
    repo = upload(hub, model_dir)
    for name, revision in (("alice/none", None), (repo, "v9.9"), ("./nowhere", None), (f"{repo}@a", "b")):
        with pytest.raises(LungCTError) as caught:
            LungCT.from_pretrained(name, revision)
        assert "\n" not in str(caught.value)
