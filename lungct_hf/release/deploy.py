"""The demo as a Space: `space/`, a wheel of this package, bounded requirements, and the model it shows."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile

from ..errors import LungCTError, UsageError
from ..hub.failures import HUB_ERRORS, Target, explain, is_passing, patiently, rest, status_of
from ..hub.fetch import git_blob_id
from ..hub.model_repo import COMMIT, LUNGCT, ModelRepo, split_revision
from ..resources import shipped
from .space import pin_space
from .version import Version
from .wheel import build_wheel, folder_files

Say = Callable[[str], None]
_BOUNDED = ("gradio", "huggingface_hub")  # a new major version of either has broken running Spaces
_OURS = re.compile(r"lungct[-_]hf(?P<extras>\[[\w,]+\])?")
# What a deploy brings and the next one may not: the package unpacked for a private Space, and wheels.
_BROUGHT = re.compile(r"lungct_hf/.+|lungct_hf-[^/]+\.whl")
_ATTEMPTS = 4


def deploy_space(space: str, model: str, token: str, say: Say, *, private: bool = False) -> bool:
    """Make the Space `space` show `model` ("owner/name@revision"); whether anything had to change.

    One commit at most, and none where the Space holds it already. Raises UsageError for a model without a revision,
    LungCTError when the model or the Space cannot be used, or when it is public and `private` is asked for.
    """
    repo_id, revision = split_revision(model)
    if revision is None or not (COMMIT.fullmatch(revision) or Version.of_tag(revision)):
        named = "names no revision" if revision is None else f"names {revision}, which is no version and no commit"
        raise UsageError(
            f"{model} {named}, and what it is may change under a running Space. Fix: {repo_id}@vX.Y.Z (see `lungct "
            f"versions {repo_id}`)."
        )
    found = ModelRepo.open(repo_id, revision, token=token, files=[LUNGCT]).need(LUNGCT)  # fails here, not in the Space
    api = HfApi(endpoint=constants.ENDPOINT, token=token)
    target = Target(f"spaces/{space}", constants.DEFAULT_REVISION, token, writing=True)
    try:
        hidden = _ensure(api, space, private)
        committed = _upload(api, space, _files(space, repo_id, hidden), say)
        if patiently(lambda: api.repo_info(repo_id)).private:
            say(
                f"{repo_id} is private, so the Space can only show it with a secret: set HF_TOKEN, a token with the "
                f"read role, at {constants.ENDPOINT}/spaces/{space}/settings"
                + ("" if hidden else ". The Space is public: everybody will be able to ask the model")
            )
    except HUB_ERRORS as error:
        raise explain(error, target) from None
    return pin_space(space, repo_id, str(found.revision), token, say, restart=committed) or committed


def _ensure(api: HfApi, space: str, private: bool) -> bool:
    """Create the Space where it is missing; whether it is private. No private deploy lands in a public one."""

    def info() -> bool:
        return bool(patiently(lambda: api.repo_info(space, repo_type="space")).private)

    try:
        hidden = info()
    except RepositoryNotFoundError:
        patiently(
            lambda: api.create_repo(
                space, repo_type="space", space_sdk="gradio", private=private or None, exist_ok=True
            )
        )
        hidden = info()
    if private and not hidden:
        raise LungCTError(
            f"The Space {space} exists and is public, and a private one was asked for. Fix: make it private in its "
            "settings first, or deploy without --private."
        )
    return hidden


def _files(space: str, repo_id: str, hidden: bool) -> dict[str, bytes]:
    """{path: content} of the whole Space."""
    wheel, content = build_wheel()
    files = folder_files(shipped("space"))
    text = files["requirements.txt"].decode()
    # The builder of a private Space has no token to fetch the wheel with, so the package lies beside app.py.
    files |= _unpacked(content) if hidden else {wheel: content}
    files["requirements.txt"] = _requirements(text, space, wheel, content, hidden).encode()
    card = files["README.md"].decode()
    files["README.md"] = re.sub(r"(?m)^models:.*$", f"models: [{repo_id}]", card, count=1).encode()
    return files


def _requirements(text: str, space: str, wheel: str, content: bytes, hidden: bool) -> str:
    """requirements.txt with this wheel in place of a published lungct-hf, every bound kept."""
    for name in _BOUNDED:
        line = next((line for line in text.splitlines() if re.match(rf"{name}\b", line)), "")
        if not (">=" in line and "<" in line.replace("<=", "<")):
            raise LungCTError(f"space/requirements.txt does not bound {name} on both sides: {line!r}.")
    address = f"{constants.ENDPOINT}/spaces/{space}/resolve/main/{wheel}#sha256={hashlib.sha256(content).hexdigest()}"
    lines, named = [], False
    for line in text.splitlines():
        match = _OURS.match(line)
        if match is None:
            lines.append(line)
            continue
        named, extras = True, match["extras"] or ""
        lines += _needed(content, extras) if hidden else [f"lungct-hf{extras} @ {address}"]
    if not named:
        raise LungCTError("space/requirements.txt does not name lungct-hf. Fix: reinstall the package.")
    return "\n".join(lines) + "\n"


def _needed(content: bytes, extras: str) -> list[str]:
    """What the package itself requires, with the extras of the Space, as lines of requirements."""
    wanted = {name.strip() for name in extras.strip("[]").split(",") if name.strip()}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        metadata = archive.read(next(n for n in archive.namelist() if n.endswith("/METADATA"))).decode()
    lines = []
    for need in re.findall(r"(?m)^Requires-Dist: (.+)$", metadata):
        rule, _, marker = (part.strip() for part in need.partition(";"))
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", marker)
        if (extra is None or extra[1] in wanted) and not rule.startswith(("lungct", *_BOUNDED)):
            lines.append(_bounded(rule) if extra or not marker else f"{_bounded(rule)} ; {marker}")
    return sorted(set(lines))


def _bounded(rule: str) -> str:
    """A requirement that ends below the next major version of what is installed here, where it says no end itself."""
    if "<" in rule or "==" in rule or "~=" in rule:
        return rule
    name = re.match(r"[\w.-]+", rule)
    try:
        major = int(version(name[0] if name else "").split(".")[0])
    except (PackageNotFoundError, ValueError):
        return rule
    return f"{rule},<{major + 1}"


def _unpacked(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {
            n: archive.read(n) for n in archive.namelist() if ".dist-info/" not in n and "/_shipped/space/" not in n
        }


def _upload(api: HfApi, space: str, files: dict[str, bytes], say: Say) -> bool:
    """One commit with what differs; whether there was any. A lost reply is looked up before it is sent again."""
    sent = False
    for attempt in range(1, _ATTEMPTS + 1):
        head, there = _held(api, space)
        changed = {name: data for name, data in files.items() if name not in there or not _same(there[name], data)}
        # An unpacked package left beside app.py would be imported in place of the new wheel.
        stale = sorted(name for name in there if _BROUGHT.fullmatch(name) and name not in files)
        if not changed and not stale:
            say(f"The Space {space} {'now holds' if sent else 'holds'} these files{'' if sent else ' already'}.")
            return sent
        # Open files go by plain HTTP, which every Hub speaks; none of these is large.
        adds = [CommitOperationAdd(name, io.BytesIO(data)) for name, data in sorted(changed.items())]
        operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [*adds]
        operations += [CommitOperationDelete(name, is_folder=False) for name in stale]
        try:
            api.create_commit(
                space, operations, repo_type="space", commit_message="Deploy the lungct demo", parent_commit=head
            )
            gone = f" and removed {len(stale)} of an earlier deploy" if stale else ""
            say(f"One commit brought {len(changed)} files to the Space {space}{gone}.")
            return True
        except HUB_ERRORS as error:
            if attempt == _ATTEMPTS or not (is_passing(error) or status_of(error) == 412):
                raise
            sent = True
            rest(attempt)
    raise AssertionError("unreachable")


def _held(api: HfApi, space: str) -> tuple[str | None, dict[str, RepoFile]]:
    """(commit, {path: entry}) of the Space's main."""
    head = patiently(lambda: api.repo_info(space, repo_type="space")).sha
    tree = patiently(lambda: list(api.list_repo_tree(space, recursive=True, revision=head, repo_type="space")))
    return head, {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}


def _same(entry: RepoFile, data: bytes) -> bool:
    if entry.lfs is not None:
        return hashlib.sha256(data).hexdigest() == entry.lfs.sha256
    return git_blob_id(data) == entry.blob_id
