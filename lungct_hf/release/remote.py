"""What is on the Hub before a release: the repo, its versions, its history, and the last version's evidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from glob import escape
from pathlib import Path
from typing import TypeVar

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile

from ..errors import LungCTError
from ..hub.failures import HUB_ERRORS, Target, explain, is_passing, patiently, rest, status_of
from ..hub.model_repo import CARD, CHANGELOG, EVIDENCE_FILES, GITATTRIBUTES, LUNGCT, ModelRepo
from ..hub.push import stays
from .record import Record, tag_of_record
from .version import Version

T = TypeVar("T")
_KEPT = (*EVIDENCE_FILES, CARD, "canaries/*", ".eval_results/*")
_TITLES = ("Release v", "Roll back to v")
_MERGED = "Release {} "  # a merged pull request's title goes on with its number


@dataclass(frozen=True)
class Last:
    """The last version: its tag, its commit, and its files without the weights."""

    tag: str
    sha: str
    repo: ModelRepo


@dataclass(frozen=True)
class Remote:
    """`tags` {tag: commit} of all versions, `history` (commit, title) of main, newest first; no head: no repo.

    `unfinished` (tag, commit): of releases newer than every tagged one, the newest, whose tag is not there yet.
    """

    repo_id: str
    head: str | None = None
    private: bool = False
    gated: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    history: list[tuple[str, str]] = field(default_factory=list)
    unfinished: tuple[str, str] | None = None

    @property
    def versions(self) -> list[Version]:
        return sorted(v for tag in self.tags if (v := Version.of_tag(tag)) is not None)

    @property
    def last(self) -> tuple[str, str] | None:
        """(tag, commit) of the newest commit of main that a release made, be its tag there or still to come."""
        if self.unfinished is not None:
            return self.unfinished
        tag_of = {sha: tag for tag, sha in sorted(self.tags.items(), key=lambda item: Version.of_tag(item[0]) or 0)}
        return next(((tag_of[sha], sha) for sha, _ in self.history if sha in tag_of), None)


def ask(target: Target, call: Callable[[], T]) -> T:
    """`call()`, patiently; what the Hub refuses is one sentence. Only for calls that change nothing."""
    try:
        return patiently(call)
    except HUB_ERRORS as error:
        raise explain(error, target) from None


def look(api: HfApi, target: Target) -> Remote:
    """Everything about the repo that a release depends on; head is None where there is no such repo (or none to see).

    Raises LungCTError when the Hub cannot be reached or refuses the token.
    """
    try:
        info = patiently(lambda: api.repo_info(target.repo_id))
    except RepositoryNotFoundError:
        return Remote(target.repo_id)
    except HUB_ERRORS as error:
        raise explain(error, target) from None
    refs = ask(target, lambda: api.list_repo_refs(target.repo_id))
    commits = ask(target, lambda: api.list_repo_commits(target.repo_id))
    history = [(commit.commit_id, commit.title.strip().partition("\n")[0]) for commit in commits]
    known = {sha for sha, _ in history}
    tags = {ref.name: ref.target_commit for ref in refs.tags if Version.of_tag(ref.name)}
    for tag, sha in tags.items():
        if sha not in known:  # an annotated tag's own id, on servers that give that
            tags[tag] = str(ask(target, lambda tag=tag: api.repo_info(target.repo_id, revision=tag)).sha)  # type: ignore[misc]
    found = Remote(info.id, info.sha, bool(info.private), bool(info.gated), tags, history)
    return replace(found, unfinished=_unfinished(found, target.token))


def _unfinished(found: Remote, token: str | None) -> tuple[str, str] | None:
    """(tag, commit) of a release that main holds and that never came to its tag; a later run must not forget it."""
    for sha, said in found.history:
        if sha in found.tags.values():
            return None
        if sha == found.head or said.startswith(_TITLES):
            due = tag_of_record(record_at(found.repo_id, sha, token))
            if due is not None and due not in found.tags:
                return due, sha
    return None


def fetch_last(remote: Remote, token: str | None) -> Last | None:
    """The evidence of the last version, None where there is none."""
    if remote.last is None:
        return None
    tag, sha = remote.last
    return Last(tag, sha, ModelRepo.open(remote.repo_id, sha, token=token, files=_KEPT))


def fetch_kept(remote: Remote, folder: Path, token: str | None) -> ModelRepo | None:
    """What is in the repo now and stays there when `folder` is published, and the README that is joined to its card.

    None where there is nothing of the kind. Files that no release wrote are somebody's own.
    """
    if remote.head is None:
        return None
    api, target = HfApi(endpoint=constants.ENDPOINT, token=token or False), Target(remote.repo_id, remote.head, token)
    tree = ask(target, lambda: list(api.list_repo_tree(target.repo_id, recursive=True, revision=target.revision)))
    here = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    there = [entry.path for entry in tree if isinstance(entry, RepoFile)]
    names = [name for name in there if name != GITATTRIBUTES and name != CHANGELOG and stays(name, here)]
    names += [CARD] if CARD in there else []
    if not names:
        return None
    found = ModelRepo.open(remote.repo_id, remote.head, token=token, files=map(escape, names), cache_dir=folder.parent)
    return found


def record_at(repo_id: str, revision: str, token: str | None) -> Record | None:
    """The release record of one commit, None where no release wrote that commit."""
    found = ModelRepo.open(repo_id, revision, token=token, files=[LUNGCT])
    return found.release if found.has(LUNGCT) else None


def title_of(version: Version) -> str:
    return f"Release {version.tag}"


def find_published(remote: Remote, version: Version, content: str, token: str | None) -> str | None:
    """The commit of main that published this very content as this version, by its record, whoever made it."""
    title = title_of(version)
    for sha, said in remote.history:
        if said == title or said.startswith(_MERGED.format(version.tag)):
            record = record_at(remote.repo_id, sha, token)
            if record and record["version"] == version.number and record.get("content") == content:
                return sha
    return None


def find_request(api: HfApi, target: Target, version: Version, content: str) -> tuple[str, str] | None:
    """(commit, number) of an open pull request that proposes this very content as this version."""
    refs = ask(target, lambda: api.list_repo_refs(target.repo_id, include_pull_requests=True))
    for ref in reversed(refs.pull_requests or []):
        number = ref.ref.rpartition("/")[2]
        record = record_at(target.repo_id, ref.target_commit, target.token)
        if record and record["version"] == version.number and record.get("content") == content:
            thread = ask(target, lambda number=number: api.get_discussion_details(target.repo_id, int(number)))  # type: ignore[misc]
            if thread.status in ("open", "draft"):
                return ref.target_commit, number
    return None


def ensure_tag(api: HfApi, target: Target, tag: str, sha: str) -> bool:
    """Make `tag` name `sha`; whether it had to be made. A lost reply is looked up before it is sent again.

    Raises LungCTError when the tag names another commit.
    """
    for attempt in range(1, 5):
        found = look(api, target).tags.get(tag)
        if found == sha:
            return attempt > 1
        if found is not None:
            raise LungCTError(
                f"The tag {tag} of {target.repo_id} was made meanwhile for {found[:7]}, not for {sha[:7]}. Somebody "
                "else released under this number: take the next one."
            )
        try:
            api.create_tag(target.repo_id, tag=tag, revision=sha)
            return True
        except HUB_ERRORS as error:
            if attempt == 4 or not (is_passing(error) or status_of(error) == 409):
                raise explain(error, target) from None
            rest(attempt)
    raise AssertionError("unreachable")
