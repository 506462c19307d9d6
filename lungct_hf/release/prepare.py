"""From a run to the folder that is published: copied, every figure and picture made again from the predictions."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..files import sha256_of, write_atomic, write_json
from ..hub import write_card, write_eval_results
from ..hub.folder import refuse_links
from ..hub.model_repo import CHANGELOG, LUNGCT, METRICS, WEIGHTS, ModelRepo
from . import content, evidence
from .canaries import Canaries, deviations, draw_canaries, images_of, read_canaries, write_canaries
from .evidence import Evidence
from .external import external_reasons
from .loaders import score
from .reasons import Reason
from .record import Record, content_hash, file_hashes, write_record


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


def inspect(run: Path, *, token: str | None = None) -> tuple[Evidence, list[Reason]]:
    """The evidence of `run` recomputed, and what speaks against its files as they are; writes nothing.

    Raises LungCTError when the evidence is missing or cannot be read, UsageError when `run` is no run.
    """
    model = ModelRepo.in_folder(run)
    files = model.files
    refuse_links(model.path, files)
    found = evidence.read_evidence(model)
    ids = [str(value) for column in ("id", "group") for value in found.table[column].to_pylist()]
    ids += [*found.split.ids.tolist(), *found.split.groups.tolist()]
    reasons = content.pickles(files) + content.secrets(files, token) + content.patient_data(files, ids, found.classes)
    reasons += evidence.manifest_reasons(found) + evidence.metrics_reasons(found) + evidence.rule_reasons(found)
    reasons += evidence.operating_reasons(found) + external_reasons(model)
    reasons += evidence.card_reasons(model, [(model.release or {}).get("repo")])
    return found, reasons + evidence.eval_results_reasons(model)


def prepare(run: Path, scratch: Path, *, token: str | None = None) -> Prepared:
    """Copy the model of `run` into `scratch` and rebuild what follows from its predictions; `run` is not touched.

    Raises as `inspect` does.
    """
    found, reasons = inspect(run, token=token)
    folder = scratch / "model"
    for name, path in found.repo.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    if "release" in found.repo.lungct:
        _without_release(folder, found.repo.lungct)
    _rebuild(folder, found)
    canaries, disagreements = _canaries(folder)
    reasons += [Reason("loader-mismatch", sentence) for sentence in disagreements]
    weights = sha256_of(folder / WEIGHTS)
    return Prepared(folder, found, canaries, content_hash(ModelRepo(folder)), weights, reasons)


def seal(prepared: Prepared, record: Record, changelog: str, repo_id: str) -> None:
    """Write the release record, the changelog and the final card into the prepared folder."""
    write_record(prepared.folder, record | {"files": file_hashes(ModelRepo(prepared.folder))})
    write_atomic(prepared.folder / CHANGELOG, changelog)
    write_card(prepared.folder, repo_id)


def _without_release(folder: Path, lungct: dict[str, Any]) -> None:
    """A released model may be released again; what its former release said about itself is not part of it."""
    write_json(folder / LUNGCT, {name: value for name, value in lungct.items() if name != "release"})
    (folder / CHANGELOG).unlink(missing_ok=True)


def _rebuild(folder: Path, found: Evidence) -> None:
    from ..evaluation.external import rebuilt, write_sets
    from ..evaluation.plots import write_plots

    write_json(folder / METRICS, found.metrics)
    repo = ModelRepo(folder)
    if repo.external and external_reasons(repo):
        write_sets(folder, rebuilt(repo))
    write_plots(found.report, folder / "evaluation")
    write_eval_results(folder)
    write_card(folder)


def _canaries(folder: Path) -> tuple[Canaries, list[str]]:
    """Draw the canaries, write them with the logits of the first loader, and say which loaders disagree."""
    contract = ModelRepo(folder).contract
    files = draw_canaries(contract)
    answers = score(ModelRepo(folder), images_of(files))
    golden = next((value for value in answers.values() if not isinstance(value, str)), None)
    if golden is None:
        golden = np.zeros((len(files), len(contract.classes)), np.float32)
    shutil.rmtree(folder / "canaries", ignore_errors=True)
    write_canaries(folder, files, golden, contract.classes)
    return read_canaries(folder), deviations(answers, golden)
