"""The audit as text for a terminal of 80 columns."""

from __future__ import annotations

from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .probes import VIEWS
from .report import Audit


def show(audit: Audit, console: Console) -> None:
    """Print the summary: counts, copies, probes, then the warnings, so that they stand last."""
    for part in (_head(audit), _classes(audit), _copies(audit), _probes(audit), _warnings(audit)):
        console.print(part)


def _head(audit: Audit) -> RenderableType:
    data = audit.figures["data"]
    lines = [Text.assemble((str(data["source"]), "bold"), f"  {data['slices']:,} slices, {data['kind']}")]
    lines += [Text(f"note: {note}", style="dim") for note in data["notes"]]
    if data["bad_files"]:
        lines.append(Text(f"left out {len(data['bad_files'])} bad files (listed by --json)", style="yellow"))
    return Group(*lines, "")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    return table


def _classes(audit: Audit) -> RenderableType:
    figures = audit.figures
    table = _table("class", "slices", "distinct", "groups", "usual size", "not square", "median grey")
    for name, counts in figures["classes"].items():
        shape, grey = figures["geometry"][name], figures["grey"][name]
        table.add_row(
            name,
            f"{counts['slices']:,}",
            f"{counts['pictures']:,}",
            f"{counts['groups']:,}",
            next(iter(shape["sizes"])),
            str(shape["not_square"]),
            f"{grey['p50']:g}",
        )
    splits = {name: sum(counts.values()) for name, counts in figures["splits"]["counts"].items()}
    named = ", ".join(f"{name} {count:,}" for name, count in splits.items())
    return Group(table, *([] if set(splits) == {"none"} else [Text(f"own splits: {named}")]), "")


def _copies(audit: Audit) -> RenderableType:
    figures = audit.figures
    groups, near, order = figures["groups"], figures["near_copies"], figures["file_order"]
    duplicates = figures["duplicates"]
    without_splits = set(figures["splits"]["counts"]) == {"none"}
    across_splits = "" if without_splits else f", {near['across_splits']['slices']:,} across splits"
    several = groups["with_several_classes"]
    guess = "guessed from likeness" if groups["grouping"] == "linked" else groups["grouping"].replace(":", " ")
    rows = [
        ("groups", f"{groups['groups']:,} ({guess}), largest {groups['largest']}, {several} with several classes"),
        (
            "identical",
            f"{figures['data']['slices'] - duplicates['distinct_pictures']:,} slices repeat a picture of "
            f"{duplicates['distinct_pictures']:,} distinct ones",
        ),
        (
            "near-copies",
            f"{near['within_class']['slices']:,} slices within a class, {near['across_classes']['slices']:,} across "
            f"classes{across_splits} (likeness from {near['cut']:.2f})",
        ),
        ("not recognised", near["not_recognised"]),
    ]
    if order["consecutive"]["near_copies"] is not None:
        rows.append(
            (
                "file order",
                f"{order['consecutive']['near_copies']:.0%} of consecutive files are near-copies, "
                f"{order['random']['near_copies'] or 0:.0%} of random pairs",
            )
        )
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, text in rows:
        table.add_row(Text(name, style="dim"), text)
    return Group(table, "")


def _probes(audit: Audit) -> RenderableType:
    probes = audit.figures["probes"]
    table = _table("without learning a lung", "by image", "balanced", "by group", "balanced", "")
    chance = probes["chance_balanced_accuracy"]
    for name, view in probes["views"].items():
        cells: list[str] = []
        for kind in ("image", "grouped"):
            score = view[kind]
            cells += [_percent(score, "accuracy"), _percent(score, "balanced_accuracy")]
        table.add_row(VIEWS[name][0], *cells, _bar(view["grouped"], chance))
    table.add_row(
        Text("largest class / chance", style="dim"),
        *[Text(f"{value:.1%}", style="dim") for value in (probes["majority_accuracy"], chance) * 2],
        "",
    )
    folds = probes["folds"]
    note = f"accuracy and balanced accuracy, {folds['image']} folds by image and {folds['grouped']} by group"
    return Group(table, Text(f"{note}, mean of {probes['repeats']}", style="dim"), "")


def _percent(score: dict[str, Any] | None, key: str) -> str:
    return "-" if score is None else f"{score[key]:.1%}"


def _bar(score: dict[str, Any] | None, chance: float) -> str:
    """How far between chance and perfect a grouped score lies, in five blocks."""
    if score is None:
        return ""
    filled = max(0, min(5, round(5 * (score["balanced_accuracy"] - chance) / (1 - chance))))
    return "█" * filled + "░" * (5 - filled)


def _warnings(audit: Audit) -> RenderableType:
    parts: list[RenderableType] = []
    for remark in audit.figures["remarks"]:
        parts.append(Text.assemble(("remark  ", "cyan"), remark))
    if audit.figures["remarks"]:
        parts.append("")
    if not audit.warnings:
        return Group(*parts, Text("No warnings.", style="green bold"))
    number = len(audit.warnings)
    parts.append(Text(f"{number} warning{'s' if number > 1 else ''}", style="yellow bold"))
    for warning in audit.warnings:
        parts.append(Text(warning.code, style="bold"))
        parts.append(Padding(warning.message, (0, 0, 0, 2)))
        if warning.total < audit.figures["data"]["slices"]:
            shown = ", ".join(f'"{name}"' for name in warning.files[:3])
            more = f" and {warning.total - 3:,} more" if warning.total > 3 else ""
            parts.append(Padding(Text(f"{shown}{more}", style="dim"), (0, 0, 0, 2)))
    return Group(*parts)
