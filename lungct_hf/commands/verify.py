"""`lungct verify`: whether a published model's claims are true, without its data."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ..errors import require


def verify(
    model: Annotated[str, typer.Argument(help="OWNER/NAME[@REVISION], a run, or a model directory.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Recompute a model's figures, card and answers from its own files; exit code 1 and a list where they are false.

    Needs no data. Checks hashes, split, predictions, metrics.json, .eval_results, the card and every loader.
    """
    for module in ("pyarrow", "sklearn"):
        require(module, "train")
    from huggingface_hub.utils import disable_progress_bars

    from ..release.verify import verify as check

    disable_progress_bars()
    found = check(model)
    if as_json:
        false = [{"code": reason.code, "sentence": reason.sentence} for reason in found.false]
        record = {"model": found.name, "verified": not false, "false": false, "held": found.held, "notes": found.notes}
        typer.echo(json.dumps(record, indent=2, ensure_ascii=False))
    else:
        typer.echo(found.name)
        for line in found.held:
            typer.echo(f"  true   {line}")
        for line in found.notes:
            typer.echo(f"  note   {line}")
        for reason in found.false:
            typer.echo(f"  FALSE  {reason}")
        typer.echo(
            "Everything that was checked holds." if not found.false else f"{len(found.false)} claims are false."
        )
    if found.false:
        raise typer.Exit(1)
