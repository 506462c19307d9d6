"""Cross-validation: one run for each fold and seed, all their test predictions pooled, a model from all slices.

    OUTPUT_DIR/seed-S/fold-F/   a run like any other, which `--resume` can also continue alone
    OUTPUT_DIR/image/seed-S/... with --leak-gap: the same by image, to show what near-copies add
    OUTPUT_DIR/evaluation/      the pooled test predictions and what follows from them
    OUTPUT_DIR/model/           trained on every slice; its evaluation is the pooled one and says so

The published weights see every slice, so nothing is left to choose their epoch on. They are trained for the median of
the folds' best epochs (of two middle ones, the later), over which the learning rate comes down.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

from ..classes import Classes
from ..cohort import Cohort, Split, make_split
from ..contract import Contract
from ..decision import AbstainRule, Calibration
from ..errors import LungCTError, UsageError
from ..evaluation import (
    Report,
    evaluate_predictions,
    read_predictions,
    tables,
    uncalibrated_logits,
)
from ..evaluation.plots import write_plots
from ..evaluation.predictions import OPTIONAL, SCHEMA, write_predictions
from ..evaluation.report import IMAGE
from ..files import folder_in_one_step, write_json
from ..hub import ModelRepo
from .evidence import TARGET_ERROR, fit_what_can_be, fold_into
from .model_repo import split_record, write_weights
from .options import Options

SENTENCE = "Cross-validated: the published weights were trained on all slices and not evaluated themselves."


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the folds showed: the pooled predictions, their report, and how long the published model is to train.

    `held_out` are the folds' answers on their validation slices, of the headline protocol.
    """

    rows: list[dict[str, object]]
    held_out: list[dict[str, Any]]
    report: Report
    split: Split  # of the first seed, with every slice in train: what the published model sees
    epochs: int

    @property
    def metrics(self) -> dict[str, Any]:
        """metrics.json, which says that it is not about the published weights."""
        return self.report.metrics

    def calibrate(self, features: np.ndarray, sources: np.ndarray) -> Calibration:
        """For the published weights: from the folds' validation groups, each judged by a network that never saw it.

        `features` (N, D) at the guard's stage are those of the published network for all slices, `sources` (N,) the
        names of where these are from; they say what is near.
        """
        classes = self.split.classes
        truth = np.array([classes.index(row["label"]) for row in self.held_out])
        groups = np.array([row["group"] for row in self.held_out], np.str_)
        raw = np.array([row["raw_logits"] for row in self.held_out])
        distances = [row.get("distance") for row in self.held_out]
        known = None if None in distances else np.array(distances)
        reason = "A fold could not measure how far slices are from its training slices."
        return fit_what_can_be(
            raw, truth, groups, classes=classes, training=(features, sources), distances=known, no_distance=reason
        )

    def split_record(self) -> dict[str, Any]:
        """The entry for lungct.json; there is no test fold."""
        seeds = self.metrics["evidence"]["seeds"]
        return {**split_record(self.split), "fold": None, "seeds": seeds, "evidence": "cross-validated"}


def fold_runs(options: Options) -> Iterator[Options]:
    """The options of each fold's run, protocol by protocol and seed by seed."""
    single = replace(options, folds=None, seeds=(), push_to_hub=None, leak_gap=False)
    protocols = [(options.run, options.split)] + ([(options.run / IMAGE, IMAGE)] if options.leak_gap else [])
    for folder, split in protocols:
        for seed in options.seeds:
            for fold in range(options.fold_count):
                run = folder / f"seed-{seed}" / f"fold-{fold}"
                yield replace(single, run=run, split=split, seed=seed, fold=fold)


def split_of(options: Options, cohort: Cohort) -> Split:
    """The split of one run, as its flags say."""
    return make_split(
        cohort,
        options.protocol,
        fold=options.fold,
        folds=options.fold_count,
        seed=options.seed,
        margin=options.margin,
    )


def check_folds(options: Options, cohort: Cohort) -> None:
    """Raise UsageError when the split has no folds that could take turns."""
    protocol = options.protocol
    if protocol not in ("auto", "grouped", "image") or split_of(options, cohort).protocol == "given":
        what = "The data come with a test set of their own" if protocol in ("auto", "given") else f"--split {protocol}"
        raise UsageError(
            f"--folds: {what}, so the folds cannot take turns. Fix: --split linked (or similarity, file-blocks:N, "
            "grouped, image), or train once without --folds."
        )


def pool(options: Options, cohort: Cohort) -> Evidence:
    """Every fold's stored test predictions with the baselines beside them, and the report on all of them.

    Raises LungCTError when a fold was trained on other data than `cohort`.
    """
    rows: list[dict[str, object]] = []
    held_out: list[dict[str, Any]] = []
    splits, best = [], []
    for part in fold_runs(options):
        split = split_of(part, cohort)
        record = ModelRepo.open(part.run).provenance
        if record["split"]["hash"] != split.hash:
            raise LungCTError(
                f"The run in {part.run} was trained on another split than the data give now. Fix: bring back the same "
                "data, or start a new cross-validation."
            )
        tested, validated = _rows_of(part, split)
        rows += tested
        if part.split == options.split:
            splits.append(split)
            best.append(int(record["training"]["best_epoch"]))
            held_out += validated
    first = splits[0]
    everything = replace(first, split=np.full(len(cohort), "train", "<U10"), margin=None)
    facts = {
        "protocol": first.protocol,
        "grouping": first.grouping,
        "hash": everything.hash,
        "folds": options.fold_count,
        "seeds": list(options.seeds),
        "fold_hashes": [split.hash for split in splits],
        "groups_crossing": max(split.groups_crossing for split in splits),
        "evidence": "cross-validated",
    }
    report = _report(rows, facts, first.classes)
    report.metrics["evidence"] = {
        "kind": "cross-validated",
        "sentence": SENTENCE,
        "folds": options.fold_count,
        "seeds": list(options.seeds),
        "best_epochs": best,
    }
    return Evidence(rows, held_out, report, everything, statistics.median_high(best))


def write_evidence(evidence: Evidence, folder: Path) -> None:
    """predictions.parquet, metrics.json and the plots, in one step."""
    with folder_in_one_step(folder) as fresh:
        write_predictions(fresh / "predictions.parquet", evidence.rows, evidence.split.classes)
        write_json(fresh / "metrics.json", evidence.metrics)
        write_plots(evidence.report, fresh)


def write_published(
    folder: Path, network: nn.Module, contract: Contract, evidence: Evidence, calibration: Calibration, cohort: Cohort
) -> None:
    """The model repo of weights that saw every slice: its evaluation is that of the folds."""
    fold_into(network, calibration)
    contract = replace(contract, calibration=calibration)
    with folder_in_one_step(folder) as fresh:
        write_json(fresh / "evaluation" / "metrics.json", evidence.metrics)
        write_predictions(fresh / "evaluation" / "predictions.parquet", evidence.rows, evidence.split.classes)
        evidence.split.write_csv(fresh / "evaluation" / "split.csv")
        write_weights(fresh, network, contract, cohort)


def print_evidence(evidence: Evidence, folder: Path) -> None:
    """The pooled figures with their intervals, the baselines beside them."""
    metrics, console = evidence.metrics, Console(highlight=False, soft_wrap=True)
    console.print(f"\n{tables.headline(metrics)}", markup=False)
    console.print("Brackets: 95 % intervals, whole groups resampled. Cases: a group's slices pooled.")
    comparison = [row[1:] for row in tables.comparison_rows(metrics)]
    _show(console, comparison, "balanced accuracy, %", "slices", "cases")
    _show(console, tables.figure_rows(metrics), "the model", "slices", "cases")
    _show(console, tables.class_rows(metrics), *("classes, %", *tables.class_columns(metrics)[1:]))
    if operating := tables.operating_rows(metrics):
        _show(console, operating, tables.operating_title(metrics), "slices", "cases")
    for note in tables.notes(metrics):
        console.print(f"- {note}", markup=False)
    console.print(f"- {SENTENCE}", markup=False)
    console.print(f"Predictions, metrics and plots: {folder}\n", markup=False)


def print_fold(metrics: dict[str, Any]) -> None:
    """One fold's test figure, beside the 1-NN baseline."""
    model, neighbour = metrics["test"], metrics["baselines"]["nearest_neighbour"]
    Console(highlight=False, soft_wrap=True).print(
        f"Test fold: {model['n']} slices, balanced accuracy {model['balanced_accuracy']:.3f} "
        f"(1-NN on thumbnails {neighbour['balanced_accuracy']:.3f})."
    )


def print_end(model: Path, *, pushed: bool) -> None:
    """Where the published model is, and the next two commands."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"Research only. Not a medical device.\n\nModel: {model}\n  show it:  lungct demo {model}", markup=False
    )
    if not pushed:
        console.print(f"  push it:  lungct push {model} YOUR_NAME/lungct", markup=False)


def _show(console: Console, rows: list[tuple[str, ...]], *columns: str) -> None:
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _rows_of(part: Options, split: Split) -> tuple[list[dict[str, Any]], ...]:
    """A fold's test and validation rows, with what tells them from other folds' rows.

    All have their logits from before calibration, also where an older version of the package wrote temperatures.
    """
    table, _, _ = read_predictions(part.run / "model" / "evaluation" / "predictions.parquet")
    kept = [name for name in table.column_names if name in (*SCHEMA.names, *OPTIONAL.names)]
    protocol = split.grouping if split.protocol == "grouped" else split.protocol
    raw = uncalibrated_logits(table)
    if raw is None:
        raise LungCTError(
            f"The run in {part.run} does not store its logits from before calibration. Fix: start a new "
            "cross-validation."
        )
    rows = [
        row | {"protocol": protocol, "seed": part.seed, "raw_logits": before}
        for row, before in zip(table.select(kept).to_pylist(), raw.tolist(), strict=True)
    ]
    return tuple([row for row in rows if row["split"] == side] for side in ("test", "validation"))


def _report(rows: list[dict[str, object]], facts: dict[str, Any], classes: Classes) -> Report:
    """From the rows as they are stored, so that the file gives the same figures again."""
    with tempfile.TemporaryDirectory(prefix="lungct-pool-") as scratch:
        path = Path(scratch) / "predictions.parquet"
        write_predictions(path, rows, classes)
        # Each fold decided by thresholds of its own, which are in the rows; only their common target is not.
        target = Calibration(abstain=AbstainRule(min_confidence=0.0, target_error=TARGET_ERROR))
        return evaluate_predictions(path, split=facts, calibration=target)
