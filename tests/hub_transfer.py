"""File contents on `hub_server.HubServer`: resolve, LFS uploads, and the second origin that large files live on."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from urllib.parse import quote

from hub_store import HubError, Repo
from hub_wire import Call, Reply

PREFIXES = {"datasets": "dataset", "spaces": "space"}
LIFETIME = 300  # seconds that a signed address works
BATCH = re.compile(r"/(?:(datasets|spaces)/)?([^/]+/[^/]+)\.git/info/lfs/objects/(batch|verify)")
RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def split_repo(call: Call) -> tuple[str, str, list[str]]:
    """(type, id, rest) of /[datasets/|spaces/]owner/name/..."""
    parts = call.segments
    kind = PREFIXES.get(parts[0])
    parts = parts[1:] if kind else parts
    return kind or "model", "/".join(parts[:2]), parts[2:]


def handle(call: Call) -> Reply:
    """Route what is not /api on the Hub's own address."""
    if match := BATCH.fullmatch(call.path):
        repo = call.readable(match[2], PREFIXES.get(match[1], "model"))
        return (batch if match[3] == "batch" else verify)(call, repo)
    if call.segments[0] == "lfs-complete" and call.method == "POST":
        return complete(call)
    kind, repo_id, rest = split_repo(call)
    if call.method in ("GET", "HEAD") and len(rest) >= 3 and rest[0] in ("resolve", "raw"):
        return resolve(call, call.readable(repo_id, kind), rest[1], "/".join(rest[2:]))
    raise HubError(404, "", f"No such route: {call.method} {call.path}")


# --- reading


def resolve(call: Call, repo: Repo, revision: str, path: str) -> Reply:
    if repo.gated and call.account()[0] != repo.owner:
        status = 401 if call.account()[0] is None else 403
        raise HubError(status, "GatedRepo", f"Access to model {repo.id} is restricted; ask for access on its page.")
    commit = repo.resolve(revision)
    entry = commit.tree.get(path)
    if entry is None:
        missing = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found", "X-Repo-Commit": commit.sha}
        return Reply(404, {"error": "Entry not found"}, missing)
    headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{entry.oid}"', "Accept-Ranges": "bytes"}
    if entry.sha256:
        headers |= {"X-Linked-ETag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
        return Reply(302, b"", headers | {"Location": signed(call, "GET", f"/objects/{entry.sha256}")})
    return ranged(call, call.store.content(entry), headers)


def ranged(call: Call, data: bytes, headers: dict[str, str]) -> Reply:
    """All of `data`, or the part that a Range header asks for."""
    if call.method == "HEAD":
        return Reply(200, b"", headers | {"Content-Length": str(len(data))})
    match = RANGE.fullmatch(call.headers.get("Range", ""))
    if match is None:
        return Reply(200, data, headers)
    first, last = match[1], match[2]
    start = int(first) if first else max(len(data) - int(last or 0), 0)
    stop = min(int(last) + 1, len(data)) if first and last else len(data)
    if start >= stop:
        return Reply(416, b"", {"Content-Range": f"bytes */{len(data)}"})
    return Reply(206, data[start:stop], headers | {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"})


# --- writing


def batch(call: Call, repo: Repo) -> Reply:
    call.writer(None if "ref" not in (body := call.json()) else repo.owner)
    several = "multipart" in body.get("transfers", [])
    out = []
    for item in body["objects"]:
        oid, size = item["oid"], item["size"]
        row: dict = {"oid": oid, "size": size}
        if oid not in repo.objects:
            row["actions"] = {"upload": upload_action(call, repo, oid, size, several)}
            row["actions"]["verify"] = {"href": f"{call.endpoint}{call.path.removesuffix('batch')}verify"}
        out.append(row)
    return Reply(200, {"transfer": "multipart" if several else "basic", "objects": out})


def upload_action(call: Call, repo: Repo, oid: str, size: int, several: bool) -> dict:
    target = f"{repo.type}:{repo.id}"
    chunk = call.server.chunk_size
    if not several or size <= call.server.multipart_above:
        return {"href": signed(call, "PUT", f"/objects/{oid}", size=str(size), repo=target)}
    key = f"{oid}-{time.monotonic_ns()}"
    call.server.uploads[key] = {}
    parts = -(-size // chunk)
    header = {"chunk_size": str(chunk)}
    for number in range(1, parts + 1):
        header[str(number)] = signed(call, "PUT", f"/parts/{key}", number=str(number))
    done = signed(call, "POST", f"/lfs-complete/{oid}", base=call.endpoint, key=key, size=str(size), repo=target)
    return {"href": done, "header": header}


def accept(call: Call, oid: str, data: bytes) -> None:
    """Keep `data` for the repo that asked to upload it, if it is what was announced."""
    if len(data) != int(call.query["size"]):
        raise HubError(400, "", f"Announced {call.query['size']} bytes for {oid}, received {len(data)}")
    found = hashlib.sha256(data).hexdigest()
    if found != oid:
        raise HubError(400, "", f"Announced sha256 {oid}, received {found}")
    kind, _, repo_id = call.query["repo"].partition(":")
    call.store.add_object(call.store.repo(repo_id, kind), data)


def complete(call: Call) -> Reply:
    check_signature(call)
    parts, body = call.server.uploads[call.query["key"]], call.json()
    named = {part["partNumber"]: part["etag"].strip('"') for part in body["parts"]}
    if named != {number: hashlib.md5(data).hexdigest() for number, data in parts.items()}:
        raise HubError(400, "", "The parts named are not the parts received")
    accept(call, body["oid"], b"".join(data for _, data in sorted(parts.items())))
    del call.server.uploads[call.query["key"]]
    return Reply(200, {"success": True})


def verify(call: Call, repo: Repo) -> Reply:
    call.writer(None)
    body = call.json()
    if body["oid"] not in repo.objects or len(call.store.objects[body["oid"]]) != body["size"]:
        raise HubError(404, "", f"No object {body['oid']} of {body['size']} bytes was received")
    return Reply(200, {})


# --- the second origin, where an address is its own permission


def signature(call: Call, method: str, path: str, query: dict[str, str]) -> str:
    text = "\n".join([method, path, *(f"{k}={v}" for k, v in sorted(query.items()) if k != "sig")])
    return hmac.new(call.server.secret, text.encode(), "sha256").hexdigest()


def signed(call: Call, method: str, path: str, base: str | None = None, **query: str) -> str:
    query["exp"] = str(int(time.time()) + LIFETIME)
    query["sig"] = signature(call, method, path, query)
    return f"{base or call.server.cdn}{path}?" + "&".join(f"{k}={quote(v, safe='')}" for k, v in query.items())


def check_signature(call: Call) -> None:
    if call.headers.get("Authorization"):
        raise HubError(400, "", "Only one auth mechanism allowed: a signed address takes no Authorization header")
    method = "GET" if call.method == "HEAD" else call.method
    good = signature(call, method, call.path, call.query)
    if not hmac.compare_digest(good, call.query.get("sig", "")) or int(call.query.get("exp", 0)) < time.time():
        raise HubError(403, "", "This address is not signed, or has expired")


def handle_cdn(call: Call) -> Reply:
    check_signature(call)
    kind, key = call.segments[0], call.segments[1]
    if kind == "objects" and call.method in ("GET", "HEAD"):
        if key not in call.store.objects:
            raise HubError(404, "", "No such object")
        return ranged(call, call.store.objects[key], {"ETag": f'"{hashlib.md5(key.encode()).hexdigest()}"'})
    if kind == "objects" and call.method == "PUT":
        accept(call, key, call.body)
        return Reply(200, b"", {"ETag": f'"{hashlib.md5(call.body).hexdigest()}"'})
    if kind == "parts" and call.method == "PUT":
        call.server.uploads[key][int(call.query["number"])] = call.body
        return Reply(200, b"", {"ETag": f'"{hashlib.md5(call.body).hexdigest()}"'})
    raise HubError(404, "", f"No such route: {call.method} {call.path}")
