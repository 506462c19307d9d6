"""One whole run of `lungct predict`: list, answer, assemble, describe."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from ..cores import usable_cores
from ..errors import UsageError
from ..files import file_in_one_step, publishable, write_json
from ..runtime import LungCT
from ..runtime.prediction import Prediction
from ..slices.listing import printable
from ..slices.report import SENTENCES
from ..slices.series import SeriesChoice
from .job import identity_of, run_job
from .journal import Journal
from .manifest import Tally, versions
from .output import choose_format, flat, write_rows
from .progress import RunProgress
from .units import Unit, list_units

_UNITS_A_READER = 16  # fewer are read before another process has started


@dataclass(frozen=True)
class Options:
    """How to run; `shard` is (I, N): of every N blocks of the sources (a file, a row group of a table) the I-th."""

    output: Path | None = None
    form: str | None = None
    cam: Path | None = None
    force: bool = False
    study: bool = False
    series: SeriesChoice | None = None
    hu_offset: float | None = None
    batch_size: int = 32
    workers: int | None = None
    shard: tuple[int, int] | None = None


def predict_files(
    model: LungCT, sources: Sequence[str], options: Options, command: Sequence[str] = ()
) -> dict[str, Any]:
    """Answer all slices of `sources` and write them to `options.output`, or stdout; returns the manifest.

    With an output, what is done is kept in OUTPUT.journal until the end, and an equal call goes on from there; the
    manifest is OUTPUT.manifest.json.

    Raises UsageError and LungCTError as `list_units`, `choose_format` and `Journal` do.
    """
    form = choose_format(options.form, options.output)
    started = datetime.now(UTC)
    groups, listing = _groups(sources, options)
    units = [unit for group in groups for unit in group]
    output = options.output
    with tempfile.TemporaryDirectory() if output is None else nullcontext(str(output.parent)) as folder:
        place = Path(folder) / ("journal" if output is None else f"{output.name}.journal")
        journal = Journal(place, _header(model, options))
        try:
            resumed = sum(journal.rows.values())
            readers = options.workers or max(1, min(usable_cores(), len(units) // _UNITS_A_READER))
            with RunProgress(len(units), len(journal.done)) as progress:
                made = run_job(
                    model,
                    units,
                    journal,
                    readers=readers,
                    batch_size=options.batch_size,
                    force=options.force,
                    series=options.series,
                    hu_offset=options.hu_offset,
                    cam=options.cam,
                    on_rows=progress.advance,
                )
            tally = Tally()
            rows = _in_order(model, journal, units, groups, sources, options, tally)
            _write(_shaped(rows, form, options.study, model.labels), form, output, model.labels)
            seconds = progress.seconds
            manifest = {
                "model": model.name,
                "revision": model.revision,
                "identity": identity_of(model),
                "backend": model.backend,
                "worth": model.worth,
                "note": model.note,
                "versions": versions(),
                "command": publishable(command),
                "run": _header(model, options),
                "listing": listing,
                "started": started.isoformat(timespec="seconds"),
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                "sources": len(sources),
                "units": len(units),
                "several_series": {source: found for source, found in tally.studies.items() if len(found) > 1},
                **tally.to_json(),
                "rows_before": resumed,
                "seconds": round(seconds, 2),
                "rows_per_second": round(made / seconds, 2) if seconds else None,
                "readers": readers,
                "batch_size": options.batch_size,
                "format": form,
            }
            if output is not None:
                write_json(output.with_name(f"{output.name}.manifest.json"), manifest)
            journal.close(remove=True)
        finally:
            journal.close()
    return manifest


def finished_manifest(model: LungCT, sources: Sequence[str], options: Options) -> dict[str, Any] | None:
    """The manifest beside `options.output` if that is of an equal run on unchanged files, else None."""
    if options.output is None or not options.output.is_file():
        return None
    try:
        content = options.output.with_name(f"{options.output.name}.manifest.json").read_text(encoding="utf-8")
        manifest: dict[str, Any] = json.loads(content)
    except (OSError, ValueError):
        return None
    listing = _groups(sources, options)[1]
    same = manifest.get("run") == _header(model, options) and manifest.get("listing") == listing
    return manifest if same else None


def _groups(sources: Sequence[str], options: Options) -> tuple[list[list[Unit]], str]:
    """What is to be read, source by source, and a hash of what all shards are to read: names, sizes, times of change.

    Raises UsageError for a study that an earlier one holds: its rows would be those of the other.
    """
    groups = list_units(sources)
    if options.cam is not None:  # pictures that the run itself, or the one it goes on with, has put there
        inside = os.path.join(os.path.realpath(options.cam), "")
        groups = [[unit for unit in group if not os.path.realpath(unit.path).startswith(inside)] for group in groups]
    if options.study and (empty := [source for source, group in zip(sources, groups, strict=True) if not group]):
        raise UsageError(f"The study {printable(empty[0])} is part of an earlier one. Fix: name each study once.")
    digest = hashlib.sha256()
    for group in groups:
        for unit in group:
            digest.update(unit.key.encode())
    return groups if options.shard is None else _shard(groups, *options.shard), digest.hexdigest()


def _header(model: LungCT, options: Options) -> dict[str, Any]:
    """What an equal run has in common."""
    return {
        "journal": 2,
        "model": identity_of(model),
        "classes": list(model.labels),
        "backend": model.backend,
        "versions": versions(),
        "force": options.force,
        "cam": options.cam is not None,
        "series": options.series and options.series.text,
        "hu_offset": options.hu_offset,
        "shard": options.shard and list(options.shard),
    }


def _in_order(
    model: LungCT,
    journal: Journal,
    units: Sequence[Unit],
    groups: Sequence[Sequence[Unit]],
    sources: Sequence[str],
    options: Options,
    tally: Tally,
) -> Iterator[dict[str, Any]]:
    """The rows in the order of the units, or one `Study.to_json` for each scan of each source, with `file`."""
    rows = journal.in_order(units)
    if not options.study:
        yield from tally.of(row for _, row in rows)  # type: ignore[misc]
        return
    source_of = [number for number, group in enumerate(groups) for _ in group]
    for source, found in groupby(rows, key=lambda entry: source_of[entry[0]]):
        slices = [Prediction.from_json(row, model.labels) for _, row in found]
        studies = model.studies(slices, options.series)
        for number, study in enumerate(studies, 1):
            several = f"Series {number} of {len(studies)}: {study.title or 'pictures'}." if len(studies) > 1 else ""
            why = SENTENCES.get(study.reason or "") if study.label is None else None
            case = {"file": printable(sources[source]), "frame": None} | study.to_json()
            case["warnings"] = ["several-series"] if several else []
            case["detail"] = " ".join(filter(None, (several, why))) or None
            for _ in tally.of(case["slices"]):
                pass
            yield case
        tally.studies[printable(sources[source])] = [study.title or "pictures" for study in studies]


def _shaped(
    rows: Iterable[dict[str, Any]], form: str, study: bool, classes: Sequence[str]
) -> Iterable[dict[str, Any]]:
    return (row for case in rows for row in flat(case, classes)) if study and form != "json" else rows


def _write(rows: Iterable[dict[str, Any]], form: str, output: Path | None, classes: Sequence[str]) -> None:
    if output is None:
        write_rows(rows, form, sys.stdout.buffer, classes)
        sys.stdout.buffer.flush()
    else:
        with file_in_one_step(output) as handle:
            write_rows(rows, form, handle, classes)


def _shard(groups: Sequence[Sequence[Unit]], index: int, count: int) -> list[list[Unit]]:
    """The share of process `index` of `count`: whole files and row groups of tables in turn."""
    if not 0 <= index < count:
        raise UsageError(f"Shard {index}/{count} is none: I/N needs I from 0 to N-1.")
    blocks: dict[tuple[str, int, int], int] = {}
    share = []
    for group in groups:
        mine = []
        for unit in group:
            # The members of an archive are blocks of their own: every process finds its way in it quickly.
            block = (unit.path, unit.group, unit.place if unit.kind == "member" else 0)
            if blocks.setdefault(block, len(blocks)) % count == index:
                mine.append(unit)
        share.append(mine)
    return share
