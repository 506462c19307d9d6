"""Commits, pull requests and Spaces: the routes of `hub_server.HubServer` that change what is there."""

from __future__ import annotations

import base64
import fnmatch
import json
from datetime import UTC, datetime
from typing import Any

from hub_routes import REPO, SPACE, check_card, iso
from hub_store import LFS_ABOVE, Discussion, HubError, Repo, Tree
from hub_wire import Call, Reply

# --- commits


def may_commit(call: Call, repo: Repo, create_pr: bool) -> str:
    """The user, if they may change the repo, or propose a change to it."""
    return call.writer(None if create_pr else repo.owner)


def preupload(call: Call, repo: Repo, rest: list[str]) -> Reply:
    may_commit(call, repo, bool(call.query.get("create_pr")))
    head, body = repo.resolve(rest[0]).tree, call.json()
    ignore = body.get("gitIgnore")
    if ignore is None:
        ignore = call.store.content(head[".gitignore"]).decode() if ".gitignore" in head else ""
    patterns = [line.strip().rstrip("/") for line in ignore.splitlines() if line.strip() and line[0] != "#"]
    out = []
    for item in body["files"]:
        path, sample = item["path"], base64.b64decode(item.get("sample") or "")
        large = repo.is_large(path, item["size"], sample, call.store.blobs)
        row: dict[str, Any] = {"path": path, "uploadMode": "lfs" if large else "regular"}
        row["shouldIgnore"] = any(fnmatch.fnmatch(part, p) for p in patterns for part in [path, *path.split("/")])
        if path in head:
            row["oid"] = head[path].sha256 or head[path].oid
        out.append(row)
    return Reply(200, {"files": out})


def changed_tree(call: Call, repo: Repo, base: Tree, lines: list[dict]) -> Tree:
    tree = dict(base)
    for line in lines:
        key, value = line["key"], line["value"]
        path = value.get("path", "")
        if key == "file":
            data = (
                base64.b64decode(value["content"]) if value.get("encoding") == "base64" else value["content"].encode()
            )
            if len(data) > LFS_ABOVE:
                raise HubError(400, "", f"Your push was rejected: {path} is larger than 10 MiB and not a large file")
            if path == "README.md" and (problem := check_card(data.decode("utf-8", "replace"))):
                raise HubError(400, "", f"Invalid metadata in README.md: {problem}")
            tree[path] = call.store.add_blob(data)
        elif key == "lfsFile":
            if value["oid"] not in repo.objects or value.get("algo") != "sha256":
                raise HubError(400, "", f"LFS pointer points to a file that does not exist: {path} ({value['oid']})")
            tree[path] = call.store.large_entry(value["oid"])
            if value.get("size") not in (None, tree[path].size):
                raise HubError(400, "", f"The size of {path} is {tree[path].size}, not {value['size']}")
        elif key == "deletedFile":
            if tree.pop(path, None) is None:
                raise HubError(404, "EntryNotFound", f"A file with this name doesn't exist: {path}")
        elif key == "deletedFolder":
            gone = [p for p in tree if p.startswith(path.rstrip("/") + "/")]
            if not gone:
                raise HubError(404, "EntryNotFound", f"A folder with this name doesn't exist: {path}")
            for name in gone:
                del tree[name]
        else:
            raise HubError(400, "", f"Unknown operation: {key}")
    return tree


def commit(call: Call, repo: Repo, rest: list[str]) -> Reply:
    create_pr = bool(call.query.get("create_pr"))
    user = may_commit(call, repo, create_pr)
    lines = [json.loads(line) for line in call.body.splitlines() if line.strip()]
    if not lines or lines[0]["key"] != "header" or not lines[0]["value"].get("summary"):
        raise HubError(400, "", "The first line must be a header with a summary")
    header, ref = lines[0]["value"], rest[0]
    if ref not in repo.branches and ref not in repo.pull_refs:
        raise HubError(404, "RevisionNotFound", f"Invalid rev id: {ref}")
    head, parent = repo.resolve(ref), header.get("parentCommit")
    if parent and not create_pr and not head.sha.startswith(parent):
        raise HubError(412, "", "A commit has happened since. Please refresh and try again.")
    if create_pr and parent:
        head = repo.resolve(parent)
    tree = changed_tree(call, repo, head.tree, lines[1:])
    pull_url = None
    if create_pr:
        thread = open_thread(repo, user, header["summary"], header.get("description", ""), True, base=ref)
        ref = f"refs/pr/{thread.num}"
        repo.pull_refs[ref] = head.sha
        pull_url = f"{call.endpoint}/{call.web_path(repo)}/discussions/{thread.num}"
    made = call.store.commit(repo, ref, tree, header["summary"], header.get("description", ""), user)
    url = f"{call.endpoint}/{call.web_path(repo)}/commit/{made.sha}"
    out = {"success": True, "commitUrl": url, "commitOid": made.sha, "hookOutput": ""}
    return Reply(200, out | ({"pullRequestUrl": pull_url} if pull_url else {}))


# --- discussions and pull requests


def event(kind: str, user: str, data: dict, count: int) -> dict:
    when = iso(datetime.now(UTC).timestamp())
    return {"id": f"{count:024x}", "type": kind, "createdAt": when, "author": {"name": user}, "data": data}


def open_thread(repo: Repo, user: str, title: str, text: str, is_pr: bool, base: str = "main") -> Discussion:
    thread = Discussion(len(repo.discussions) + 1, title, user, is_pr, base, "draft" if is_pr else "open")
    thread.events.append(event("comment", user, {"edited": False, "hidden": False, "latest": {"raw": text}}, 1))
    repo.discussions[thread.num] = thread
    return thread


def add_discussion(call: Call, repo: Repo, rest: list[str]) -> Reply:
    user, _ = call.account()
    if rest:
        return reply_to(call, repo, int(rest[0]), rest[1])
    if user is None:
        raise HubError(401, "", "Invalid username or password.")
    body = call.json()
    thread = open_thread(repo, user, body["title"], body.get("description", ""), bool(body.get("pullRequest")))
    if thread.is_pull_request:
        repo.pull_refs[f"refs/pr/{thread.num}"] = repo.branches["main"]
    return Reply(200, {"num": thread.num, "pullRequest": thread.is_pull_request})


def show_discussion(call: Call, repo: Repo, rest: list[str]) -> Reply:
    thread = repo.discussions.get(int(rest[0])) if rest else None
    if thread is None:
        raise HubError(404, "", "No discussion with this number")
    changes = {"base": f"refs/heads/{thread.base}"} | ({"mergeCommitId": thread.merge_oid} if thread.merge_oid else {})
    out = {
        "num": thread.num, "title": thread.title, "status": thread.status, "author": {"name": thread.author},
        "createdAt": thread.events[0]["createdAt"], "repo": {"name": repo.id, "type": repo.type},
        "isPullRequest": thread.is_pull_request, "events": thread.events, "changes": changes, "filesWithConflicts": [],
        "diff": "",
    }  # fmt: skip
    return Reply(200, out)


def reply_to(call: Call, repo: Repo, num: int, what: str) -> Reply:
    user, _ = call.account()
    thread = repo.discussions.get(num)
    if user is None or thread is None:
        raise HubError(401 if user is None else 404, "", "Not signed in, or no discussion with this number")
    body, count = call.json() or {}, len(thread.events) + 1
    if what == "comment":
        new = event("comment", user, {"edited": False, "hidden": False, "latest": {"raw": body["comment"]}}, count)
    elif what == "status":
        thread.status = body["status"]
        new = event("status-change", user, {"status": thread.status}, count)
    elif what == "title":
        new = event("title-change", user, {"from": thread.title, "to": body["title"]}, count)
        thread.title = body["title"]
    elif what == "merge" and thread.is_pull_request:
        call.writer(repo.owner)
        thread.merge_oid, thread.status = merge(call, repo, thread), "merged"
        new = event("status-change", user, {"status": "merged"}, count)
    else:
        raise HubError(404, "", f"No such action: {what}")
    thread.events.append(new)
    return Reply(200, {"newMessage": new, "newTitle": new, "newStatus": new})


def merge(call: Call, repo: Repo, thread: Discussion) -> str:
    """Apply to the base branch what the pull request changed since it left it."""
    theirs = repo.history(f"refs/pr/{thread.num}")
    base = {c.sha for c in repo.history(thread.base)}
    fork = next(c for c in theirs if c.sha in base).tree
    new, tree = theirs[0].tree, dict(repo.resolve(thread.base).tree)
    for path in set(fork) | set(new):
        if fork.get(path) != new.get(path):
            if path in new:
                tree[path] = new[path]
            else:
                tree.pop(path, None)
    return call.store.commit(repo, thread.base, tree, f"{thread.title} (#{thread.num})", "", thread.author).sha


# --- Spaces


def space_keys(call: Call, repo: Repo, rest: list[str]) -> Reply:
    call.writer(repo.owner)
    values = repo.variables if call.segments[4] == "variables" else repo.secrets
    if call.method == "POST":
        body = call.json()
        kept = ("value", "description") if values is repo.variables else ("description",)
        values[body["key"]] = {k: body[k] for k in kept if k in body} | {"updatedAt": iso(repo.created)}
    elif call.method == "DELETE":
        values.pop(call.json()["key"], None)
    return Reply(200, values)


def space_runtime(call: Call, repo: Repo, rest: list[str]) -> Reply:
    if call.method == "POST":
        call.writer(repo.owner)
        body, action = call.json() or {}, call.segments[4]
        if action == "hardware":
            repo.runtime["hardware"]["requested"] = repo.runtime["hardware"]["current"] = body["flavor"]
        elif action == "sleeptime":
            repo.runtime["gcTimeout"] = body["seconds"]
        else:
            app = "app.py" in repo.resolve("main").tree
            repo.runtime["stage"] = "PAUSED" if action == "pause" else "RUNNING" if app else "NO_APP_FILE"
            repo.runtime["restarts"] = repo.runtime.get("restarts", 0) + (action == "restart")
    return Reply(200, repo.runtime)


REPO |= {
    ("POST", "preupload"): preupload, ("POST", "commit"): commit, ("POST", "discussions"): add_discussion,
    ("GET", "discussions"): show_discussion,
}  # fmt: skip
SPACE |= {(m, a): space_keys for m in ("GET", "POST", "DELETE") for a in ("variables", "secrets")}
SPACE |= {("POST", a): space_runtime for a in ("restart", "pause", "hardware", "sleeptime")}
SPACE[("GET", "runtime")] = space_runtime
