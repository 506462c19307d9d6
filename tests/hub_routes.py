"""The JSON API of `hub_server.HubServer`: accounts, repositories, trees, commits, tags, pull requests, Spaces."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import yaml

from hub_store import Commit, HubError, Repo, Tree, tree_oids
from hub_wire import Call, Reply

KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
YAML_BLOCK = re.compile(r"^\s*---\r?\n([\s\S]*?)\r?\n---[ \t]*(\r?\n|$)")


def iso(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def check_card(content: str) -> str | None:
    """What is wrong with a README's metadata, or None."""
    match = YAML_BLOCK.match(content)
    if match is None:
        return None
    try:
        data = yaml.safe_load(match.group(1))
    except yaml.YAMLError as error:
        return f"invalid YAML: {error}"
    return None if data is None or isinstance(data, dict) else "the metadata must be a mapping"


def handle(call: Call) -> Reply:
    """Route one /api call."""
    parts = call.segments[1:]
    if parts[0] == "whoami-v2":
        return whoami(call)
    if parts[0] == "validate-yaml":
        problem = check_card(call.json()["content"])
        reply = {"errors": [{"message": problem}] if problem else [], "warnings": []}
        return Reply(400 if problem else 200, reply)
    if parts[:1] == ["repos"] and len(parts) == 2:
        return REPOS[(call.method, parts[1])](call)
    if parts[0] in KINDS and len(parts) >= 3:
        repo = call.readable(f"{parts[1]}/{parts[2]}", KINDS[parts[0]])
        action, rest = (parts[3], parts[4:]) if len(parts) > 3 else ("", [])
        found = REPO.get((call.method, action)) or (SPACE.get((call.method, action)) if repo.type == "space" else None)
        if found is not None:
            return found(call, repo, rest)
    elif parts[0] in KINDS and len(parts) == 2:
        call.readable(parts[1], KINDS[parts[0]])
    raise HubError(404, "", f"No such route: {call.method} {call.path}")


def whoami(call: Call) -> Reply:
    user, role = call.account()
    if user is None:
        raise HubError(401, "", "Invalid username or password.")
    access = {"displayName": "test", "role": role}
    return Reply(
        200, {"type": "user", "name": user, "orgs": [], "auth": {"type": "access_token", "accessToken": access}}
    )


# --- repositories as such


def create(call: Call) -> Reply:
    body = call.json()
    user = call.writer(None)
    repo_id, kind = f"{body.get('organization') or user}/{body['name']}", body.get("type") or "model"
    call.writer(repo_id.split("/")[0])
    url = f"{call.endpoint}/{'' if kind == 'model' else kind + 's/'}{repo_id}"
    if (kind, repo_id) in call.store.repos:
        return Reply(409, {"error": "You already created this repo", "url": url})
    private = body.get("visibility") == "private" or body.get("private") is True
    repo = call.store.create_repo(repo_id, kind, private=private, sdk=body.get("sdk"))
    repo.variables = {v["key"]: {"value": v["value"]} for v in body.get("variables") or []}
    repo.secrets = {v["key"]: {} for v in body.get("secrets") or []}
    return Reply(200, {"url": url, "name": repo_id, "id": repo_id})


def delete(call: Call) -> Reply:
    body = call.json()
    repo = call.readable(
        f"{body.get('organization') or call.account()[0]}/{body['name']}", body.get("type") or "model"
    )
    call.writer(repo.owner)
    del call.store.repos[(repo.type, repo.id)]
    return Reply(200, {})


def move(call: Call) -> Reply:
    body = call.json()
    repo = call.readable(body["fromRepo"], body.get("type") or "model")
    call.writer(repo.owner)
    call.writer(body["toRepo"].split("/")[0])
    del call.store.repos[(repo.type, repo.id)]
    repo.id = body["toRepo"]
    call.store.repos[(repo.type, repo.id)] = repo
    return Reply(200, {})


def info(call: Call, repo: Repo, rest: list[str]) -> Reply:
    commit = repo.resolve(rest[0] if rest else "main")
    metadata = {}
    if "README.md" in commit.tree:
        block = YAML_BLOCK.match(call.store.content(commit.tree["README.md"]).decode("utf-8", "replace"))
        metadata = (yaml.safe_load(block.group(1)) or {}) if block else {}
    siblings = [{"rfilename": path} for path in sorted(commit.tree)]
    if call.query.get("blobs"):
        siblings = [{"rfilename": row["path"], **row, "blobId": row["oid"]} for row in files_of(commit.tree)]
    out = {
        "_id": repo.id, "id": repo.id, "author": repo.owner, "sha": commit.sha, "private": repo.private,
        "gated": "auto" if repo.gated else False, "disabled": False, "downloads": 0, "likes": 0,
        "lastModified": iso(commit.when), "createdAt": iso(repo.created), "siblings": siblings,
        "tags": metadata.get("tags", []), "cardData": metadata,
    }  # fmt: skip
    if repo.type == "model":
        out |= {"modelId": repo.id, "pipeline_tag": metadata.get("pipeline_tag")}
        out |= {"library_name": metadata.get("library_name")}
    if repo.type == "space":
        out |= {"sdk": repo.sdk, "runtime": repo.runtime}
    return Reply(200, out)


def settings(call: Call, repo: Repo, rest: list[str]) -> Reply:
    call.writer(repo.owner)
    body = call.json()
    if "visibility" in body or "private" in body:
        repo.private = body.get("visibility") == "private" or body.get("private") is True
    if "gated" in body:
        repo.gated = bool(body["gated"])
    return Reply(200, {"private": repo.private, "gated": repo.gated})


# --- trees and refs


def files_of(tree: Tree) -> list[dict[str, Any]]:
    rows = []
    for path, entry in sorted(tree.items()):
        row: dict[str, Any] = {"type": "file", "oid": entry.oid, "size": entry.size, "path": path}
        if entry.sha256:
            row["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": 134}
        rows.append(row)
    return rows


def page(call: Call, rows: list[dict]) -> Reply:
    """One page of `rows`, with the Link header that leads to the next."""
    start, limit = int(call.query.get("cursor", "0")), call.server.page_size
    headers = {}
    if start + limit < len(rows):
        query = "&".join(f"{k}={v}" for k, v in {**call.query, "cursor": str(start + limit)}.items())
        headers["Link"] = f'<{call.endpoint}{call.path}?{query}>; rel="next"'
    return Reply(200, rows[start : start + limit], headers)


def expanded(call: Call, commit: Commit, rows: list[dict]) -> list[dict]:
    if str(call.query.get("expand", "")).lower() in ("true", "1"):
        last = {"id": commit.sha, "title": commit.title, "date": iso(commit.when)}
        rows = [{**row, "lastCommit": last} for row in rows]
    return rows


def tree(call: Call, repo: Repo, rest: list[str]) -> Reply:
    commit = repo.resolve(rest[0])
    folder = "/".join(rest[1:]).strip("/")
    prefix = f"{folder}/" if folder else ""
    below = {p: e for p, e in commit.tree.items() if p.startswith(prefix)}
    if folder and not below:
        raise HubError(404, "EntryNotFound", f"{folder} does not exist on {rest[0]}")
    recursive = str(call.query.get("recursive", "")).lower() in ("true", "1")
    folders = {p[:i] for p in below for i in range(len(prefix), len(p)) if p[i] == "/"}
    oids = tree_oids(commit.tree)
    rows = [{"type": "directory", "oid": oids[f], "size": 0, "path": f} for f in folders] + files_of(below)
    if not recursive:
        rows = [row for row in rows if "/" not in row["path"][len(prefix) :]]
    return page(call, expanded(call, commit, sorted(rows, key=lambda row: row["path"])))


def paths_info(call: Call, repo: Repo, rest: list[str]) -> Reply:
    commit = repo.resolve(rest[0])
    form = call.form()
    oids = tree_oids(commit.tree)
    wanted = [path.strip("/") for path in form.get("paths", [])]
    rows = files_of({p: commit.tree[p] for p in wanted if p in commit.tree})
    rows += [{"type": "directory", "oid": oids[p], "size": 0, "path": p} for p in wanted if p and p in oids]
    call.query["expand"] = form.get("expand", ["false"])[0]
    return Reply(200, expanded(call, commit, rows))


def refs(call: Call, repo: Repo, rest: list[str]) -> Reply:
    def named(prefix: str, found: dict[str, str]) -> list[dict]:
        return [{"name": n, "ref": prefix + n, "targetCommit": sha} for n, sha in sorted(found.items())]

    out = {"branches": named("refs/heads/", repo.branches), "converts": [], "tags": named("refs/tags/", repo.tags)}
    if call.query.get("include_prs"):
        out["pullRequests"] = named("", repo.pull_refs)
    return Reply(200, out)


def commits(call: Call, repo: Repo, rest: list[str]) -> Reply:
    rows = [
        {"id": c.sha, "title": c.title, "message": c.description, "date": iso(c.when), "authors": [{"user": c.author}]}
        for c in repo.history(rest[0])
    ]
    return page(call, rows)


def add_tag(call: Call, repo: Repo, rest: list[str]) -> Reply:
    call.writer(repo.owner)
    name = call.json()["tag"]
    if name in repo.tags:
        raise HubError(409, "", f"Tag reference exists already: {name}")
    repo.tags[name] = repo.resolve(rest[0]).sha
    return Reply(200, {})


def drop_tag(call: Call, repo: Repo, rest: list[str]) -> Reply:
    call.writer(repo.owner)
    if repo.tags.pop(rest[0], None) is None:
        raise HubError(404, "RevisionNotFound", f"Tag not found: {rest[0]}")
    return Reply(200, {})


def add_branch(call: Call, repo: Repo, rest: list[str]) -> Reply:
    call.writer(repo.owner)
    if rest[0] in repo.branches:
        raise HubError(409, "", f"Reference already exists: refs/heads/{rest[0]}")
    repo.branches[rest[0]] = repo.resolve((call.json() or {}).get("startingPoint") or "main").sha
    return Reply(200, {})


def drop_branch(call: Call, repo: Repo, rest: list[str]) -> Reply:
    call.writer(repo.owner)
    if rest[0] == "main" or repo.branches.pop(rest[0], None) is None:
        raise HubError(404, "RevisionNotFound", f"Branch not found: {rest[0]}")
    return Reply(200, {})


REPOS = {("POST", "create"): create, ("DELETE", "delete"): delete, ("POST", "move"): move}
REPO = {
    ("GET", ""): info, ("GET", "revision"): info, ("PUT", "settings"): settings, ("GET", "tree"): tree,
    ("POST", "paths-info"): paths_info, ("GET", "refs"): refs, ("GET", "commits"): commits, ("POST", "tag"): add_tag,
    ("DELETE", "tag"): drop_tag, ("POST", "branch"): add_branch, ("DELETE", "branch"): drop_branch,
}  # fmt: skip
SPACE: dict = {}  # hub_commits adds more to both
