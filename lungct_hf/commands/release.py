"""`lungct release`: publish a run as a version, through the gate, and confirm that what is there is what was meant."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ..errors import UsageError, require


def release(
    run: Annotated[Path, typer.Argument(help="A run (runs/NAME) or the model directory in it.")],
    repo: Annotated[str, typer.Option("--repo", help="OWNER/NAME on the Hub; created if it is not there.")],
    version: Annotated[str, typer.Option("--version", help="X.Y.Z, greater than the last; the tag is vX.Y.Z.")],
    message: Annotated[
        str, typer.Option("--message", "-m", help="What changed, for the commit and CHANGELOG.md.")
    ] = "",
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", help="Override a refusal of the gate by its code; the card says so. Repeatable."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show plan, card and differences; change nothing.")
    ] = False,
    private: Annotated[bool, typer.Option("--private", help="Create the repo as a private one.")] = False,
    gated: Annotated[
        bool, typer.Option("--gated", help="Let people read it only after they asked for access.")
    ] = False,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Open a pull request; tag it after the merge.")
    ] = False,
    sign: Annotated[
        Path | None,
        typer.Option("--sign", help="A private elliptic-curve key (PEM) to sign the seal over every file with."),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option("--license", help="The licence of the weights, as the Hub names it. Default: the repo's so far."),
    ] = None,
    space: Annotated[str | None, typer.Option(help="Afterwards pin this Space to the version and restart it.")] = None,
) -> None:
    """Publish a run as a version: evidence rebuilt, gate, one commit, hashes and answers confirmed, tag.

    Interrupted, it finishes the same release when it is run again. Exit code 3: the gate refused, with the reasons.
    """
    if not run.is_dir():
        raise UsageError(f"There is no directory {run}. Fix: name the run that training wrote (runs/NAME).")
    if space and create_pr:
        raise UsageError("A pull request has no version to pin a Space to. Fix: leave --space out until it is merged.")
    for module in ("pyarrow", "sklearn", "matplotlib"):
        require(module, "train")
    from huggingface_hub.utils import disable_progress_bars

    from ..hub.failures import check_repo_id, usable_token
    from ..hub.push import require_write_token
    from ..release.publish import Order, carry_out, plan_release
    from ..release.reasons import check_allowed, refuse
    from ..release.seal import check_private_key
    from ..release.show import card_lines, difference_lines, plan_lines
    from ..release.version import Version

    number, allowed = Version.parse(version), tuple(allow or ())
    check_allowed(allowed)
    if sign is not None:
        check_private_key(sign)
    for name in filter(None, (repo, space)):
        check_repo_id(name)
    token = usable_token(None) if dry_run else require_write_token(repo)
    disable_progress_bars()
    order = Order(repo, number, message, allowed, private, gated, create_pr, sign, licence)
    with tempfile.TemporaryDirectory(prefix="lungct-release-") as scratch:
        typer.echo(f"Rebuilding the evidence of {run.name} and scoring the canaries ...", err=True)
        plan = plan_release(run, order, Path(scratch), token)
        for line in plan_lines(plan, space):
            typer.echo(line)
        if dry_run:
            for line in ("", *difference_lines(plan), "", "----- README.md " + "-" * 60, *card_lines(plan)):
                typer.echo(line)
            typer.echo("\nNothing was changed.")
            refuse(plan.refusing)
            return
        assert token is not None
        outcome = carry_out(plan, token, typer.echo)
    if outcome.request_url:
        typer.echo(f"{outcome.request_url}\nMerge it, then run the same command without --create-pr to tag it.")
        return
    if space:
        from ..release.space import pin_space

        pin_space(space, outcome.repo_id, outcome.commit, token, typer.echo)
    typer.echo(f"Anyone can check it: lungct verify {outcome.repo_id}@{outcome.tag}")
