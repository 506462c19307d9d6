"""The test Hub itself: plain clients work against it, and it refuses what the real one refuses."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import httpx
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from hub_server import HubServer

REPO = "alice/m"


@pytest.fixture
def api(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> HfApi:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    api = HfApi(endpoint=hub.endpoint, token=hub.add_user("alice"))
    api.create_repo(REPO)
    return api


def test_upload_folder_and_snapshot_download(hub: HubServer, api: HfApi, tmp_path: Path):
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "weights.safetensors").write_bytes(bytes(range(256)) * 999)
    (source / "deep" / "er" / "text.txt").write_text("hällo")
    (source / "empty").touch()
    info = api.upload_folder(folder_path=source, repo_id=REPO, commit_message="all of it")
    path = Path(api.snapshot_download(REPO, revision=info.oid))
    for file in source.rglob("*"):
        if file.is_file():
            assert (path / file.relative_to(source)).read_bytes() == file.read_bytes()
    listing = {f.path: f for f in api.list_repo_tree(REPO, recursive=True)}
    assert {"deep", "deep/er", "deep/er/text.txt", "weights.safetensors"} <= set(listing)
    assert [f.path for f in api.list_repo_tree(REPO, "deep")] == ["deep/er"]
    expected = hashlib.sha256(bytes(range(256)) * 999).hexdigest()
    assert listing["weights.safetensors"].lfs.sha256 == expected
    git = subprocess.run(["git", "hash-object", source / "empty"], capture_output=True, text=True, check=True)
    assert listing["empty"].blob_id == git.stdout.strip()
    assert api.verify_repo_checksums(REPO, local_dir=str(path)).mismatches == []
    assert {r.host for r in hub.seen("PUT", "/objects/")} == {"cdn"} and not [
        r for r in hub.requests if r.status >= 500
    ]


def test_multipart_and_pages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with HubServer(page_size=3, multipart_above=1000, chunk_size=700) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.add_user("alice"))
        api.create_repo(REPO)
        data = b"\0" + bytes(range(250)) * 10
        adds = [CommitOperationAdd(f"{i}.txt", b"%d" % i) for i in range(7)]
        api.create_commit(REPO, [CommitOperationAdd("big.safetensors", data), *adds], commit_message="many")
        assert len(hub.seen("PUT", "/parts/")) == 4 and hub.files(REPO)["big.safetensors"] == data
        assert len(list(api.list_repo_tree(REPO))) == 9
        for i in range(5):
            api.create_commit(REPO, [CommitOperationAdd("0.txt", b"v%d" % i)], commit_message=f"c{i}")
        assert [c.title for c in api.list_repo_commits(REPO)][:3] == ["c4", "c3", "c2"]
        assert len(api.list_repo_commits(REPO)) == 7 and not hub.crashes


def test_uploads_are_checked(hub: HubServer, api: HfApi):
    def announce(data: bytes, **claims) -> str:
        claim = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), **claims}
        body = {"operation": "upload", "transfers": ["basic"], "objects": [claim], "ref": {"name": "main"}}
        reply = httpx.post(f"{hub.endpoint}/{REPO}.git/info/lfs/objects/batch", json=body, headers=auth)
        return reply.json()["objects"][0]["actions"]["upload"]["href"]

    auth = {"Authorization": f"Bearer {api.token}"}
    assert "sha256" in httpx.put(announce(b"right"), content=b"wrong").headers["X-Error-Message"]
    assert httpx.put(announce(b"right", size=9), content=b"right").status_code == 400
    assert httpx.put(announce(b"right"), content=b"right", headers=auth).status_code == 400
    assert httpx.put(announce(b"right") + "0", content=b"right").status_code == 403
    missing = hashlib.sha256(b"never sent").hexdigest()
    lines = [
        {"key": "header", "value": {"summary": "s"}},
        {"key": "lfsFile", "value": {"path": "x.bin", "algo": "sha256", "oid": missing, "size": 10}},
    ]
    commit = f"{hub.endpoint}/api/models/{REPO}/commit/main"
    reply = httpx.post(commit, content="\n".join(json.dumps(line) for line in lines), headers=auth)
    assert reply.status_code == 400 and len(hub.repo(REPO).commits) == 1


def test_a_signed_address_expires(hub: HubServer, api: HfApi, monkeypatch: pytest.MonkeyPatch):
    import hub_transfer

    hub.store.put(REPO, {"w.safetensors": b"\0w"})
    url = f"{hub.endpoint}/{REPO}/resolve/main/w.safetensors"
    assert httpx.get(url, follow_redirects=True).content == b"\0w"
    monkeypatch.setattr(hub_transfer, "LIFETIME", -1)
    assert httpx.get(url, follow_redirects=True).status_code == 403


def test_resolve_headers_and_ranges(hub: HubServer, api: HfApi):
    sha = hub.store.put(REPO, {"w.safetensors": b"\0" + b"w" * 99, "t.txt": b"0123456789"})
    tree = hub.repo(REPO).resolve("main").tree
    small = httpx.head(f"{hub.endpoint}/{REPO}/resolve/main/t.txt")
    assert small.headers["ETag"] == f'"{tree["t.txt"].oid}"' and small.headers["X-Repo-Commit"] == sha
    assert small.headers["Content-Length"] == "10"
    large = httpx.head(f"{hub.endpoint}/{REPO}/resolve/main/w.safetensors")
    assert large.status_code == 302 and large.headers["X-Linked-ETag"] == f'"{tree["w.safetensors"].sha256}"'
    assert large.headers["X-Linked-Size"] == "100" and large.headers["Location"].startswith(hub.cdn)
    for asked, status, got in (("2-4", 206, b"234"), ("7-", 206, b"789"), ("-2", 206, b"89"), ("10-", 416, b"")):
        reply = httpx.get(f"{hub.endpoint}/{REPO}/resolve/main/t.txt", headers={"Range": f"bytes={asked}"})
        assert (reply.status_code, reply.content) == (status, got)


def test_who_may_do_what(hub: HubServer, api: HfApi):
    add = [CommitOperationAdd("a.txt", b"a")]
    for token, status in ((False, 401), (hub.add_user("alice", "read"), 403), (hub.add_user("bob"), 403)):
        with pytest.raises(HfHubHTTPError) as caught:
            HfApi(endpoint=hub.endpoint, token=token).create_commit(REPO, add, commit_message="x")
        assert caught.value.response.status_code == status
    with pytest.raises(HfHubHTTPError, match="Invalid"):
        api.whoami(token="hf_unknown")
    assert api.whoami()["name"] == "alice"
    api.update_repo_settings(REPO, private=True)
    for token, status in ((False, 401), (hub.add_user("bob"), 404)):
        with pytest.raises(RepositoryNotFoundError) as caught:
            HfApi(endpoint=hub.endpoint, token=token).repo_info(REPO)
        assert caught.value.response.status_code == status
    assert api.repo_info(REPO).private


def test_commits_on_a_moved_head_and_deletions(hub: HubServer, api: HfApi):
    start = api.repo_info(REPO).sha
    api.create_commit(REPO, [CommitOperationAdd("d/a.txt", b"a")], commit_message="1", parent_commit=start)
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_commit(REPO, [CommitOperationAdd("b.txt", b"b")], commit_message="2", parent_commit=start)
    assert caught.value.response.status_code == 412
    api.create_commit(REPO, [CommitOperationDelete("d/", is_folder=True)], commit_message="3")
    assert not api.file_exists(REPO, "d/a.txt") and api.file_exists(REPO, "d/a.txt", revision=api_head(api, 1))
    with pytest.raises(EntryNotFoundError):
        api.create_commit(REPO, [CommitOperationDelete("d/a.txt")], commit_message="4")
    with pytest.raises(ValueError, match="Invalid metadata"):
        api.create_commit(REPO, [CommitOperationAdd("README.md", b"---\na: [\n---\n")], commit_message="5")


def api_head(api: HfApi, back: int) -> str:
    return api.list_repo_commits(REPO)[back].commit_id


def test_tags_branches_and_missing_revisions(hub: HubServer, api: HfApi):
    api.create_tag(REPO, tag="v1")
    api.create_branch(REPO, branch="side/one")
    with pytest.raises(HfHubHTTPError):
        api.create_tag(REPO, tag="v1")
    api.create_tag(REPO, tag="v1", exist_ok=True)
    api.create_commit(REPO, [CommitOperationAdd("a", b"a")], commit_message="s", revision="side/one")
    refs = api.list_repo_refs(REPO)
    assert [t.name for t in refs.tags] == ["v1"] and [b.name for b in refs.branches] == ["main", "side/one"]
    assert api.file_exists(REPO, "a", revision="side/one") and not api.file_exists(REPO, "a")
    api.delete_tag(REPO, tag="v1")
    api.delete_branch(REPO, branch="side/one")
    for revision in ("v1", "side/one", "0" * 40):
        with pytest.raises(RevisionNotFoundError):
            api.repo_info(REPO, revision=revision)


def test_pull_requests(hub: HubServer, api: HfApi):
    bob = HfApi(endpoint=hub.endpoint, token=hub.add_user("bob"))
    info = bob.create_commit(REPO, [CommitOperationAdd("n.txt", b"n")], commit_message="better", create_pr=True)
    assert info.pr_num == 1 and not api.file_exists(REPO, "n.txt")
    assert hf_hub_download(REPO, "n.txt", revision="refs/pr/1", endpoint=hub.endpoint)
    api.comment_discussion(REPO, 1, "thanks")
    assert api.list_repo_refs(REPO, include_pull_requests=True).pull_requests[0].ref == "refs/pr/1"
    api.create_commit(REPO, [CommitOperationAdd("o.txt", b"o")], commit_message="meanwhile")
    api.merge_pull_request(REPO, 1)
    assert api.file_exists(REPO, "n.txt") and api.file_exists(REPO, "o.txt")
    assert api.get_discussion_details(REPO, 1).status == "merged"
    assert api.create_pull_request(REPO, "an empty one").num == 2


def test_spaces(hub: HubServer, api: HfApi):
    api.create_repo("alice/demo", repo_type="space", space_sdk="gradio", private=True)
    api.upload_file(path_or_fileobj=b"print()", path_in_repo="app.py", repo_id="alice/demo", repo_type="space")
    api.add_space_variable("alice/demo", "LUNGCT_REVISION", "v1")
    api.add_space_secret("alice/demo", "HF_TOKEN", "hf_x")
    assert api.get_space_variables("alice/demo")["LUNGCT_REVISION"].value == "v1"
    assert "hf_x" not in json.dumps(hub.repo("alice/demo", "space").secrets)
    assert api.restart_space("alice/demo").stage == api.get_space_runtime("alice/demo").stage == "RUNNING"
    assert api.pause_space("alice/demo").stage == "PAUSED"
    with pytest.raises(HfHubHTTPError):
        HfApi(endpoint=hub.endpoint, token=hub.add_user("bob", "read")).restart_space("alice/demo")


def test_repos_come_and_go(hub: HubServer, api: HfApi):
    with pytest.raises(HfHubHTTPError):
        api.create_repo(REPO)
    assert api.create_repo(REPO, exist_ok=True).repo_id == REPO
    api.move_repo(REPO, "alice/new")
    assert api.repo_exists("alice/new") and not api.repo_exists(REPO)
    api.delete_repo("alice/new")
    api.delete_repo("alice/new", missing_ok=True)
    assert not api.repo_exists("alice/new")


def test_faults_do_what_they_say(hub: HubServer, api: HfApi):
    hub.store.put(REPO, {"t.txt": b"0123456789"})
    url = f"{hub.endpoint}/{REPO}/resolve/main/t.txt"
    for action in ("status:503", "flip-byte"):
        hub.faults.add("GET", "t.txt", action=action)
    assert httpx.get(url).status_code == 503
    assert httpx.get(url).content == b"01234" + bytes([ord("5") ^ 1]) + b"6789"
    for action, error in (("cut", httpx.ReadError), ("short-body", httpx.RemoteProtocolError)):
        hub.faults.add("GET", "t.txt", action=action)
        with pytest.raises(error):
            httpx.get(url)
    assert httpx.get(url).content == b"0123456789"
    with pytest.raises(ValueError, match="unknown action"):
        hub.faults.add("GET", "x", action="explode")


def test_other_libraries_read_from_it(hub: HubServer, environment: dict, tmp_path: Path):
    """A user's own process: a data set through `datasets`, a config through transformers."""
    hub.store.create_repo("alice/slices", "dataset")
    rows = "".join(f'{{"label": "normal", "n": {i}}}\n' for i in range(5))
    hub.store.put("alice/slices", {"data/train.jsonl": rows.encode()}, repo_type="dataset")
    hub.store.create_repo("alice/net")
    hub.store.put("alice/net", {"config.json": b'{"model_type": "bert", "hidden_size": 24}'})
    script = (
        "from datasets import load_dataset\n"
        "print(load_dataset('alice/slices', split='train')['n'][:])\n"
        "from transformers import AutoConfig\n"
        "print(AutoConfig.from_pretrained('alice/net').hidden_size)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=200)
    assert done.stdout.split("\n")[:2] == ["[0, 1, 2, 3, 4]", "24"], done.stderr


def test_it_runs_as_a_program(tmp_path: Path):
    program = Path(__file__).parents[1] / "hub_server.py"
    with subprocess.Popen([sys.executable, program, "--port", "0"], stdout=subprocess.PIPE, text=True) as process:
        try:
            words = dict(word.split("=", 1) for word in process.stdout.readline().split()[1:])
            request = Request(f"{words['HF_ENDPOINT']}/api/whoami-v2")
            request.add_header("Authorization", f"Bearer {words['HF_TOKEN']}")
            assert json.load(urlopen(request))["name"] == "alice"
        finally:
            process.terminate()
