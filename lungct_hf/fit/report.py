"""The end of a run on the terminal: what was reached, beside what no learning reaches, and what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ..labels import LABELS


def print_summary(metrics: dict[str, Any], provenance: dict[str, Any], model: Path, *, pushed: bool) -> None:
    """Print the test fold's figures, the 1-NN baseline, where the model is, and the next two commands."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(_summary_table(metrics))
    console.print(_class_table(metrics["test"]))
    protocol, training = metrics["split"]["protocol"], provenance["training"]
    console.print(
        f"Test fold: {metrics['test']['n']} slices of {metrics['test']['groups']} groups, split {protocol}, "
        f"init {provenance['init']['kind']}, best epoch {training['best_epoch']} of {training['epochs']}, "
        f"{training['seconds']:.0f} s."
    )
    if provenance["data"]["kind"] == "phantom":
        console.print("Trained on generated phantoms: it shows that the path works and knows nothing about patients.")
    console.print("Research only. Not a medical device.\n")
    console.print(f"Model: [bold]{model}[/bold]")
    console.print(f"  show it:  lungct demo {model}")
    if not pushed:
        console.print(f"  push it:  lungct push {model} YOUR_NAME/lungct")


def _summary_table(metrics: dict[str, Any]) -> Table:
    table = Table("", "accuracy", "balanced accuracy", "macro AUROC", box=box.SIMPLE_HEAD, pad_edge=False)
    neighbour = metrics["baselines"]["nearest_neighbour"]
    for name, block in (
        ("model, test fold", metrics["test"]),
        ("1-NN on thumbnails, test fold", neighbour),
        ("model, validation fold", metrics["validation"]),
    ):
        columns = ("accuracy", "balanced_accuracy", "macro_auroc")
        table.add_row(name, *(_figure(block.get(column)) for column in columns))
    return table


def _class_table(block: dict[str, Any]) -> Table:
    named = (f"as {label}" for label in LABELS)
    table = Table("test fold", "n", "sens.", "spec.", *named, box=box.SIMPLE_HEAD, pad_edge=False)
    for label, counts in zip(LABELS, block["confusion_matrix"], strict=True):
        row = block["per_class"][label]
        figures = _figure(row["sensitivity"]), _figure(row["specificity"])
        table.add_row(label, str(row["n"]), *figures, *map(str, counts))
    return table


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
