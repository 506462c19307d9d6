"""`lungct evaluate`: recompute a model's figures from its stored predictions, or predict again and judge those."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..classes import HELP as CLASSES
from ..errors import LungCTError, UsageError, require
from ..files import write_json
from .external import judge_elsewhere, show_external

if TYPE_CHECKING:
    from rich.console import Console

    from ..classes import Classes
    from ..cohort import Cohort
    from ..evaluation import Report


def evaluate(
    model: Annotated[str, typer.Option("--model", "-m", help="A run, a model directory, or OWNER/NAME[@REVISION].")],
    data: Annotated[
        str | None,
        typer.Option(
            help="Predict these slices again: a folder, a parquet file or a Hub data set. Default: the predictions "
            "that the model stores."
        ),
    ] = None,
    split: Annotated[
        Path | None, typer.Option(help="With --data: a split manifest; only its test slices are judged.")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(help=f"With --data: which of the model's classes the data's names mean, as {CLASSES}."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="With --data: table of labels by file, SOP instance, series, study or patient.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write metrics.json, plots and report.html to this folder.")
    ] = None,
    grouping: Annotated[
        str | None, typer.Option(help="With --data: what forms a group, e.g. linked or column:NAME.")
    ] = None,
    on_bad_file: Annotated[str, typer.Option(help="With --data: refuse or skip unreadable files.")] = "refuse",
    replicates: Annotated[int, typer.Option(min=100, help="Bootstrap draws behind the intervals.")] = 2000,
    as_json: Annotated[bool, typer.Option("--json", help="Print metrics.json instead of the tables.")] = False,
    external: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=DATA: test the model on slices that it was not made from, and store the outcome with it."
        ),
    ] = None,
    external_classes: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE.yaml: what that set's classes are for the model (docs/data.md)."),
    ] = None,
) -> None:
    """Judge a model: grouped and image-level figures with intervals, beside what no learning reaches."""
    if external or external_classes:
        beside = {"--data": data, "--output": output} | {"--split": split, "--labels": labels}
        beside |= {"--classes": classes, "--grouping": grouping}
        if alone := [flag for flag, value in beside.items() if value is not None]:
            raise UsageError(
                f"{' and '.join(alone)} and --external are two calls. Fix: first test elsewhere with --external, "
                "which stores the outcome with the model; later calls show it."
            )
        judge_elsewhere(model, external or [], external_classes or [], on_bad_file, replicates, as_json=as_json)
        return
    of_data = {"--split": split, "--grouping": grouping, "--classes": classes, "--labels": labels}
    if data is None and (alone := [flag for flag, value in of_data.items() if value is not None]):
        raise UsageError(f"{' and '.join(alone)} belong to --data. Fix: name the data set as well.")
    if split is not None and grouping is not None:
        raise UsageError("A split manifest has its own groups. Fix: leave --grouping out.")
    if output is not None and output.is_file():
        raise UsageError(f"{output} is a file; --output needs a folder.")
    require("pyarrow", "train")
    require("sklearn", "train")
    if output is not None:
        require("matplotlib", "train")
    from rich.console import Console

    if data is None:
        report, name, differences, elsewhere = _stored(model, replicates)
        cohort, source = None, None
    else:
        wanted: dict[str, Any] = {"grouping": grouping, "on_bad_file": on_bad_file, "progress": not as_json}
        wanted |= {"labels": None if labels is None else str(labels)}
        report, name, cohort = _fresh(model, data, split, classes, replicates, wanted)
        differences, source, elsewhere = None, cohort.source, None
    if output is not None:
        _write(report, output, name, source, cohort, elsewhere)
    if as_json:
        shown = report.metrics | ({"external": elsewhere} if elsewhere else {})
        typer.echo(json.dumps(shown, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        console = Console(highlight=False)
        _show(console, report.metrics, name, source, differences)
        if elsewhere is not None:
            show_external(console, elsewhere)
        if output is not None:
            typer.echo(f"Wrote {output / 'report.html'}, metrics.json and plots.")
    if differences:
        raise LungCTError(
            f"The figures stored with the model do not follow from its predictions: {'; '.join(differences[:3])}"
            f"{', ...' if len(differences) > 3 else ''}. Fix: do not rely on its metrics.json; evaluate it again."
        )


def _stored(model: str, replicates: int) -> tuple[Report, str, list[str] | None, dict[str, Any]]:
    """The report from a model's own predictions, where its metrics.json says something else (None: has none), and its
    tests on other data."""
    from ..evaluation import evaluate_predictions
    from ..evaluation.differences import differences
    from ..evaluation.external import problems, sets_of
    from ..hub.model_repo import EVIDENCE_FILES, LUNGCT, PREDICTIONS, ModelRepo

    repo = ModelRepo.open(model, files=EVIDENCE_FILES)
    if not repo.has(PREDICTIONS):
        raise LungCTError(f"{repo.name} stores no predictions ({PREDICTIONS}). Fix: predict again with --data DATA.")
    stored = repo.metrics or {}
    seed = (stored.get("bootstrap") or {}).get("seed", 0)
    report = evaluate_predictions(
        repo.file(PREDICTIONS),
        split=stored.get("split"),
        # Folds that no model was trained after have figures, and no contract.
        calibration=repo.contract.calibration if repo.has(LUNGCT) else None,
        headline=stored.get("protocol"),
        replicates=replicates,
        seed=seed,
    )
    same_draws = stored.get("bootstrap") == report.metrics["bootstrap"]
    wrong = differences(stored, report.metrics, intervals=same_draws) if stored else None
    if elsewhere := [sentence for _, sentence in problems(repo)]:
        wrong = [*(wrong or []), *elsewhere]
    return report, repo.name, wrong, {} if elsewhere else sets_of(repo)


def _fresh(
    model: str,
    data: str,
    manifest: Path | None,
    asked: str | None,
    replicates: int,
    wanted: dict[str, Any],
) -> tuple[Report, str, Cohort]:
    """The report from predicting `data` now. Groups that the model was trained on are left out and counted.

    `asked` is what --classes says; `wanted` are the other arguments of load_cohort.
    """
    require("torch", "train")
    from ..cohort import Split, load_cohort, make_split
    from ..evaluation import evaluate_predictions, read_predictions, write_predictions
    from ..evaluation.predict import known_slices, prediction_rows
    from ..hub.model_repo import SPLIT
    from ..runtime.classifier import LungCTClassifier

    classifier = LungCTClassifier.from_pretrained(model)
    repo = classifier.repo
    assert repo is not None  # it was loaded from somewhere
    contract, progress = repo.contract, wanted["progress"]
    cohort = load_cohort(data, classes=asked or contract.classes, window=contract.window, **wanted)
    cohort = _in_classes_of(contract.classes, cohort)
    split = make_split(cohort, str(manifest)) if manifest is not None else None
    own = Split.read(repo.file(SPLIT), repo.classes) if repo.has(SPLIT) else None
    seen, known = known_slices(cohort, split, own) if own else (set(), set())
    calibration = contract.calibration
    rows = prediction_rows(classifier, cohort, split, known, calibration, progress=progress)
    left_out = [row["sha256"] for row in rows if row["split"] == "seen"]
    same = sum(sha in seen for sha in left_out)
    if len(left_out) == len(rows):
        raise LungCTError(
            f"All {len(rows)} slices are of groups that were used to train or choose this model ({same} have the same "
            f"bytes), so there is nothing to judge it on. Fix: other data, or --split split.csv of the model for its "
            "own test slices."
        )
    facts: dict[str, Any] = {"protocol": "external", "grouping": cohort.grouping, "groups_crossing": None}
    if split is not None:
        facts = {"protocol": split.protocol, "grouping": split.grouping, "hash": split.hash}
        facts["groups_crossing"] = split.groups_crossing
    with tempfile.TemporaryDirectory(prefix="lungct-evaluate-") as scratch:
        path = Path(scratch) / "predictions.parquet"
        write_predictions(path, rows, cohort.classes)
        report = evaluate_predictions(
            read_predictions(path)[0], split=facts, calibration=calibration, replicates=replicates
        )
    report.metrics["model"] = classifier.name
    report.metrics["data"] = {"source": cohort.source, "fingerprint": cohort.fingerprint(), "slices": len(cohort)}
    report.metrics["seen_in_training"] = same
    report.metrics["other_slices_of_seen_groups"] = len(left_out) - same
    report.metrics["training_slices_known"] = own is not None
    return report, classifier.name, cohort


def _in_classes_of(classes: Classes, cohort: Cohort) -> Cohort:
    """The cohort with its labels as numbers of the model's classes. Raises UsageError for one that the model lacks."""
    import numpy as np

    if cohort.classes.names == classes.names:
        return replace(cohort, classes=classes)
    means = {name: classes.find(name) for name in cohort.classes}
    if unknown := [name for name, label in means.items() if label is None]:
        raise UsageError(
            f'The model does not know the class "{unknown[0]}"; it tells {", ".join(classes)} apart. Fix: say which '
            f'of them it is, for example --classes "{unknown[0]} -> {classes[0]}; ...".'
        )
    number = np.array([classes.index(str(label)) for label in means.values()])
    return replace(cohort, classes=classes, labels=number[cohort.labels])


def _write(
    report: Report,
    folder: Path,
    name: str,
    source: str | None,
    cohort: Cohort | None,
    elsewhere: dict[str, Any] | None,
) -> None:
    from ..evaluation.contact_sheet import write_contact_sheet
    from ..evaluation.page import write_page
    from ..evaluation.plots import write_plots

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "metrics.json", report.metrics)
    if elsewhere:
        write_json(folder / "external.json", elsewhere)
    pictures = write_plots(report, folder)
    if cohort is not None:
        place = {str(key): row for row, key in enumerate(cohort.ids.tolist())}
        sheet = write_contact_sheet(report, lambda key: cohort.read(place[key]), folder / "worst_errors.png")
        pictures += [sheet] if sheet else []
    write_page(report, pictures, folder / "report.html", model=name, data=source, external=elsewhere)


def _show(
    console: Console, metrics: dict[str, Any], name: str, source: str | None, differences: list[str] | None
) -> None:
    """The tables; 80 columns are enough for them."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from ..evaluation import tables

    def show(title: str, rows: list[tuple[str, ...]], *columns: str) -> None:
        console.print(Text(title, "bold"))  # a title of the table would be broken to its width
        table = Table(*columns, box=box.SIMPLE_HEAD)
        table.pad_edge, table.padding = False, (0, 1, 0, 0)
        for row in rows:
            table.add_row(*row)
        console.print(table)

    console.print(f"{name}{f' on {source}' if source else ''}", markup=False)
    console.print(tables.headline(metrics), markup=False)
    console.print("[dim]Brackets: 95 % intervals, whole groups resampled. Cases: a group's slices pooled.[/dim]")
    protocol = metrics["protocol"]
    show("Balanced accuracy, %", tables.comparison_rows(metrics), "protocol", "answers by", "slices", "cases")
    if gap := tables.gap_rows(metrics):
        show(f"Leak gap: image-level minus {protocol}, points", gap, "answers by", "balanced accuracy", "accuracy")
    show(f"The model, {protocol}", tables.figure_rows(metrics), "", "slices", "cases")
    show("Classes, %", tables.class_rows(metrics), *tables.class_columns(metrics))
    if operating := tables.operating_rows(metrics):
        show(f"Operating points: {tables.operating_title(metrics)}", operating, "", "slices", "cases")
    for note in tables.notes(metrics):
        console.print(f"- {note}", markup=False)
    if differences == []:
        console.print("The figures stored with the model follow from its predictions.")
