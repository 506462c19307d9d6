"""One prediction run on several processes or machines that share a disk.

    torchrun --nproc_per_node 2 -m lungct_hf.pipeline.sharded DATA --model MODEL --output rows.parquet

Process I of N takes every N-th block of the sources (a file, a member of an archive, a row group of a parquet file)
and keeps its own journal and part beside the output. When a process is killed, the same command goes on: finished
parts are kept, the others continue. The first process joins the parts once all are there. The network runs on ONNX
Runtime's CPU provider; the processes meet over gloo.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from ..cores import cores_per_process
from ..errors import LungCTError, exit_on_error, require
from ..files import check_place, file_in_one_step, publishable, write_json
from ..runtime import LungCT
from .manifest import Tally
from .output import choose_format, write_rows
from .run import Options, finished_manifest, predict_files

_LONGEST = timedelta(days=30)  # that one process may wait for the slowest


def predict_sharded(
    model: LungCT,
    sources: Sequence[str],
    options: Options,
    output: Path,
    rank: int,
    world: int,
) -> Path:
    """Do shard `rank` of `world`, unless an equal run has finished it; returns the part, JSON with one row a line."""
    part = part_of(output, rank, world)
    share = replace(options, output=part, form="json", shard=(rank, world))
    if finished_manifest(model, sources, share) is None:
        predict_files(model, sources, share)
    return part


def part_of(output: Path, rank: int, world: int) -> Path:
    """Where process `rank` of `world` writes its rows."""
    return output.with_name(f"{output.name}.part-{rank:05d}-of-{world:05d}.json")


def join_parts(output: Path, form: str, world: int, command: Sequence[str]) -> dict[str, Any]:
    """Write the rows of all parts to `output` and remove the parts; returns the manifest.

    Raises LungCTError when a part is missing, has not the number of rows that its manifest states, or is a share of
    other files than the first.
    """
    parts = [part_of(output, rank, world) for rank in range(world)]
    manifests = []
    for part in parts:
        try:
            manifests.append(json.loads(_manifest_of(part).read_text(encoding="utf-8")))
        except OSError as error:
            raise LungCTError(f"{part.name} is not finished. Fix: give the same command again.") from error
    if len({manifest["listing"] for manifest in manifests}) > 1:
        raise LungCTError(
            "The files were changed while the processes listed them, so some slices are in two parts, some in none. "
            "Fix: give the same command again; the parts that do not fit are made anew."
        )
    tally, classes = Tally(), manifests[0]["run"]["classes"]
    with file_in_one_step(output) as handle:
        write_rows(tally.of(row for part in parts for row in _rows(part)), form, handle, classes)
        expected = sum(manifest["rows"] for manifest in manifests)
        if tally.decisions.total() != expected:
            raise LungCTError(
                f"The parts hold {tally.decisions.total():,} rows and their manifests state {expected:,}. Fix: delete "
                f"{output.name}.part-* and start anew."
            )
    of_model = ("model", "revision", "identity", "backend", "worth", "note", "versions")
    shared = {name: manifests[0][name] for name in of_model}
    whole = {**shared, "command": publishable(command), "processes": world, **tally.to_json(), "parts": manifests}
    write_json(_manifest_of(output), whole)
    for part in parts:
        part.unlink()
        _manifest_of(part).unlink()
    return whole


def _manifest_of(output: Path) -> Path:
    return output.with_name(f"{output.name}.manifest.json")


def _rows(part: Path) -> Iterator[dict[str, Any]]:
    with part.open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("{"):
                yield json.loads(line.rstrip().rstrip(","))


def run(
    sources: Annotated[list[str], typer.Argument(help="As those of `lungct predict`.")],
    model: Annotated[str, typer.Option("--model", "-m", help="A model directory, OWNER/NAME or OWNER/NAME@REVISION.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="On a disk that all processes see.")],
    form: Annotated[str | None, typer.Option("--format", help="csv, json or parquet.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Answer for refused slices too.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, max=4096, help="Slices answered and saved at once.")] = 32,
    workers: Annotated[int | None, typer.Option(min=1, help="Reader processes of each process.")] = None,
) -> None:
    """Answer for slices on every process that torchrun or accelerate has started."""
    output = output.resolve()  # a link stays one
    check_place(output)
    chosen = choose_format(form, output)
    rank, world, wait = _group()
    share = cores_per_process()
    loaded = LungCT.from_pretrained(model, threads=share)
    options = Options(force=force, batch_size=batch_size, workers=workers or share)
    predict_sharded(loaded, sources, options, output, rank, world)
    wait()
    if rank == 0:
        whole = join_parts(output, chosen, world, ["lungct_hf.pipeline.sharded", *sys.argv[1:]])
        typer.echo(f"{whole['rows']:,} rows of {world} processes: {output}", err=True)
        typer.echo("\n".join(filter(None, [loaded.worth, loaded.note])), err=True)
    wait()


def _group() -> tuple[int, int, Any]:
    """(rank, processes, barrier); one process where nothing has started several."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0, 1, lambda: None
    require("accelerate", "train")
    from accelerate import PartialState

    # Answers come from ONNX Runtime on the CPU; the processes only wait for each other.
    state = PartialState(cpu=True, timeout=_LONGEST)
    return state.process_index, state.num_processes, state.wait_for_everyone


def main() -> None:
    """The entry of `python -m lungct_hf.pipeline.sharded`."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(run)
    with exit_on_error():
        app()


if __name__ == "__main__":
    main()
