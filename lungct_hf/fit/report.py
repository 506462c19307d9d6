"""The end of a run on the terminal: what was reached, beside what no learning reaches, and what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ..evaluation import tables

_AS_COLUMNS = 6  # more classes than this and the table would not fit a terminal


def print_summary(metrics: dict[str, Any], provenance: dict[str, Any], model: Path, *, pushed: bool) -> None:
    """Print the test fold's figures with intervals, the baselines, where the model is, and the next two commands."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(_summary_table(metrics))
    console.print(_class_table(metrics["test"]))
    test, protocol, training = metrics["test"], metrics["split"]["protocol"], provenance["training"]
    held_out = "validation folds" if provenance["recipe"]["rotate_validation"] else "validation fold"
    chose = provenance["recipe"]["choose"] == "best"
    role = "which chose the epoch" if chose else "which the temperatures and the thresholds come from"
    lines = [
        f"Test fold: {test['n']} slices of {test['groups']} groups, split {protocol}, "
        f"init {provenance['init']['kind']}, best epoch {training['best_epoch']} of {training['epochs']}, "
        f"{training['seconds']:.0f} s. Brackets: 95 % intervals, whole groups resampled.",
        f"On the {held_out}, {role}: {_figure(metrics['validation']['balanced_accuracy'])}.",
        f"{'Macro AUROC' if 'macro_auroc' in test else 'AUROC'} {tables.plain(_auroc(test))}, "
        f"calibration error (ECE) {tables.plain(test['intervals']['ece'])}.",
        *tables.notes(metrics),
    ]
    for line in lines:
        console.print(f"- {line}", markup=False, soft_wrap=False)
    if provenance["data"]["kind"] == "phantom":
        console.print("Trained on generated phantoms: it shows that the path works and knows nothing about patients.")
    console.print("Research only. Not a medical device.\n")
    console.print(f"Model: [bold]{model}[/bold]")
    console.print(f"  show it:  lungct demo {model}")
    if not pushed:
        console.print(f"  push it:  lungct push {model} YOUR_NAME/lungct")


def _summary_table(metrics: dict[str, Any]) -> Table:
    table = _table("test fold, %", "balanced accuracy", "of cases", "accuracy")
    for source, block in {"model": metrics["test"], **metrics["baselines"]}.items():
        figures = block["intervals"], block["cases"]["intervals"]
        columns = (figures[0]["balanced_accuracy"], figures[1]["balanced_accuracy"], figures[0]["accuracy"])
        table.add_row(tables.SOURCES[source], *map(tables.percent, columns))
    return table


def _class_table(block: dict[str, Any]) -> Table:
    named = [f"as {label}" for label in block["per_class"]]
    named = named if len(named) <= _AS_COLUMNS else []
    table = _table("test fold", "n", "sens., %", "spec., %", *named)
    for label, counts in zip(block["per_class"], block["confusion_matrix"], strict=True):
        found = block["intervals"]["per_class"][label]
        figures = (tables.percent(found[name], 0) for name in ("sensitivity", "specificity"))
        table.add_row(label, str(block["per_class"][label]["n"]), *figures, *map(str, counts[: len(named)]))
    return table


def _auroc(block: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = block["intervals"]
    return found["macro_auroc"] if "macro_auroc" in found else found["auroc"]


def _table(*columns: str) -> Table:
    return Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))


def _figure(value: float | None) -> str:
    return "-" if value is None else f"balanced accuracy {100 * value:.1f} %"
