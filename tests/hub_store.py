"""The state behind `hub_server.HubServer`: users, tokens, repositories, commits, large objects.

Everything is kept in memory and is what git would keep: a regular file's oid is its blob sha1, a large file's oid is
the blob sha1 of its LFS pointer, folders and commits have the sha1 git would give them.
"""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import time
from dataclasses import dataclass, field

LFS_ABOVE = 10 * 2**20
GITATTRIBUTES = "".join(
    f"{pattern} filter=lfs diff=lfs merge=lfs -text\n"
    for pattern in (
        "*.arrow *.bin *.ckpt *.gz *.h5 *.npy *.npz *.onnx *.parquet *.pkl *.pt *.pth *.safetensors *.tar *.zip *.jpg "
        "*.jpeg *.png *.tif *.tiff *tfevents*"
    ).split()
).encode()


class HubError(Exception):
    """A refusal: HTTP status, the X-Error-Code the client sorts by (or ""), and a message."""

    def __init__(self, status: int, code: str, message: str):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def git_hash(kind: str, data: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


@dataclass(frozen=True)
class Entry:
    """A file in a tree: git oid, size of the content, and its sha256 if it is a large file."""

    oid: str
    size: int
    sha256: str | None = None


Tree = dict[str, Entry]


def tree_oids(tree: Tree) -> dict[str, str]:
    """The git tree sha1 of every folder, "" being the root."""
    children: dict[str, dict[str, tuple[str, str]]] = {"": {}}
    for path, entry in tree.items():
        folder, _, name = path.rpartition("/")
        children.setdefault(folder, {})[name] = ("100644", entry.oid)
        while folder:
            folder = folder.rpartition("/")[0]
            children.setdefault(folder, {})
    oids = {}
    for folder in sorted(children, key=lambda f: -(f.count("/") + bool(f))):
        rows = sorted(children[folder].items(), key=lambda row: row[0] + ("/" if row[1][0] == "40000" else ""))
        body = b"".join(f"{mode} {name}".encode() + b"\0" + bytes.fromhex(oid) for name, (mode, oid) in rows)
        oids[folder] = git_hash("tree", body)
        if folder:
            parent, _, name = folder.rpartition("/")
            children[parent][name] = ("40000", oids[folder])
    return oids


@dataclass(frozen=True)
class Commit:
    sha: str
    parent: str | None
    tree: Tree
    title: str
    description: str
    author: str
    when: float


@dataclass
class Discussion:
    num: int
    title: str
    author: str
    is_pull_request: bool
    base: str = "main"
    status: str = "open"
    events: list[dict] = field(default_factory=list)
    merge_oid: str | None = None


@dataclass
class Repo:
    type: str
    id: str
    private: bool = False
    gated: bool = False
    sdk: str | None = None
    created: float = field(default_factory=time.time)
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pull_refs: dict[str, str] = field(default_factory=dict)  # "refs/pr/1" -> sha
    discussions: dict[int, Discussion] = field(default_factory=dict)
    objects: set[str] = field(default_factory=set)  # sha256 of the large objects uploaded to this repo
    variables: dict[str, dict] = field(default_factory=dict)
    secrets: dict[str, dict] = field(default_factory=dict)
    runtime: dict = field(default_factory=dict)

    @property
    def owner(self) -> str:
        return self.id.split("/")[0]

    def resolve(self, revision: str) -> Commit:
        """The commit that a branch, tag, pull request ref or (short) sha names."""
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        sha = self.branches.get(name) or self.tags.get(name) or self.pull_refs.get(revision)
        if sha is None:
            found = [s for s in self.commits if len(revision) >= 7 and s.startswith(revision)]
            sha = found[0] if len(found) == 1 else None
        if sha is None:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return self.commits[sha]

    def history(self, revision: str) -> list[Commit]:
        """Newest first."""
        commit: Commit | None = self.resolve(revision)
        out = []
        while commit is not None:
            out.append(commit)
            commit = self.commits[commit.parent] if commit.parent else None
        return out

    def is_large(self, path: str, size: int, sample: bytes, blobs: dict[str, bytes]) -> bool:
        """Whether the repo wants `path` as a large file: .gitattributes, 10 MiB, or binary content."""
        head = self.commits[self.branches["main"]].tree
        rules = blobs[head[".gitattributes"].oid].decode() if ".gitattributes" in head else ""
        patterns = [line.split()[0] for line in rules.splitlines() if "filter=lfs" in line]
        name = path.rsplit("/", 1)[-1]
        matched = any(fnmatch.fnmatch(name, p) or fnmatch.fnmatch(path, p) for p in patterns)
        return matched or size > LFS_ABOVE or b"\0" in sample


class Store:
    """All users, tokens, repositories and contents."""

    def __init__(self) -> None:
        self.tokens: dict[str, tuple[str, str]] = {}  # token -> (user, "read" | "write" | "expired")
        self.repos: dict[tuple[str, str], Repo] = {}
        self.blobs: dict[str, bytes] = {}  # git sha1 -> content of a regular file
        self.objects: dict[str, bytes] = {}  # sha256 -> content of a large file
        self._clock = itertools.count()

    def repo(self, repo_id: str, repo_type: str = "model") -> Repo:
        found = self.repos.get((repo_type, repo_id))
        if found is None:
            raise HubError(404, "RepoNotFound", "Repository not found")
        return found

    def create_repo(
        self, repo_id: str, repo_type: str = "model", *, private: bool = False, sdk: str | None = None
    ) -> Repo:
        repo = Repo(repo_type, repo_id, private=private, sdk=sdk)
        if repo_type == "space":
            repo.runtime = {"stage": "NO_APP_FILE", "hardware": {"current": "cpu-basic", "requested": "cpu-basic"}}
        self.repos[(repo_type, repo_id)] = repo
        tree = {".gitattributes": self.add_blob(GITATTRIBUTES)}
        repo.branches["main"] = self._commit(repo, None, tree, "initial commit", "", "system").sha
        return repo

    def add_blob(self, data: bytes) -> Entry:
        oid = git_hash("blob", data)
        self.blobs[oid] = data
        return Entry(oid, len(data))

    def add_object(self, repo: Repo, data: bytes) -> Entry:
        sha256 = hashlib.sha256(data).hexdigest()
        self.objects[sha256] = data
        repo.objects.add(sha256)
        return self.large_entry(sha256)

    def large_entry(self, sha256: str) -> Entry:
        size = len(self.objects[sha256])
        return Entry(git_hash("blob", lfs_pointer(sha256, size)), size, sha256)

    def content(self, entry: Entry) -> bytes:
        return self.objects[entry.sha256] if entry.sha256 else self.blobs[entry.oid]

    def set_ref(self, repo: Repo, ref: str, sha: str) -> None:
        (repo.pull_refs if ref.startswith("refs/pr/") else repo.branches)[ref] = sha

    def commit(
        self, repo: Repo, ref: str, tree: Tree, title: str, description: str = "", author: str = "alice"
    ) -> Commit:
        """Add a commit on top of `ref` (a branch or refs/pr/N) and move it there."""
        made = self._commit(repo, repo.resolve(ref).sha, tree, title, description, author)
        self.set_ref(repo, ref, made.sha)
        if repo.type == "space" and "app.py" in tree:
            repo.runtime["stage"] = "RUNNING"
        return made

    def put(self, repo_id: str, files: dict[str, bytes | None], title: str = "by hand", **where: str) -> str:
        """For tests: commit `files` (None deletes) as a person on the web page would; returns the sha."""
        repo = self.repo(repo_id, where.get("repo_type", "model"))
        ref = where.get("ref", "main")
        tree = dict(repo.resolve(ref).tree)
        for path, data in files.items():
            if data is None:
                del tree[path]
            elif repo.is_large(path, len(data), data[:512], self.blobs):
                tree[path] = self.add_object(repo, data)
            else:
                tree[path] = self.add_blob(data)
        return self.commit(repo, ref, tree, title, author=where.get("author", "alice")).sha

    def _commit(self, repo: Repo, parent: str | None, tree: Tree, title: str, text: str, author: str) -> Commit:
        # The clock only moves forward, so that two equal commits in one second still have different hashes.
        when = time.time() + next(self._clock) * 1e-3
        body = f"tree {tree_oids(tree)['']}\n" + (f"parent {parent}\n" if parent else "")
        body += f"author {author} <{author}@hub> {when:.3f} +0000\n\n{title}\n\n{text}\n"
        commit = Commit(git_hash("commit", body.encode()), parent, dict(tree), title, text, author, when)
        repo.commits[commit.sha] = commit
        return commit
