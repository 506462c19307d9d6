"""From a run to the folder that is published: copied, every figure and picture made again from the predictions."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..contract import Contract
from ..errors import UsageError
from ..files import write_atomic, write_json
from ..hub import write_card, write_eval_results
from ..hub.folder import list_files, refuse_links
from . import content, evidence
from .canaries import Canaries, deviations, draw_canaries, images_of, read_canaries, write_canaries
from .evidence import Evidence
from .loaders import score
from .reasons import Reason
from .record import (
    CHANGELOG,
    CONTRACT,
    Record,
    content_hash,
    file_hashes,
    read_json,
    record_of,
    sha256_of,
    write_record,
)

_NEEDED = ("config.json", "lungct.json", "model.safetensors")


@dataclass(frozen=True, eq=False)
class Prepared:
    """`folder` holds what would be published, without release record, changelog and final card. `reasons` are what the
    gate found in the run itself; `content` names the run's content."""

    folder: Path
    evidence: Evidence
    canaries: Canaries
    content: str
    weights: str
    reasons: list[Reason]


def model_of(run: Path) -> Path:
    """The model directory of a run. Raises UsageError when there is none."""
    model = run / "model" if not (run / "config.json").is_file() and (run / "model").is_dir() else run
    missing = [name for name in _NEEDED if not (model / name).is_file()]
    if missing:
        raise UsageError(
            f"{run} is not a run with a model: it lacks {', '.join(missing)}. Fix: name a run (runs/NAME)."
        )
    return model


def inspect(run: Path, *, token: str | None = None) -> tuple[Evidence, list[Reason]]:
    """The evidence of `run` recomputed, and what speaks against its files as they are; writes nothing.

    Raises LungCTError when the evidence is missing or cannot be read, UsageError when `run` is no run.
    """
    model = model_of(run)
    files = list_files(model)
    refuse_links(model, files)
    found = evidence.read_evidence(model)
    ids = [str(value) for column in ("id", "group") for value in found.table[column].to_pylist()]
    ids += [*found.split.ids.tolist(), *found.split.groups.tolist()]
    reasons = content.pickles(files) + content.secrets(files, token) + content.patient_data(files, ids)
    reasons += evidence.manifest_reasons(found) + evidence.metrics_reasons(found) + evidence.rule_reasons(found)
    reasons += evidence.card_reasons(model, [(record_of(model) or {}).get("repo")])
    return found, reasons + evidence.eval_results_reasons(model)


def prepare(run: Path, scratch: Path, *, token: str | None = None) -> Prepared:
    """Copy the model of `run` into `scratch` and rebuild what follows from its predictions; `run` is not touched.

    Raises as `inspect` does.
    """
    found, reasons = inspect(run, token=token)
    folder = scratch / "model"
    for name, path in list_files(model_of(run)).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    if "release" in read_json(folder / CONTRACT):
        _without_release(folder)
    _rebuild(folder, found)
    canaries, disagreements = _canaries(folder)
    reasons += [Reason("loader-mismatch", sentence) for sentence in disagreements]
    weights = sha256_of(folder / "model.safetensors")
    return Prepared(folder, found, canaries, content_hash(folder), weights, reasons)


def seal(prepared: Prepared, record: Record, changelog: str, repo_id: str) -> None:
    """Write the release record, the changelog and the final card into the prepared folder."""
    write_record(prepared.folder, record | {"files": file_hashes(prepared.folder)})
    write_atomic(prepared.folder / CHANGELOG, changelog)
    write_card(prepared.folder, repo_id)


def _without_release(folder: Path) -> None:
    """A released model may be released again; what its former release said about itself is not part of it."""
    contract = read_json(folder / CONTRACT)
    del contract["release"]
    write_json(folder / CONTRACT, contract)
    (folder / CHANGELOG).unlink(missing_ok=True)


def _rebuild(folder: Path, found: Evidence) -> None:
    from ..evaluation.plots import write_plots

    write_json(folder / "evaluation" / "metrics.json", found.metrics)
    write_plots(found.report, folder / "evaluation")
    write_eval_results(folder)
    write_card(folder)


def _canaries(folder: Path) -> tuple[Canaries, list[str]]:
    """Draw the canaries, write them with the logits of the first loader, and say which loaders disagree."""
    files = draw_canaries(Contract.read(folder))
    answers = score(folder, images_of(files))
    golden = next((value for value in answers.values() if not isinstance(value, str)), None)
    if golden is None:
        golden = np.zeros((len(files), 3), np.float32)
    shutil.rmtree(folder / "canaries", ignore_errors=True)
    write_canaries(folder, files, golden)
    return read_canaries(folder), deviations(answers, golden)
