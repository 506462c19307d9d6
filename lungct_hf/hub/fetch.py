"""Get a model from a Hub at one exact commit, and check what arrived."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import filter_repo_objects

from ..errors import LungCTError
from ..files import sha256_of
from .failures import HUB_ERRORS, Target, Waiting, check_repo_id, explain, is_passing, patiently, usable_token
from .model_repo import COMMIT, ModelRepo, split_revision

logger = logging.getLogger("lungct_hf")


def fetch(
    repo: str,
    revision: str | None = None,
    *,
    files: Iterable[str] | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> ModelRepo:
    """The files of "owner/name" or "owner/name@revision" that fit the patterns `files`, by default all.

    The revision is resolved to a commit once and everything is downloaded at that commit. Every file is then compared
    with the hash that the Hub states, because the client notices a short download but not a flipped bit: a bad file is
    deleted and fetched once more. When the Hub cannot be reached, the cached copy of that revision is used and a
    warning says so; HF_HUB_OFFLINE=1 and `local_files_only` use the cache without asking.

    Raises UsageError for a name or combination that means nothing, LungCTError for everything that the Hub or the
    network refuses: no such repository or revision, private, gated, wrong token, unreachable with nothing cached,
    cut off twice, damaged twice.
    """
    repo_id, at = split_revision(repo)
    patterns = None if files is None else list(files)
    target = Target(check_repo_id(repo_id), at or revision or constants.DEFAULT_REVISION, usable_token(token))
    cache = Path(cache_dir) if cache_dir is not None else None
    asked = at or revision
    if local_files_only or constants.is_offline_mode():
        path = _cached(target, cache, patterns, "the network is switched off (HF_HUB_OFFLINE or local_files_only)")
        return ModelRepo(path, repo_id, path.name, asked)
    api = HfApi(endpoint=constants.ENDPOINT, token=target.token)
    try:
        commit = _resolve(api, target)
    except HUB_ERRORS as error:
        if not is_passing(error):
            raise _missing_revision(api, target, error) from None
        path = _cached(target, cache, patterns, f"{constants.ENDPOINT} could not be reached")
        short = f"{repo_id} at {path.name[:7]}"
        warnings.warn(f"{constants.ENDPOINT} could not be reached; using the cached copy of {short}.", stacklevel=2)
        return ModelRepo(path, repo_id, path.name, asked)
    try:
        path = _download(api, target, commit, cache, patterns)
    except HUB_ERRORS as error:
        raise explain(error, target) from None
    return ModelRepo(path, repo_id, commit, asked)


def _resolve(api: HfApi, target: Target) -> str:
    # Without a limit the client waits for as long as a network that swallows everything keeps it waiting.
    limit = constants.HF_HUB_ETAG_TIMEOUT
    info = patiently(lambda: api.repo_info(target.repo_id, revision=target.revision, timeout=limit))
    if not info.sha or not COMMIT.fullmatch(info.sha):
        raise LungCTError(f"{api.endpoint} did not say which commit {target.repo_id}@{target.revision} is.")
    return info.sha


def _missing_revision(api: HfApi, target: Target, error: Exception) -> LungCTError:
    """The sentence for `error`; if a revision was not found, with the names that would have been."""
    found = explain(error, target)
    if not isinstance(error, RevisionNotFoundError):
        return found
    try:
        refs = api.list_repo_refs(target.repo_id)
    except HUB_ERRORS:
        return found
    names = [ref.name for ref in [*refs.tags, *refs.branches]]
    return LungCTError(f"{found} It has: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}.")


def _cached(target: Target, cache: Path | None, patterns: list[str] | None, why: str) -> Path:
    try:
        found = snapshot_download(
            target.repo_id, revision=target.revision, cache_dir=cache, allow_patterns=patterns, local_files_only=True
        )
    except HUB_ERRORS:
        raise LungCTError(
            f"{target.repo_id} at revision {target.revision!r} is not (wholly) in the local cache, and {why}. "
            "Connect once, check HF_ENDPOINT, or give a local directory."
        ) from None
    return Path(found)


def _download(api: HfApi, target: Target, commit: str, cache: Path | None, patterns: list[str] | None) -> Path:
    entries = patiently(lambda: list(api.list_repo_tree(target.repo_id, recursive=True, revision=commit)))
    files = {e.path: e for e in entries if isinstance(e, RepoFile)}
    wanted = [files[name] for name in filter_repo_objects(sorted(files), allow_patterns=patterns)]

    def fetch() -> Path:
        with Waiting(f"fetching {target.repo_id}"):
            found = snapshot_download(
                target.repo_id,
                revision=commit,
                cache_dir=cache,
                allow_patterns=patterns,
                token=target.token if target.token is not None else False,
                endpoint=api.endpoint,
            )
        return Path(found)

    path = patiently(fetch, attempts=2)
    if target.revision:
        _remember(path, target.revision, commit)
    bad = {file.path: _content(path, file) for file in _damaged(path, wanted)}
    if not bad:
        return path
    logger.warning("%s arrived damaged from %s; fetching again", ", ".join(bad), api.endpoint)
    for name in bad:
        pointer = path / name
        pointer.resolve().unlink(missing_ok=True)
        pointer.unlink(missing_ok=True)
    path = patiently(fetch, attempts=2)
    for file in _damaged(path, wanted):
        # A small file that comes twice with the same bytes was not damaged on the way: that server's ids are not git's
        if file.lfs is None and _content(path, file) == bad.get(file.path):
            logger.debug("%s does not have the git id that %s states", file.path, api.endpoint)
            continue
        (path / file.path).resolve().unlink(missing_ok=True)
        (path / file.path).unlink(missing_ok=True)
        raise LungCTError(
            f"{file.path} of {target.repo_id} at {commit[:7]} arrived damaged twice: its content does not have the "
            f"hash that {api.endpoint} states. It was not kept. Try again, and tell the owner if it stays."
        )
    return path


def _remember(snapshot: Path, revision: str, commit: str) -> None:
    """Note in the cache which commit `revision` was, for use offline; the client does so when it resolves."""
    if COMMIT.fullmatch(revision):
        return
    ref = snapshot.parent.parent / "refs" / revision
    try:
        ref.parent.mkdir(parents=True, exist_ok=True)
        scratch = ref.with_name(f"{ref.name}.{commit[:8]}.tmp")
        scratch.write_text(commit)
        scratch.replace(ref)
    except OSError as error:  # a read-only cache still serves this call
        logger.debug("could not note %s in the cache: %s", revision, error)


def _content(snapshot: Path, file: RepoFile) -> bytes | None:
    """What arrived of a small file; large ones are not read into memory."""
    path = snapshot / file.path
    return path.read_bytes() if file.lfs is None and path.is_file() else None


def _damaged(snapshot: Path, files: Iterable[RepoFile]) -> list[RepoFile]:
    return [file for file in files if not matches(snapshot / file.path, file)]


def matches(path: Path, file: RepoFile) -> bool:
    """Whether the file has the hash that the Hub states: sha256 of a large file, git blob id of a small one."""
    if not path.is_file():
        return False
    if file.lfs is not None:
        return sha256_of(path) == file.lfs.sha256
    return git_blob_id(path.read_bytes()) == file.blob_id


def git_blob_id(data: bytes) -> str:
    """git's name for a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
