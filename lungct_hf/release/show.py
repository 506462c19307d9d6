"""A release's plan for a reader: what would happen, what the gate says, the card, and the differences to the last."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from huggingface_hub import constants

from ..errors import LungCTError
from ..hub.model_repo import CARD
from .compare import compare, rows
from .evidence import read_evidence
from .gate import changed_files
from .publish import Plan

_DRAWS = 1000


def plan_lines(plan: Plan, space: str | None) -> Iterator[str]:
    """The steps, in order, and what the gate says."""
    order, remote = plan.order, plan.remote
    where = f"{constants.ENDPOINT}/{remote.repo_id}"
    yield f"Release {order.version.tag} of {remote.repo_id}"
    if plan.published:
        yield f"  {plan.published[:7]} holds this release already; what is missing of it would be finished:"
    elif remote.head is None:
        kind = "private" if order.private else "public"
        yield f"  1. create {where} ({kind}{', gated' if order.gated else ''}); it is not there, or not to be seen"
    else:
        gated = " (to be gated)" if order.gated and not remote.gated else ""
        yield f"  1. on top of {remote.head[:7]} of {where}{gated}"
    if not plan.published:
        what = "open a pull request with" if order.create_pr else "make"
        yield f"  2. {what} one commit of {len(plan.prepared.evidence.table)} predictions, weights, card and canaries"
    yield "  3. compare the sha256 of every file, load it back in a fresh process, score the canaries"
    if order.create_pr:
        yield "  4. no tag: run this again, without --create-pr, when it is merged"
    else:
        yield f"  4. tag it {order.version.tag}"
    if space:
        yield f"  5. pin the Space {space} to {order.version.tag} and restart it"
    yield ""
    yield "Gate: " + ("refused" if plan.refusing else "passed")
    yield from (f"  refused  {reason}" for reason in plan.refusing)
    yield from (f"  allowed  {reason}" for reason in plan.overridden)
    yield from (f"  note     {note}" for note in plan.notes)


def difference_lines(plan: Plan) -> Iterator[str]:
    """Files, figures and card beside the last version's."""
    if plan.last is None:
        yield "There is no earlier version to compare with."
        return
    tag, folder = plan.last.tag, plan.prepared.folder
    yield f"Differences to {tag} ({plan.last.sha[:7]})"
    files = changed_files(folder, plan.last)
    yield from (f"  {what:8} {name}" for what, name in files)
    yield from [] if files else ["  no file differs"]
    try:
        found = compare(plan.prepared.evidence, read_evidence(plan.last.repo, replicates=100), replicates=_DRAWS)
    except LungCTError as error:
        yield f"  its figures cannot be compared: {error}"
    else:
        yield f"  figures, {found.how}:"
        yield from (f"    {name:28} {new:>6}  {tag} {old:>6}  {gap}" for name, new, old, gap in rows(found))
    last = plan.last.repo
    before = last.file(CARD).read_text(encoding="utf-8") if last.has(CARD) else ""
    after = (folder / CARD).read_text(encoding="utf-8")
    names = f"{CARD} {tag}", f"{CARD} now"
    yield from difflib.unified_diff(before.splitlines(), after.splitlines(), *names, n=1, lineterm="")


def card_lines(plan: Plan) -> Iterator[str]:
    """The card that would be published."""
    yield from (plan.prepared.folder / CARD).read_text(encoding="utf-8").splitlines()
