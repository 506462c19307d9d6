"""`lungct export`: write the ONNX files of a finished run anew, checked against torch on real slices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from ..errors import UsageError, require


def export(
    run: Annotated[Path, typer.Argument(help="A run (runs/NAME) or the model directory in it.")],
    data: Annotated[
        str | None,
        typer.Option(help="The slices of the run: torch and ONNX Runtime are compared on them. Required."),
    ] = None,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Try onnx/model_int8.onnx too; it is kept if balanced accuracy drops by less than a point and it is "
            "really faster here.",
        ),
    ] = False,
    on_bad_file: Annotated[str, typer.Option(help="refuse or skip unreadable files in --data.")] = "refuse",
) -> None:
    """Write onnx/model.onnx into a finished run's model: for LungCT, for ONNX Runtime elsewhere, for a browser."""
    from ..hub import ModelRepo

    repo = ModelRepo.in_folder(run)
    model = repo.path
    if data is None:
        raise UsageError(
            "An export is checked on slices, and none were named. Fix: --data with the data of the run (of a run on "
            "phantoms: --data RUN/phantoms)."
        )
    if on_bad_file not in ("refuse", "skip"):
        raise UsageError(f"--on-bad-file must be refuse or skip, got {on_bad_file!r}.")
    require("torch", "train")
    require("onnx", "train")
    from ..cohort import load_cohort
    from ..fit.onnx_files import export_again, slices_for_int8

    skip = cast(Literal["refuse", "skip"], on_bad_file)
    contract = repo.contract
    cohort = load_cohort(data, classes=contract.classes, window=contract.window, on_bad_file=skip, progress=True)
    record = export_again(model, cohort, slices_for_int8(model, cohort) if int8 else None)
    parity = record["parity"]
    typer.echo(
        f"{model / record['file']}: {record['bytes'] / 1e6:.1f} MB, opset {record['opset']}; on {parity['slices']} "
        f"slices the logits differ from torch's by at most {parity['largest_difference']['logits']:.1e}."
    )
    if int8:
        typer.echo(record["int8"]["sentence"])
