"""`lungct audit`: look for copies, leaks and shortcuts in a data set before anything is trained on it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..classes import HELP as CLASSES
from ..errors import LungCTError, RefusedError, UsageError


class OnBadFile(StrEnum):
    """What to do with files that are no readable slices."""

    refuse = "refuse"
    skip = "skip"


def audit(
    data: Annotated[str, typer.Argument(help="A folder or zip archive of slices, parquet, or a Hub id.")],
    json: Annotated[Path | None, typer.Option(help="Write all figures and warnings to this file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write one page with pictures that opens offline.")] = None,
    classes: Annotated[str | None, typer.Option(help=f"Classes: {CLASSES}. Default: as the data say.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Table of labels by file, series, study or patient.")] = None,
    slices: Annotated[str, typer.Option(help="Of volumes: all, positions like 0.2-0.8, or listed.")] = "all",
    window: Annotated[str | None, typer.Option(help="CENTRE,WIDTH in HU for DICOM and NIfTI.")] = None,
    group_column: Annotated[str | None, typer.Option(help="Column of patients. Default: found or guessed.")] = None,
    on_bad_file: Annotated[OnBadFile, typer.Option(help="What to do with unreadable files.")] = OnBadFile.refuse,
    seed: Annotated[int, typer.Option(help="Seed of the probes' random splits.")] = 0,
    folds: Annotated[int, typer.Option(help="Folds of the probes.")] = 5,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 if there are warnings.")] = False,
) -> None:
    """Look for copies, leaks between splits and shortcuts in a data set.

    Exit codes: 0 done, with warnings or without; 1 the data cannot be read; 2 wrong call; 3 warnings and --strict.
    """
    for path in (json, html):
        if path is not None and path.is_dir():
            raise UsageError(f"{path} is a folder; a file name is needed, for example {path / 'audit.json'}.")
    if json is not None and html is not None and json.resolve() == html.resolve():
        raise UsageError(f"--json and --html both name {json}. Fix: give them two names.")
    from rich.console import Console

    from ..audit.page import render_page
    from ..audit.report import audit_data
    from ..audit.terminal import show
    from ..files import write_atomic, write_json
    from ..slices.window import Window

    found = audit_data(
        data,
        classes=classes,
        labels=None if labels is None else str(labels),
        slices=slices,
        window=None if window is None else Window.parse(window),
        group_column=group_column,
        on_bad_file=on_bad_file.value,
        seed=seed,
        folds=folds,
    )
    try:
        if json is not None:
            write_json(json, found.to_dict())
        if html is not None:
            write_atomic(html, render_page(found))
    except OSError as error:
        raise LungCTError(f"The report cannot be written to {error.filename}: {error.strerror or error}.") from error
    console = Console(highlight=False, emoji=False, markup=False)
    console.width = min(console.width, 80)
    show(found, console)
    for path in filter(None, (json, html)):
        typer.echo(f"written: {path}")
    if strict and found.warnings:
        codes = ", ".join(warning.code for warning in found.warnings)
        raise RefusedError(f"--strict: the audit of {found.figures['data']['source']} has warnings: {codes}.")
