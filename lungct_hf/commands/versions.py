"""`lungct versions`, `lungct rollback`, `lungct compare`: what was released, the way back, and what changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError, require

if TYPE_CHECKING:
    from ..release.evidence import Evidence


def versions(
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on the Hub.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of the table.")] = False,
) -> None:
    """List the versions of a model: date, commit, grouped score with interval, start weights, data."""
    from huggingface_hub.utils import disable_progress_bars

    from ..hub.failures import check_repo_id, usable_token
    from ..release.versions import list_versions

    disable_progress_bars()
    rows = list_versions(check_repo_id(repo), usable_token(None))
    if as_json:
        typer.echo(json.dumps([row.to_json() for row in rows], indent=2, ensure_ascii=False))
        return
    if not rows:
        typer.echo(f"{repo} has no version yet: lungct release RUN --repo {repo} --version 0.1.0")
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from ..evaluation.tables import percent

    columns = ("version", "date", "commit", "balanced acc., %", "init", "data")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        table.add_column(name, no_wrap=True)
    for row in rows:
        version = f"{row.tag} *" if row.live else row.tag
        cells = (row.date or "–", row.commit[:7], percent(row.score), row.init or "–", (row.data or "–")[:8])
        table.add_row(version, *cells)
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    protocols = ", ".join(sorted({row.protocol or "not recorded" for row in rows}))
    live = "* main holds it now." if any(row.live for row in rows) else "main holds something that is no version."
    console.print(f"{live} Of slices, with 95 % intervals; protocol: {protocols}.", markup=False)
    for row in rows:
        if row.allowed:
            console.print(f"- {row.tag} was released in spite of: {', '.join(row.allowed)}", markup=False)


def rollback(
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on the Hub.")],
    version: Annotated[str, typer.Argument(help="The version to bring back, X.Y.Z.")],
    message: Annotated[str, typer.Option("--message", "-m", help="Why, for the commit and CHANGELOG.md.")] = "",
    sign: Annotated[Path | None, typer.Option("--sign", help="A private key (PEM) to sign the seal with.")] = None,
    space: Annotated[str | None, typer.Option(help="Afterwards pin this Space to it and restart it.")] = None,
) -> None:
    """Bring an earlier version back: a new commit with its content, tagged vX.Y.Z+rollback.N; nothing is deleted."""
    from huggingface_hub.utils import disable_progress_bars

    from ..hub.failures import check_repo_id
    from ..hub.push import require_write_token
    from ..release.seal import check_private_key
    from ..release.space import pin_space
    from ..release.version import Version
    from ..release.versions import roll_back

    number = Version.parse(version)
    if sign is not None:
        check_private_key(sign)
    for name in filter(None, (repo, space)):
        check_repo_id(name)
    disable_progress_bars()
    token = require_write_token(repo)
    _, commit = roll_back(repo, number, token, typer.echo, message=message, key=sign)
    if space:
        pin_space(space, repo, commit, token, typer.echo)


def compare(
    a: Annotated[str, typer.Argument(help="A run, a model directory, or OWNER/NAME[@REVISION].")],
    b: Annotated[str, typer.Argument(help="The other one; differences are A minus B.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write comparison.json and comparison.png to this folder.")
    ] = None,
    replicates: Annotated[int, typer.Option(min=100, help="Bootstrap draws behind the intervals.")] = 2000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Compare two models by their stored predictions: differences with intervals, paired where tested alike."""
    if output is not None and output.is_file():
        raise UsageError(f"{output} is a file; --output needs a folder.")
    for module in ("pyarrow", "sklearn"):
        require(module, "train")
    if output is not None:
        require("matplotlib", "train")
    from huggingface_hub.utils import disable_progress_bars

    from ..files import write_json
    from ..release.compare import compare as difference
    from ..release.compare import rows, write_plot
    from ..release.external import rows as external_rows
    from ..release.external import side_by_side

    disable_progress_bars()
    (one, first), (two, second) = _evidence(a), _evidence(b)
    found = difference(one, two, replicates=replicates)
    elsewhere = side_by_side(one.repo, two.repo, replicates=replicates)
    record = {"a": first, "b": second, **found.to_json()}
    record["external"] = {pair.name: {"slices": pair.slices, "a": pair.a, "b": pair.b} for pair in elsewhere}
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        write_json(output / "comparison.json", record)
        write_plot(found, (_short(first), _short(second)), output / "comparison.png")
    if as_json:
        typer.echo(json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table("", "A", "B", "A minus B", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for row in rows(found):
        table.add_row(*row)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"A: {first}\nB: {second}\n{found.how}", markup=False)
    console.print(table)
    console.print("[dim]Brackets: 95 % intervals of the difference, whole groups resampled.[/dim]")
    if not elsewhere:
        console.print("No outside set was shown to both.")
        return
    table = Table("elsewhere, %", "A", "B", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for pair in elsewhere:
        for line in external_rows(pair):
            table.add_row(*line)
    console.print(table)
    shown = "; ".join(f"{pair.name}: the {pair.slices} slices that both were shown" for pair in elsewhere)
    console.print(f"{shown}. The intervals are those of each, whole groups resampled.", markup=False)


def _evidence(model: str) -> tuple[Evidence, str]:
    from ..hub.model_repo import CONTRACT_FILES, EVIDENCE_FILES, ModelRepo
    from ..release.evidence import read_evidence

    repo = ModelRepo.open(model, files=EVIDENCE_FILES).need(*CONTRACT_FILES)
    return read_evidence(repo, replicates=100), repo.name


def _short(name: str) -> str:
    repo, at, revision = name.partition("@")
    return f"{repo}@{revision[:7]}" if at else name
