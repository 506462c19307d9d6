"""`lungct predict`: answers for files, folders, archives, tables and data sets on the Hub, restartable."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import LungCTError, UsageError, disk_error
from ..files import check_place

if TYPE_CHECKING:
    from ..pipeline.run import Options


def predict(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Files, patterns, folders, zip archives, parquet files, or Hub data sets OWNER/NAME[@REVISION]."
        ),
    ],
    model: Annotated[
        str, typer.Option("--model", "-m", help="A run, a model directory, OWNER/NAME or OWNER/NAME@REVISION.")
    ],
    form: Annotated[
        str | None,
        typer.Option("--format", help="table, csv, json or parquet. Default: what --output ends in, else table."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write; only then can a stopped run go on.")
    ] = None,
    cam: Annotated[
        Path | None, typer.Option(help="A folder for pictures of what spoke for each slice's class.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Answer for slices that are refused or from elsewhere; mark them.")
    ] = False,
    study: Annotated[
        bool, typer.Option("--study", help="Each source is one study: its slices in scan order, a decision a series.")
    ] = False,
    series: Annotated[
        str | None,
        typer.Option(
            help="Of a --study, decide only by this: the start of a series' UID or key, a part of its description, or "
            "largest."
        ),
    ] = None,
    hu_offset: Annotated[
        float | None,
        typer.Option(
            "--hu-offset",
            help="Pictures of 16 or 32 bits, .npy files, and volumes without a sign hold HU plus this: 1024, or 0.",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=4096, help="Slices answered and saved at once.")] = 32,
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Reader processes. Default: the cores.")] = None,
    shard: Annotated[
        str | None, typer.Option(help="I/N: do only the I-th (from 0) of N shares; each needs its own --output.")
    ] = None,
    backend: Annotated[str, typer.Option(help="auto, onnx or torch.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Cores for the network. Default: all.")] = None,
) -> None:
    """Answer for slices. A bad file is a row with its reason. Research only, never a diagnosis.

    A run with --output that was stopped, or killed, goes on when the same command is given again.
    Exit codes: 0 done, however many files were bad; 1 failed; 2 wrong call.
    """
    options = _options(output, form, cam, force, study, series, hu_offset, batch_size, workers, shard)
    from ..pipeline.run import predict_files
    from ..runtime import LungCT

    loaded = LungCT.from_pretrained(model, backend=backend, threads=threads)
    try:
        manifest = predict_files(loaded, sources, options, ["lungct", *sys.argv[1:]])
    except KeyboardInterrupt:
        if output is not None:
            typer.echo(f"What is done is kept in {output}.journal: the same command goes on from there.", err=True)
        raise
    except BrokenPipeError:  # `| head` has seen enough
        sys.stdout = None  # nothing more is flushed into the closed pipe
        raise typer.Exit(1) from None
    except OSError as error:
        raise disk_error(error) or LungCTError(
            f"{error.filename or output or 'The output'}: {error.strerror or error}."
        ) from error
    counts = ", ".join(f"{count:,} {name}" for name, count in manifest["decisions"].items())
    before = f", {manifest['rows_before']:,} of them before" if manifest["rows_before"] else ""
    typer.echo(
        f"{manifest['rows']:,} rows{before}: {counts or 'none'}. {manifest['rows_per_second']:.1f} slices/s.", err=True
    )
    for source, found in manifest["several_series"].items():
        named = "; ".join(found[:8]) + (f"; and {len(found) - 8} more" if len(found) > 8 else "")
        typer.echo(f"{source}: {len(found)} series, a decision for each ({named}). --series chooses one.", err=True)
    bad = manifest["decisions"].get("error", 0)
    if bad:
        typer.echo(f"{bad:,} files or slices could not be read; their rows say why.", err=True)
    from ..decision import WHAT_TO_DO
    from ..guard import UNLIKE_SOURCE

    if far := manifest["reasons"].get(UNLIKE_SOURCE, 0):
        told = "answered only because of --force, and marked" if force else "not answered"
        typer.echo(
            f"{far:,} slices are from outside the training source, {told}. {WHAT_TO_DO[UNLIKE_SOURCE]}", err=True
        )
    typer.echo(loaded.worth, err=True)
    if loaded.note:
        typer.echo(loaded.note, err=True)
    if output is not None:
        typer.echo(f"written: {output}", err=True)


def _options(
    output: Path | None,
    form: str | None,
    cam: Path | None,
    force: bool,
    study: bool,
    series: str | None,
    hu_offset: float | None,
    batch_size: int,
    workers: int | None,
    shard: str | None,
) -> Options:
    from ..pipeline.run import Options
    from ..slices.series import SeriesChoice

    if series is not None and not study:
        raise UsageError("--series chooses by which scan a --study is decided. Fix: add --study.")

    if output is not None:
        if output.is_dir():
            raise UsageError(f"{output} is a folder; a file name is needed, for example {output / 'rows.csv'}.")
        output = output.resolve()  # a link stays one
        check_place(output)
    if cam is not None and cam.exists() and not cam.is_dir():
        raise UsageError(f"--cam {cam} is a file; a folder is needed.")
    share = None
    if shard is not None:
        match = re.fullmatch(r"(\d+)/(\d+)", shard)
        if match is None or not int(match[1]) < int(match[2]):
            raise UsageError(f"--shard {shard!r} is none: I/N needs I from 0 to N-1, for example 0/4.")
        if study:
            raise UsageError("--shard would tear a --study apart. Fix: give each process its own studies.")
        share = int(match[1]), int(match[2])
    if hu_offset is not None and not math.isfinite(hu_offset):
        raise UsageError("--hu-offset is no number; 1024, 0 or another number of HU is needed.")
    choice = SeriesChoice.parse(series)
    return Options(output, form, cam, force, study, choice, hu_offset, batch_size, workers, share)
