"""`lungct verify`: whether a published model's claims are true, without its data."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..errors import require


def verify(
    model: Annotated[str, typer.Argument(help="OWNER/NAME[@REVISION], a run, or a model directory.")],
    key: Annotated[
        Path | None,
        typer.Option("--key", help="The public key (PEM) that must have signed every file; have it from elsewhere."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Recompute a model's figures, card and answers from its own files; exit code 1 and a list where they are false.

    Needs no data. Checks the seal over all files, split, predictions, metrics.json, .eval_results, the card and every
    loader, and tells apart what was recomputed, what was only compared, and what nobody can know from the files.
    """
    for module in ("pyarrow", "sklearn"):
        require(module, "train")
    from huggingface_hub.utils import disable_progress_bars

    from ..release.verify import UNKNOWABLE
    from ..release.verify import verify as check

    disable_progress_bars()
    found = check(model, key=key)
    if as_json:
        false = [{"code": reason.code, "sentence": reason.sentence} for reason in found.false]
        record = {"model": found.name, "verified": not false, "seal": asdict(found.seal), "false": false}
        record |= {"recomputed": found.recomputed, "compared": found.compared, "notes": found.notes}
        record["not_knowable"] = list(UNKNOWABLE)
        typer.echo(json.dumps(record, indent=2, ensure_ascii=False))
    else:
        typer.echo(f"{found.name}\n  seal   {found.seal.sentence}\nRecomputed from the files here:")
        for line in found.recomputed:
            typer.echo(f"  true   {line}")
        typer.echo("Compared with what was noted at the release or is stated by the Hub:")
        for line in found.compared or ["nothing: no release wrote this, and no Hub"]:
            typer.echo(f"  same   {line}" if found.compared else f"  -      {line}")
        for line in found.notes:
            typer.echo(f"  note   {line}")
        for reason in found.false:
            typer.echo(f"  FALSE  {reason}")
        typer.echo("Only the data, or training anew, could show:")
        for line in UNKNOWABLE:
            typer.echo(f"  ?      {line}")
        typer.echo(
            "Everything that was checked holds." if not found.false else f"{len(found.false)} claims are false."
        )
    if found.false:
        raise typer.Exit(1)
