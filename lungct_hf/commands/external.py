"""`lungct evaluate --external`: test a model on slices that it was not made from, and store the outcome with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import typer

from ..errors import UsageError, require

if TYPE_CHECKING:
    from rich.console import Console


def judge_elsewhere(
    model: str,
    sets: Sequence[str],
    class_maps: Sequence[str],
    on_bad_file: str,
    replicates: int,
    *,
    as_json: bool,
) -> None:
    """Test on each NAME=DATA of `sets` with the class map of that name, store, and show what was stored.

    One set is stored before the next is read. Raises UsageError and LungCTError with the fix.
    """
    if on_bad_file not in ("refuse", "skip"):
        raise UsageError(f'--on-bad-file is "{on_bad_file}"; refuse or skip is needed.')
    for module in ("pyarrow", "sklearn"):
        require(module, "train")
    from ..cohort.outside import Outside
    from ..evaluation.external import check_name, store
    from ..evaluation.measure_external import measure
    from ..hub import write_card
    from ..hub.model_repo import ModelRepo, local_folder
    from ..runtime import LungCT

    data, files = _named(sets, "--external", "DATA"), _named(class_maps, "--external-classes", "FILE.yaml")
    if not data:
        raise UsageError("--external-classes belongs to --external. Fix: name the data as well, --external NAME=DATA.")
    if unknown := [name for name in files if name not in data]:
        raise UsageError(f"--external-classes names {unknown[0]}, and --external has only {', '.join(data)}.")
    folder = local_folder(model)
    if folder is None:
        raise UsageError(
            f"What --external finds is stored with the model, and {model} is on the Hub. Fix: fetch it, for example "
            f"with `hf download {model.partition('@')[0]} --local-dir FOLDER`, and name that folder."
        )
    repo = ModelRepo.in_folder(folder)
    loaded = LungCT.from_pretrained(repo.path)
    contract = loaded.contract
    asked = {check_name(name): Outside(contract.classes, contract.limits) for name in data}
    asked |= {name: asked[name].described_by(Path(file).expanduser()) for name, file in files.items()}
    stored = {}
    for name, source in data.items():
        skip = cast(Literal["refuse", "skip"], on_bad_file)
        rows, facts = measure(loaded, name, source, asked[name], on_bad_file=skip, progress=not as_json)
        stored[name] = store(ModelRepo(repo.path), name, rows, facts, replicates=replicates)
        write_card(repo.path, (repo.release or {}).get("repo"))
    if as_json:
        typer.echo(json.dumps({"external": stored}, indent=2, ensure_ascii=False, allow_nan=False))
        return
    from rich.console import Console

    console = Console(highlight=False)
    console.print(repo.name, markup=False)
    show_external(console, stored)
    typer.echo("Stored in evaluation/external.json, evaluation/external/ and the card.")


def _named(pairs: Sequence[str], flag: str, what: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise UsageError(f"{flag} {pair!r} is none: NAME={what} is needed.")
        if name in found:
            raise UsageError(f"{flag} names {name} twice. Fix: one name for each set.")
        found[name] = value
    return found


def show_external(console: Console, sets: dict[str, Any]) -> None:
    """The outcome for each set; 80 columns are enough."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from ..evaluation import tables
    from ..hub.external import NEVER

    if not sets:
        console.print(NEVER)
    for name, entry in sets.items():
        console.print(Text(tables.external_title(name, entry), "bold"))
        table = Table("%", "of all slices", "of the answers", "forced", box=box.SIMPLE_HEAD)
        table.pad_edge, table.padding = False, (0, 1, 0, 0)
        for row in tables.external_rows(entry):
            table.add_row(*row)
        console.print(table)
        for note in tables.external_notes(entry):
            console.print(f"- {note}", markup=False)
