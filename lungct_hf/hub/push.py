"""Put a model folder on a Hub as one commit, and make sure that what is there is what is here."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import warnings
from collections import Counter
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile

from ..errors import LungCTError
from .author import joined
from .failures import (
    HUB_ERRORS,
    Target,
    Waiting,
    check_repo_id,
    explain,
    is_passing,
    patiently,
    rest,
    status_of,
    usable_token,
)
from .fetch import git_blob_id, matches
from .folder import files_to_publish
from .model_repo import ATTESTATION, SEAL

logger = logging.getLogger("lungct_hf")

# A push replaces the model, so evidence of the model that was there before would be false. What else a person has put
# into the repository is theirs.
EVIDENCE = ("evaluation/", "onnx/", ".eval_results/", "canaries/", SEAL, ATTESTATION)
ATTEMPTS = 4
_MOVED = 412
_THREADS = 5  # that upload, as many as the client takes by itself


@dataclass(frozen=True)
class PushResult:
    """What a push left on the Hub. `commit_sha` is the head that holds the folder, `url` the page to look at."""

    repo_id: str
    commit_sha: str
    commit_url: str
    url: str
    pull_request_url: str | None = None
    changed: bool = True


@dataclass
class _Plan:
    """One commit: on top of `head`, write `files` (path in the repo -> content or file), delete `stale`."""

    head: str
    files: dict[str, Path | bytes]
    stale: list[str]


def push_folder(
    folder: Path | str,
    repo_id: str,
    *,
    message: str,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    parent: str | None = None,
) -> PushResult:
    """Upload `folder` to the model repo `repo_id` in one commit; create the repo first when it is missing.

    Hidden files and *.tmp stay here, `.eval_results/` goes along. The commit also deletes files under evaluation/,
    onnx/, .eval_results/ and *.safetensors that the folder no longer has. The author's text of the README on the Hub
    and of the local one are joined, and the card learns the repo's name; the local folder is never written to. When
    nothing differs, no commit is made. A commit whose reply is lost is looked for before it is sent again. Afterwards
    the hashes on the Hub are compared with the files here.

    `revision` is an existing branch (default main); `create_pr` opens a pull request instead of committing to it.
    With `parent` the commit goes on top of exactly that commit: when the branch has moved on, nothing is published.
    Raises RefusedError for a folder with pickles, UsageError for a bad name, LungCTError for the rest.
    """
    folder = Path(folder)
    local = files_to_publish(folder)
    access = require_write_token(repo_id, token)
    target = Target(check_repo_id(repo_id), revision or constants.DEFAULT_REVISION, access, writing=True)
    api = HfApi(endpoint=constants.ENDPOINT, token=access)
    try:
        repo_id = ensure_repo(api, target, private)
        target = Target(repo_id, target.revision, access, writing=True)
        return _push(api, target, local, message, create_pr, parent)
    except HUB_ERRORS as error:
        raise explain(error, target) from None


def require_write_token(repo_id: str, token: str | None = None) -> str:
    """The token to push with; hours of training need not end in the discovery that there is none.

    Raises LungCTError when no token is found in the usual places, UsageError for a name that no repo can have.
    """
    check_repo_id(repo_id)
    access = usable_token(token)
    if access is None:
        raise LungCTError(
            f"Pushing to {repo_id} needs an access token with the write role, and none was found. Fix: run "
            f"`hf auth login`, or set HF_TOKEN to a token from {constants.ENDPOINT}/settings/tokens"
        )
    return access


def stays(name: str, local: Collection[str]) -> bool:
    """Whether a push of the files `local` leaves the file `name` of the repo as it is, being somebody's own."""
    return name not in local and not name.startswith(EVIDENCE) and not name.endswith(".safetensors")


def ensure_repo(api: HfApi, target: Target, private: bool) -> str:
    """Create the repo if it is missing; its full name. Never lets a private push land in a public repo."""
    info = None
    try:
        info = patiently(lambda: api.repo_info(target.repo_id))
    except RepositoryNotFoundError:
        logger.debug("%s is not there yet", target.repo_id)
    if info is None:
        url = patiently(lambda: api.create_repo(target.repo_id, private=private or None, exist_ok=True))
        info = patiently(lambda: api.repo_info(url.repo_id))
    if private and info.private is False:
        raise LungCTError(
            f"{info.id} exists and is public, and a private push was asked for. Make it private in its settings "
            "first, or push without the private option."
        )
    return info.id


def _push(
    api: HfApi, target: Target, local: dict[str, Path], message: str, create_pr: bool, parent: str | None
) -> PushResult:
    head = parent or _head(api, target)
    known = set(_pull_requests(api, target)) if create_pr else set()
    for attempt in range(1, ATTEMPTS + 1):
        plan = _plan(api, target, head, local)
        if not plan.files and not plan.stale:
            return _result(api, target.repo_id, head, changed=False)
        try:
            sha, number = _commit(api, target, plan, message, create_pr)
        except HUB_ERRORS as error:
            moved = status_of(error) == _MOVED
            if attempt == ATTEMPTS or not (moved or is_passing(error)):
                raise
            logger.info("The commit was not confirmed (%s); looking at the Hub before trying again.", _why(error))
            rest(attempt)
        else:
            if problem := _differs(api, target, sha, plan):
                raise LungCTError(problem)
            return _result(api, target.repo_id, sha, number)
        # The client does not send a commit twice, and neither do we before we know that the first one did not land.
        landed = _landed_request(api, target, plan, known) if create_pr else _landed(api, target, plan, message)
        if landed is not None:
            return _result(api, target.repo_id, *landed)
        head = _head(api, target)
        if parent not in (None, head):
            raise LungCTError(
                f"Someone else committed to {target.repo_id} meanwhile ({target.revision} is now {head[:7]}). Nothing "
                "of yours was published. Look at what is there, then run this again."
            )
    raise AssertionError("unreachable")


def _landed(api: HfApi, target: Target, plan: _Plan, message: str) -> tuple[str, None] | None:
    """Our commit, if the branch has one on top of `plan.head` after all."""
    title = (message.splitlines() or [""])[0].strip()
    for commit in patiently(lambda: api.list_repo_commits(target.repo_id, revision=target.revision)):
        if commit.commit_id == plan.head:
            return None
        if commit.title.strip() == title and not _differs(api, target, commit.commit_id, plan):
            return commit.commit_id, None
    return None


def _landed_request(api: HfApi, target: Target, plan: _Plan, known: set[str]) -> tuple[str, str] | None:
    """Our pull request, if one that was not there before holds what we sent."""
    for ref, sha in _pull_requests(api, target).items():
        if ref not in known and not _differs(api, target, sha, plan):
            return sha, ref.rpartition("/")[2]
    return None


def _head(api: HfApi, target: Target) -> str:
    info = patiently(lambda: api.repo_info(target.repo_id, revision=target.revision))
    if not info.sha:
        raise LungCTError(f"{api.endpoint} did not say which commit {target.repo_id}@{target.revision} is.")
    return info.sha


def _tree(api: HfApi, target: Target, sha: str) -> dict[str, RepoFile]:
    entries = patiently(lambda: list(api.list_repo_tree(target.repo_id, recursive=True, revision=sha)))
    return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def _plan(api: HfApi, target: Target, head: str, local: dict[str, Path]) -> _Plan:
    """What would turn the tree at `head` into the folder, with the author's text of both READMEs kept."""
    remote = _tree(api, target, head)
    contents: dict[str, Path | bytes] = dict(local)
    if "README.md" in local:
        ours = local["README.md"].read_bytes()
        theirs = _remote_readme(api, target, head, remote["README.md"]) if "README.md" in remote else None
        card = joined(ours, theirs, target.repo_id)
        contents["README.md"] = card if card != ours else local["README.md"]
    files = {n: c for n, c in contents.items() if n not in remote or not _is_there(c, remote[n])}
    stale = [n for n in remote if n not in local and not stays(n, local)]
    return _Plan(head, files, sorted(stale))


def _remote_readme(api: HfApi, target: Target, head: str, entry: RepoFile) -> bytes:
    with TemporaryDirectory() as scratch:
        path = patiently(lambda: api.hf_hub_download(target.repo_id, "README.md", revision=head, cache_dir=scratch))
        if not matches(Path(path), entry):
            logger.debug("README.md does not have the git id that %s states", api.endpoint)
        return Path(path).read_bytes()


def _is_there(content: Path | bytes, entry: RepoFile) -> bool:
    if isinstance(content, Path):
        return content.stat().st_size == entry.size and matches(content, entry)
    if entry.lfs is not None:
        return hashlib.sha256(content).hexdigest() == entry.lfs.sha256
    return git_blob_id(content) == entry.blob_id


def _commit(api: HfApi, target: Target, plan: _Plan, message: str, create_pr: bool) -> tuple[str, str | None]:
    """Send the plan as one commit: (sha, number of the pull request). Large files go by xet where the Hub has it."""
    if _uses_xet():
        try:
            return _send(api, target, plan, message, create_pr, plain=False)
        except (OSError, RuntimeError) as error:
            # hf_xet reports a Hub without xet storage, or storage that it cannot reach, as a ConnectionError before
            # anything is committed. The older way works there; what the Hub itself refused stays refused.
            if status_of(error) is not None:
                raise
            logger.info("%s takes no uploads through xet (%s); using plain HTTP.", api.endpoint, type(error).__name__)
    return _send(api, target, plan, message, create_pr, plain=True)


def _uses_xet() -> bool:
    """Whether the client would send large files through hf_xet."""
    return not constants.HF_HUB_DISABLE_XET and importlib.util.find_spec("hf_xet") is not None


def _send(
    api: HfApi, target: Target, plan: _Plan, message: str, create_pr: bool, *, plain: bool
) -> tuple[str, str | None]:
    title, _, text = message.strip().partition("\n")
    with ExitStack() as stack, warnings.catch_warnings():
        # evaluation/predictions.parquet belongs to the model repo: every number on the card is recomputed from it.
        warnings.filterwarnings("ignore", message="It seems that you are about to commit a data file")
        adds: list[CommitOperationAdd] = []
        for name, content in sorted(plan.files.items()):
            # The client sends an open file by plain HTTP even when hf_xet is installed.
            source = stack.enter_context(content.open("rb")) if plain and isinstance(content, Path) else content
            adds.append(CommitOperationAdd(name, source))
        # Equal files are one to the client, whose threads would then read one open file at once.
        sizes = Counter(add.upload_info.size for add in adds)
        threads = 1 if plain and max(sizes.values(), default=1) > 1 else _THREADS
        if plain and _uses_xet():
            stack.enter_context(_quiet("huggingface_hub._commit_api"))
        stack.enter_context(Waiting(f"uploading to {target.repo_id}"))
        info = api.create_commit(
            target.repo_id,
            [*adds, *(CommitOperationDelete(name, is_folder=False) for name in plan.stale)],
            commit_message=title,
            commit_description=text.strip(),
            revision=target.revision,
            parent_commit=plan.head,
            create_pr=create_pr,
            num_threads=threads,
        )
    return info.oid, info.pr_url.rpartition("/")[2] if info.pr_url else None


class _quiet:  # noqa: N801 - used like a function
    """Silence one logger of the client: our own line has said it already."""

    def __init__(self, name: str):
        self._logger = logging.getLogger(name)

    def __enter__(self) -> None:
        self._before, self._logger.disabled = self._logger.disabled, True

    def __exit__(self, *exc: object) -> None:
        self._logger.disabled = self._before


def _pull_requests(api: HfApi, target: Target) -> dict[str, str]:
    refs = patiently(lambda: api.list_repo_refs(target.repo_id, include_pull_requests=True))
    return {ref.ref: ref.target_commit for ref in refs.pull_requests or []}


def _differs(api: HfApi, target: Target, sha: str, plan: _Plan) -> str | None:
    """How the tree at `sha` differs from what was sent, or None: large files by sha256, small ones by size."""
    tree, where = _tree(api, target, sha), f"{api.endpoint} ({target.repo_id} at {sha[:7]})"
    for name, content in plan.files.items():
        entry = tree.get(name)
        if entry is None:
            return (
                f"{name} is not on {where} after the push. Look for a .gitignore in that repository that excludes it."
            )
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        if entry.size != size or (entry.lfs is not None and not _is_there(content, entry)):
            return f"{name} on {where} is not the file that was sent: its size or sha256 differs. Push again."
    left = [name for name in plan.stale if name in tree]
    return f"{left[0]} is still on {where}, although it belongs to an earlier model. Push again." if left else None


def _result(api: HfApi, repo_id: str, sha: str, number: str | None = None, *, changed: bool = True) -> PushResult:
    url = f"{api.endpoint}/{repo_id}"
    request_url = f"{url}/discussions/{number}" if number else None
    return PushResult(repo_id, sha, f"{url}/commit/{sha}", request_url or url, request_url, changed)


def _why(error: BaseException) -> str:
    status = status_of(error)
    return {None: "no reply", _MOVED: "someone else committed meanwhile"}.get(status, f"status {status}")
