"""Write what finished runs show into a Markdown file: no figure of docs/results.md is typed by hand.

    python benchmarks/results.py docs/results.md runs/grouped runs/paper

Each run (a cross-validation, or one with a single test fold) becomes a section between the markers of the file: its
command, seeds and training time, the model beside its baselines with 95 % intervals, calibration and abstention, what
the ring alone tells, and its plots as small PNGs in a folder beside the file. A run that has a section already gets a
new one in its place; the sections of other runs stay as they are.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from lungct_hf.errors import UsageError, exit_on_error
from lungct_hf.evaluation import tables
from lungct_hf.files import read_json, write_atomic
from lungct_hf.hub import ModelRepo
from lungct_hf.hub.model_repo import METRICS

START, END = "<!-- results:start -->", "<!-- results:end -->"
PLOTS = ("comparison", "confusion", "reliability", "risk_coverage")
WIDTH = 640  # pixels of a committed plot
ANSWERS = ["answers by", "balanced accuracy, %", "of cases, %", "accuracy, %"]


def main(page: Path, runs: list[Path]) -> None:
    """Write or replace one section between the markers of `page` for each run."""
    text = page.read_text(encoding="utf-8") if page.is_file() else f"{START}\n{END}\n"
    if START not in text or END not in text:
        raise UsageError(f"{page} has no {START} and {END}. Fix: put them where the sections belong.")
    before, _, rest = text.partition(START)
    old, _, after = rest.partition(END)
    _, *parts = re.split(r"^### `(.+?)`", old, flags=re.M)  # name and body of one section after another
    named = zip(parts[::2], parts[1::2], strict=True)
    sections = {name: f"### `{name}`{body}".strip() for name, body in named}
    sections |= {run.name: section(run, page.with_suffix("")).strip() for run in runs}
    write_atomic(page, f"{before}{START}\n\n" + "\n\n".join(sections.values()) + f"\n\n{END}{after}")


def section(run: Path, pictures: Path) -> str:
    """One run as Markdown; its plots are written to `pictures`."""
    repo = ModelRepo.in_folder(run)
    metrics = repo.need(METRICS).metrics or {}
    provenance, test = repo.provenance, metrics["test"]
    threads = read_json(run / "run.json", f"{run} has no run.json. Fix: name the folder of a finished run.")["threads"]
    lines = [
        f"### `{run.name}`: {metrics['protocol']}",
        "",
        f"```\naccelerate launch {provenance['command']}\n```",
        "",
        tables.headline(metrics)
        + f" Start weights: {provenance['init']['kind']}. Training took {minutes(run)} minutes "
        f"in all with {threads} thread. Split {metrics['split']['hash'][:12]}.",
        "",
        table(ANSWERS, comparison(metrics)),
        "",
    ]
    for name, other in metrics.get("other_protocols", {}).items():
        sources = ("model", *other["baselines"])
        gaps = [tables.percent(metrics["leak_gap"][source]["balanced_accuracy"]) for source in sources]
        rows = [(*row, gap) for row, gap in zip(comparison(other), gaps, strict=True)]
        lines += [f"The same by {name}:", "", table([*ANSWERS, "leak gap, points of balanced accuracy"], rows), ""]
    if means := test.get("mean_of_folds"):
        lines += [
            f"Mean of the folds: accuracy **{means['accuracy']:.2%}**, balanced accuracy "
            f"{means['balanced_accuracy']:.2%}. Seeds: "
            + ", ".join(f"{row['seed']}: {row['balanced_accuracy']:.1%}" for row in test["seeds"])
            + " balanced.",
            "",
        ]
    lines += [
        table(["class, %", *tables.class_columns(metrics)[1:]], tables.class_rows(metrics)),
        "",
    ]
    figures = [("figure", "slices", "cases"), *tables.figure_rows(metrics)]
    lines += [table(list(figures[0]), figures[1:]), ""]
    lines += [f"- {note}" for note in tables.notes(metrics)]
    risk = ", ".join(f"{row['error']:.1%} at {row['coverage']:.0%}" for row in test["risk_coverage"])
    lines += [f"- Error among the most confident answers: {risk}.", ""]
    for name in PLOTS:
        small(
            repo.path / "evaluation" / f"{name}.png",
            run / "evaluation" / f"{name}.png",
            pictures / f"{run.name}-{name}.png",
        )
        lines.append(f"![{name.replace('_', ' ')}]({pictures.name}/{run.name}-{name}.png)")
    return "\n".join(lines) + "\n"


def comparison(metrics: dict[str, Any]) -> list[tuple[str, ...]]:
    blocks = {"model": metrics["test"], **metrics["baselines"]}
    return [
        (
            tables.SOURCES[source],
            tables.percent(block["intervals"]["balanced_accuracy"]),
            tables.percent(block["cases"]["intervals"]["balanced_accuracy"]),
            tables.percent(block["intervals"]["accuracy"]),
        )
        for source, block in blocks.items()
    ]


def minutes(run: Path) -> str:
    """Training of all folds and of the published model."""
    records = [ModelRepo(path.parent).provenance["training"] for path in run.rglob("model/lungct.json")]
    seconds = sum(record["seconds"] + record.get("seconds_before", 0) for record in records)
    return f"{seconds / 60:.0f}"


def table(columns: list[str], rows: Any) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def small(first: Path, second: Path, target: Path) -> None:
    with Image.open(first if first.is_file() else second) as image:
        image = image.convert("RGB")
        image.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
        target.parent.mkdir(parents=True, exist_ok=True)
        image.quantize(64).save(target, optimize=True)


if __name__ == "__main__":
    with exit_on_error():
        if len(sys.argv) < 3:
            raise UsageError("Fix: python benchmarks/results.py PAGE.md RUN [RUN ...]")
        main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
