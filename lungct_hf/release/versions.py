"""The versions of a model on the Hub, and the way back to an earlier one."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants

from ..errors import LungCTError, UsageError
from ..hub import push_folder
from ..hub.failures import Target
from ..hub.model_repo import LUNGCT, METRICS, ModelRepo
from . import remote as hub
from .prepare import seal
from .publish import changelog_at, confirm
from .record import Record, tag_of_record, with_entry
from .remote import Remote
from .version import Version

Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One version. `score` is {value, low, high} of the grouped balanced accuracy; `live`: main holds it now."""

    tag: str
    commit: str
    date: str | None
    score: dict[str, Any] | None
    protocol: str | None
    init: str | None
    data: str | None
    allowed: list[str]
    live: bool

    def to_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


def list_versions(repo_id: str, token: str | None) -> list[Row]:
    """Every version, the newest commit first. Raises LungCTError when there is no such repo."""
    found = _look(repo_id, token)
    order = {sha: place for place, (sha, _) in enumerate(found.history)}
    tags = sorted(found.tags, key=lambda tag: Version.of_tag(tag) or 0, reverse=True)
    tags.sort(key=lambda tag: order.get(found.tags[tag], len(order)))
    live = found.last[0] if found.last and _held(found, *found.last, token) else None
    return [_row(found, tag, token, tag == live) for tag in tags]


def _look(repo_id: str, token: str | None) -> Remote:
    found = hub.look(HfApi(endpoint=constants.ENDPOINT, token=token or False), Target(repo_id, None, token))
    if found.head is None:
        raise LungCTError(
            f"{constants.ENDPOINT} has no repository {repo_id}, or it is hidden from you. Fix: check the name, or "
            "sign in with `hf auth login`."
        )
    return found


def _held(found: Remote, tag: str, sha: str, token: str | None) -> bool:
    """Whether main still holds what `sha` published as `tag`: a push after it drops the record, an edit does not."""
    return found.head == sha or tag_of_record(hub.record_at(found.repo_id, str(found.head), token)) == tag


def _row(found: Remote, tag: str, token: str | None, live: bool) -> Row:
    sha = found.tags[tag]
    repo = ModelRepo.open(found.repo_id, sha, token=token, files=[LUNGCT, METRICS])
    # A tag that somebody made by hand may name anything.
    provenance, record = (repo.provenance, repo.release or {}) if repo.has(LUNGCT) else ({}, {})
    metrics = repo.metrics or {}
    return Row(
        tag=tag,
        commit=sha,
        date=(record.get("rollback") or record).get("date"),
        score=((metrics.get("test") or {}).get("intervals") or {}).get("balanced_accuracy"),
        protocol=metrics.get("protocol"),
        init=(provenance.get("init") or {}).get("kind"),
        data=(provenance.get("data") or {}).get("fingerprint"),
        allowed=[row["code"] for row in record.get("allowed") or []],
        live=live,
    )


def roll_back(
    repo_id: str, version: Version, token: str, say: Say, *, message: str = "", key: Path | None = None
) -> tuple[str, str]:
    """Bring `version` back as a new commit on main with the tag vX.Y.Z+rollback.N: (tag, commit).

    The old files come back byte for byte with their evidence; the card and lungct.json say that it is a return, and
    CHANGELOG.md keeps every entry, and the seal is made anew, signed with the private `key` where one is given.
    Interrupted, the same call finishes it. Raises LungCTError, UsageError.
    """
    found = _look(repo_id, token)
    if version.tag not in found.tags:
        known = ", ".join(v.tag for v in found.versions) or "none"
        raise UsageError(f"{repo_id} has no version {version.tag}. It has: {known}.")
    api = HfApi(endpoint=constants.ENDPOINT, token=token)
    begun = _begun(found, version, token)
    if begun is not None:
        tag, sha = begun
        say(f"main holds {version.tag} already, since {sha[:7]}.")
    elif found.last is not None and found.last[0] == version.tag and found.head == found.last[1]:
        raise UsageError(f"{version.tag} is what {repo_id} holds now; there is nothing to roll back.")
    else:
        tag, sha = _bring_back(found, version, token, message, say, key)
    confirm(Target(found.repo_id, sha, token), sha, say)
    made = hub.ensure_tag(api, Target(found.repo_id, tag, token, writing=True), tag, sha)
    say(f"{tag} {'now names' if made else 'names'} {sha}.")
    return tag, sha


def _begun(found: Remote, version: Version, token: str) -> tuple[str, str] | None:
    """(tag, commit) of the rollback to this version that main's newest release is, and that main still holds."""
    for sha, title in found.history:
        if title == _title(version):
            record = hub.record_at(found.repo_id, sha, token) or {}
            rollback = record.get("rollback")
            if not rollback or record["version"] != version.number:
                return None
            return (rollback["tag"], sha) if _held(found, rollback["tag"], sha, token) else None
        if sha in found.tags.values():
            return None
    return None


def _bring_back(
    found: Remote, version: Version, token: str, message: str, say: Say, key: Path | None
) -> tuple[str, str]:
    sha = found.tags[version.tag]
    number = max((v.rollback for v in found.versions if v.number == version.number), default=0) + 1
    tag = Version(version.major, version.minor, version.patch, number).tag
    today = time.strftime("%Y-%m-%d", time.gmtime())
    snapshot = ModelRepo.open(found.repo_id, sha, token=token)
    record: Record | None = snapshot.release if snapshot.has(LUNGCT) else None
    if record is None:
        raise LungCTError(f"{version.tag} of {found.repo_id} was not made by a release, so it cannot be brought back.")
    replaced = found.last[0] if found.last else "an unreleased state"
    rollback = {"tag": tag, "replaces": replaced, "date": today, "message": message}
    entry = [message.strip(), ""] if message.strip() else []
    entry.append(f"- The content of {version.tag} again, in place of {replaced}.")
    with tempfile.TemporaryDirectory(prefix="lungct-rollback-") as scratch:
        folder = Path(scratch) / "model"
        for name in [*(record["files"].keys() & snapshot.files.keys()), LUNGCT]:
            path = snapshot.file(name)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)
        changelog = with_entry(changelog_at(found, token), tag, today, entry)
        there = hub.fetch_kept(found, folder, token)
        seal(folder, record | {"rollback": rollback}, changelog, found.repo_id, there, key)
        if record.get("signer") and key is None:
            say(f"{version.tag} was signed, and this return of it is not: --sign KEY would.")
        text = f"{_title(version)}\n\n{message}" if message.strip() else _title(version)
        result = push_folder(folder, found.repo_id, message=text, token=token, parent=found.head)
    say(f"One commit holds it: {result.commit_url}")
    return tag, result.commit_sha


def _title(version: Version) -> str:
    return f"Roll back to {version.tag}"
