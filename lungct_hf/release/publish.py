"""A release, step by step. Every step looks at the Hub before it acts, so running it again finishes what was begun."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import HfApi, constants, metadata_load
from huggingface_hub.hf_api import RepoFile
from yaml import YAMLError

from .. import __version__
from ..errors import LungCTError, UsageError
from ..evaluation import tables
from ..hub import push_folder
from ..hub.card import DEFAULT_LICENCE
from ..hub.failures import HUB_ERRORS, Target, explain, patiently
from ..hub.model_repo import CARD, CHANGELOG, LUNGCT, ModelRepo
from ..hub.push import ensure_repo
from . import content
from . import remote as hub
from .canaries import deviations
from .gate import judge
from .prepare import Prepared, prepare, seal
from .reasons import Reason, check_allowed, refuse, sift
from .record import Record, with_entry
from .remote import Last, Remote
from .seal import every_file
from .version import Version

Say = Callable[[str], None]
_LOAD_BACK_LIMIT = 900  # seconds


@dataclass(frozen=True)
class Order:
    """What was asked for."""

    repo_id: str
    version: Version
    message: str = ""
    allowed: tuple[str, ...] = ()
    private: bool = False
    gated: bool = False
    create_pr: bool = False
    sign: Path | None = None
    licence: str | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """What a release would do. `published`: the commit that an earlier attempt left; `refusing` is empty then."""

    order: Order
    prepared: Prepared
    remote: Remote
    last: Last | None
    published: str | None
    refusing: list[Reason]
    overridden: list[Reason]
    notes: list[str]


@dataclass(frozen=True)
class Outcome:
    """`commit` is tagged `tag`, or is the head of the pull request at `request_url`, which has no tag yet."""

    repo_id: str
    commit: str
    tag: str | None
    request_url: str | None = None


def plan_release(run: Path, order: Order, scratch: Path, token: str | None) -> Plan:
    """Prepare the folder in `scratch`, look at the Hub, judge, and write record, changelog and card into the folder.

    Changes nothing on the Hub and nothing in `run`. Raises LungCTError, UsageError; never for what the gate finds.
    """
    check_allowed(order.allowed)
    prepared = prepare(run, scratch, token=token)
    target = Target(order.repo_id, None, token)
    found = hub.look(HfApi(endpoint=constants.ENDPOINT, token=token or False), target)
    published = hub.find_published(found, order.version, prepared.content, token)
    last = hub.fetch_last(found, token)
    refusing: list[Reason] = []
    overridden: list[Reason] = []
    notes: list[str] = []
    if published is None:
        reasons, notes = judge(prepared, order.version, found, last)
        reasons += content.secrets_in_text(order.message, "the message", token)
        there = hub.fetch_kept(found, prepared.folder, token)
        if there is not None:
            reasons += kept_reasons(there, token)
        licence, said = licence_of(order, there)
        notes.append(said)
        refusing, overridden = sift(reasons, order.allowed)
        unused = [code for code in order.allowed if code not in {reason.code for reason in overridden}]
        notes += [f"--allow {code} was not needed." for code in unused]
        record = new_record(order, found, prepared, overridden) | {"license": licence}
        changelog = _changelog(order, record, prepared, found, token)
        seal(prepared.folder, record, changelog, found.repo_id, there, order.sign)
    return Plan(order, prepared, found, last, published, refusing, overridden, notes)


def carry_out(plan: Plan, token: str, say: Say) -> Outcome:
    """Publish, check, load back, tag. Raises RefusedError where the gate refuses, LungCTError with what to do next."""
    version = plan.order.version
    api = HfApi(endpoint=constants.ENDPOINT, token=token)
    target = Target(plan.remote.repo_id, constants.DEFAULT_REVISION, token, writing=True)
    request = None
    if plan.published is not None:
        sha = plan.published
        say(f"{version.tag} was committed before, as {sha[:7]}: finishing that release.")
        if plan.order.sign and not (hub.record_at(target.repo_id, sha, token) or {}).get("signer"):
            say("That commit is not signed, and stays so: --sign counts for the next version.")
    else:
        refuse(plan.refusing)
        sha, request = _commit(api, target, plan, say)
    confirm(Target(target.repo_id, sha, token), sha, say, golden=plan.prepared.canaries.golden)
    if request is not None:
        return Outcome(target.repo_id, sha, None, request)
    made = hub.ensure_tag(api, Target(target.repo_id, version.tag, token, writing=True), version.tag, sha)
    say(f"{version.tag} {'now names' if made else 'names'} {sha}.")
    return Outcome(target.repo_id, sha, version.tag)


def licence_of(order: Order, there: ModelRepo | None) -> tuple[str, str]:
    """(licence of the version, a sentence about it): as asked for, else as the card on the Hub says, else the default.

    Raises UsageError for what is no name of a licence.
    """
    before = card_licence(there.file(CARD)) if there is not None and there.has(CARD) else None
    if order.licence is None:
        if before is not None:
            return before, f"Licence: {before}, as on the Hub."
        return DEFAULT_LICENCE, f"Licence: {DEFAULT_LICENCE}, because none was named with --license."
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]{1,40}", order.licence):
        raise UsageError(
            f"{order.licence!r} is no licence as the Hub names them. Fix: as in apache-2.0, mit, cc-by-4.0."
        )
    changed = f", in place of {before}" if before not in (None, order.licence) else ""
    return order.licence, f"Licence: {order.licence}{changed}, as asked for."


def card_licence(card: Path) -> str | None:
    """The licence in the metadata of a README, None where it has none."""
    try:
        found = metadata_load(card)
    except (ValueError, YAMLError):
        return None
    named = (found or {}).get("license")
    return str(named) if named else None


def kept_reasons(there: ModelRepo, token: str | None) -> list[Reason]:
    """What speaks against the files that are in the repo already and would be part of the version."""
    files = every_file(there.path, downloaded=False)
    found = content.reasons(files, token=token)
    return [Reason(reason.code, f"in the repo on the Hub {reason.sentence}") for reason in found]


def new_record(order: Order, remote: Remote, prepared: Prepared, overridden: list[Reason]) -> Record:
    """The release record without the files' hashes, which `prepare.seal` adds."""
    last = remote.last
    return {
        "version": order.version.number,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "repo": remote.repo_id,
        "message": order.message,
        "package_version": __version__,
        "previous": {"tag": last[0], "commit": last[1]} if last else None,
        "content": prepared.content,
        "allowed": [{"code": reason.code, "sentence": reason.sentence} for reason in overridden],
    }


def _changelog(order: Order, record: Record, prepared: Prepared, remote: Remote, token: str | None) -> str:
    metrics, provenance = prepared.evidence.metrics, prepared.evidence.repo.provenance
    test = metrics["test"]
    lines = [order.message.strip(), ""] if order.message.strip() else []
    lines += [
        f"- Balanced accuracy {tables.percent(test['intervals']['balanced_accuracy'])} % on {test['n']} test slices "
        f"of {test['groups']} groups ({metrics['protocol']}).",
        f"- Start weights: {(provenance.get('init') or {}).get('kind') or 'not recorded'}. "
        f"Data: `{prepared.evidence.split.fingerprint()[:12]}`.",
    ]
    lines += [f"- Released although `{row['code']}`: {row['sentence']}" for row in record["allowed"]]
    earlier = changelog_at(remote, token)
    return with_entry(earlier, order.version.tag, record["date"], lines)


def changelog_at(remote: Remote, token: str | None) -> str:
    """CHANGELOG.md of the repo's head, "" where there is none."""
    if len(remote.history) < 2:
        return ""
    # With files that are always there, because the client warns when nothing at all fits.
    head = ModelRepo.open(remote.repo_id, remote.head, token=token, files=[CHANGELOG, CARD, LUNGCT])
    return head.file(CHANGELOG).read_text(encoding="utf-8") if head.has(CHANGELOG) else ""


def _commit(api: HfApi, target: Target, plan: Plan, say: Say) -> tuple[str, str | None]:
    """Send the folder as one commit: (commit, address of the pull request)."""
    order, remote = plan.order, plan.remote
    parent = remote.head
    try:
        repo_id = ensure_repo(api, target, order.private)
        if order.gated and not remote.gated:
            patiently(lambda: api.update_repo_settings(repo_id, gated="auto"))
    except HUB_ERRORS as error:
        raise explain(error, target) from None
    if parent is None:
        fresh = hub.look(api, target)
        parent = fresh.head
        if fresh.tags or len(fresh.history) > 1:
            raise LungCTError(
                f"Someone else published to {repo_id} meanwhile. Nothing of yours was published. Look at what is "
                "there, then run this again."
            )
    elif order.create_pr:
        found = hub.find_request(api, target, order.version, plan.prepared.content)
        if found is not None:
            say(f"Pull request {found[1]} proposes this release already.")
            return found[0], f"{constants.ENDPOINT}/{repo_id}/discussions/{found[1]}"
    title = hub.title_of(order.version)
    message = f"{title}\n\n{order.message}" if order.message.strip() else title
    result = push_folder(
        plan.prepared.folder, repo_id, message=message, token=target.token, create_pr=order.create_pr, parent=parent
    )
    say(f"One commit holds it: {result.commit_url}")
    return result.commit_sha, result.pull_request_url


def confirm(target: Target, sha: str, say: Say, *, golden: np.ndarray | None = None) -> None:
    """Compare every file at `sha` with the release record, and load that commit back in a process of its own.

    `golden` (N, C) are the logits that the canaries must get, by default those stored beside them. Raises LungCTError.
    """
    try:
        _check_hashes(HfApi(endpoint=constants.ENDPOINT, token=target.token), target, sha)
        say(f"Every large file on {constants.ENDPOINT} has the recorded sha256.")
        loaders = _load_back(target, sha, golden)
    except LungCTError as error:
        raise LungCTError(
            f"The commit {sha[:7]} of {target.repo_id} could not be confirmed: {str(error).rstrip('.')}. It has no "
            "tag, so it is no version yet. Run the same command again to finish."
        ) from None
    say(
        f"Loaded back in a fresh process: every file has it, and the canaries get their logits ({', '.join(loaders)})."
    )


def _check_hashes(api: HfApi, target: Target, sha: str) -> None:
    """Compare what the Hub says about every file at `sha` with the release record; small ones are read afterwards."""
    record = hub.record_at(target.repo_id, sha, target.token) or {}
    entries = hub.ask(target, lambda: list(api.list_repo_tree(target.repo_id, recursive=True, revision=sha)))
    there = {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
    wrong = [
        name
        for name, digest in (record.get("files") or {}).items()
        if name not in there or (large := there[name].lfs) is not None and large.sha256 != digest
    ]
    if wrong or not record:
        raise LungCTError(f"{', '.join(wrong[:5]) or 'lungct.json'} is not there as it was sent")


def _load_back(target: Target, sha: str, golden: np.ndarray | None) -> list[str]:
    """The loaders that, in a process with an empty cache, gave the golden logits; LungCTError if one did not."""
    command = [sys.executable, "-m", "lungct_hf.release.loaders", target.repo_id, sha]
    environment = {**os.environ, "HF_ENDPOINT": constants.ENDPOINT} | (
        {"HF_TOKEN": target.token} if target.token else {}
    )
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=_LOAD_BACK_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        raise LungCTError(f"loading it back took more than {_LOAD_BACK_LIMIT} s") from None
    found = _last_json(done.stdout)
    if done.returncode or found is None:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1].removeprefix("error: ")
        raise LungCTError(f"loading it back failed: {said.rstrip('.')}")
    if found["wrong_files"]:
        raise LungCTError(f"{', '.join(found['wrong_files'][:5])} came back with another sha256")
    answers: dict[str, np.ndarray | str] = {
        name: v if isinstance(v, str) else np.asarray(v, np.float32) for name, v in found["logits"].items()
    }
    wanted = np.asarray(found["golden"], np.float32) if golden is None else golden
    said_otherwise = deviations(answers, wanted)
    if said_otherwise:
        raise LungCTError("; ".join(said_otherwise))
    return list(answers)


def _last_json(text: str) -> dict[str, Any] | None:
    lines = text.strip().splitlines()
    try:
        return json.loads(lines[-1]) if lines else None
    except ValueError:
        return None
