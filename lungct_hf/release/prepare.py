"""From a run to the folder that is published: copied, every figure and picture made again from the predictions."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import LungCTError
from ..files import sha256_of, write_atomic, write_json
from ..hub import write_card, write_eval_results
from ..hub.author import joined
from ..hub.folder import refuse_links
from ..hub.model_repo import ATTESTATION, CARD, CHANGELOG, LUNGCT, METRICS, SEAL, SPLIT, WEIGHTS, ModelRepo
from . import content, evidence
from .attestation import write_attestation
from .canaries import Canaries, deviations, draw_canaries, images_of, read_canaries, write_canaries
from .evidence import Evidence
from .external import external_reasons
from .loaders import score
from .reasons import Reason, check_allowed, refuse, sift
from .record import Record, content_hash, file_hashes, write_record
from .seal import check_private_key, every_file, write_seal


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
    reasons = content.reasons(files, ids, found.classes, token=token)
    reasons += evidence.manifest_reasons(found) + evidence.metrics_reasons(found) + evidence.rule_reasons(found)
    reasons += evidence.operating_reasons(found) + external_reasons(model)
    reasons += evidence.card_reasons(model, [(model.release or {}).get("repo")])
    return found, reasons + evidence.eval_results_reasons(model)


def check_contents(model: ModelRepo, message: str, token: str | None, allowed: Sequence[str] = ()) -> None:
    """Refuse to publish what a release would refuse by what is in the files alone, without judging any figure.

    Raises RefusedError with one line for each reason whose code is not among the `allowed`, UsageError for a code that
    cannot be.
    """
    check_allowed(allowed)
    files = model.files
    refuse_links(model.path, files)
    ids = [str(value) for name in ("id", "group") for value in _column(model, name)]
    try:
        classes: Sequence[str] = model.classes.names
    except LungCTError:  # it does not say; a release needs them, a push of files does not
        classes = ()
    reasons = content.reasons(files, ids, classes, token=token)
    reasons += content.secrets_in_text(message, "the message", token)
    if model.has(CARD):
        reasons += evidence.card_reasons(model, [(model.release or {}).get("repo")])
    refuse(sift(reasons, allowed)[0], "push")


def _column(model: ModelRepo, name: str) -> list[Any]:
    """One column of the stored split, which names every slice; [] where there is none."""
    import csv

    if not model.has(SPLIT):
        return []
    with model.file(SPLIT).open(encoding="utf-8", newline="") as stream:
        return [row.get(name) or "" for row in csv.DictReader(stream)]


def prepare(run: Path, scratch: Path, *, token: str | None = None) -> Prepared:
    """Copy the model of `run` into `scratch` and rebuild what follows from its predictions; `run` is not touched.

    Raises as `inspect` does.
    """
    found, reasons = inspect(run, token=token)
    folder = scratch / "model"
    for name, path in found.repo.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    _without_release(folder, found.repo.lungct)
    _rebuild(folder, found)
    canaries, disagreements = _canaries(folder)
    reasons += [Reason("loader-mismatch", sentence) for sentence in disagreements]
    weights = sha256_of(folder / WEIGHTS)
    return Prepared(folder, found, canaries, content_hash(ModelRepo(folder)), weights, reasons)


def seal(
    folder: Path, record: Record, changelog: str, repo_id: str, there: ModelRepo | None = None, key: Path | None = None
) -> None:
    """Write attestation, release record, changelog, final card and, last, the seal into the prepared `folder`.

    `there` holds what stays of the repo as it is now (remote.fetch_kept): those files come under the seal as well, and
    what an author wrote into the card on the Hub is joined to this one. With a private `key` the seal is signed.
    """
    write_attestation(folder)
    record = {name: value for name, value in record.items() if name != "signer"}
    record |= {"files": file_hashes(ModelRepo(folder)), "seal": SEAL, "kept": {}}
    if key is not None:
        record["signer"] = {"sha256": check_private_key(key)}
    for name, path in (every_file(there.path, downloaded=False) if there else {}).items():
        if name == CARD:
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
        record["kept"][name] = sha256_of(path)
    write_record(folder, record)
    write_atomic(folder / CHANGELOG, changelog)
    write_card(folder, repo_id)
    if there is not None and there.has(CARD):
        write_atomic(folder / CARD, joined((folder / CARD).read_bytes(), there.file(CARD).read_bytes(), repo_id))
    write_seal(folder, key)


def _without_release(folder: Path, lungct: dict[str, Any]) -> None:
    """A released model may be released again; what its former release said about itself is not part of it."""
    for name in (SEAL, ATTESTATION):
        (folder / name).unlink(missing_ok=True)
    if "release" in lungct:
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
