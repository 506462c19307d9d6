"""Whether a published model's claims are true, for anyone: nothing but the repo itself is needed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .. import __version__
from ..contract import ONNX_FILE
from ..errors import LungCTError
from ..files import sha256_of
from ..hub.model_repo import MODEL, ModelRepo
from . import content, evidence, external
from .canaries import FOLDER, deviations, read_canaries
from .loaders import score
from .reasons import Reason
from .record import Record, file_hashes, tag_of_record
from .version import Version

if TYPE_CHECKING:
    from ..cohort import Split


@dataclass
class Verification:
    """`false`: what does not hold, by code; `held`: what was checked and holds; `notes`: what could not be checked."""

    name: str
    false: list[Reason] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def check(self, what: str, found: list[Reason]) -> None:
        self.false += found
        self.held += [] if found else [what]


def verify(repo_or_dir: str, *, token: str | None = None) -> Verification:
    """Check a Hub repo ("owner/name[@revision]"), a run or a model directory.

    Raises LungCTError when the model cannot be fetched or found; what is wrong with it is in the result.
    """
    repo = ModelRepo.open(repo_or_dir, token=token).need(*MODEL)
    found = Verification(repo.name)
    _files(repo, found)
    _people(repo, _evidence(repo, found), found)
    _answers(repo, found)
    return found


def _files(repo: ModelRepo, found: Verification) -> None:
    files, record, here = repo.files, repo.release, file_hashes(repo)
    if repo.repo_id is not None:
        found.held.append("every file arrived with the hash that the Hub states")
    if record is None:
        found.notes.append("No release published this, so there is no record of its files' hashes.")
        if Version.of_tag(repo.requested_revision or ""):
            found.false.append(Reason("no-release", "the tag is a version's, but lungct.json holds no release record"))
    else:
        listed = record.get("files") or {}
        wrong = [
            Reason("file-changed", f"{name} is {'missing' if name not in here else 'not the file that was released'}")
            for name, digest in listed.items()
            if here.get(name) != digest
        ]
        evidence_folders = ("evaluation/", "onnx/", f"{FOLDER}/", ".eval_results/")
        wrong += [
            Reason("file-changed", f"{name} is not in the release record")
            for name in here
            if name not in listed and (name.startswith(evidence_folders) or name.endswith(".safetensors"))
        ]
        found.check(f"{len(listed)} files have the sha256 of the release record", wrong)
        found.check("the tag is that of the release record", _tag_reasons(repo, record))
    contract = repo.contract
    if contract.has_onnx:
        same = repo.has(ONNX_FILE) and sha256_of(repo.file(ONNX_FILE)) == (contract.onnx or {})["sha256"]
        wrong = (
            [] if same else [Reason("file-changed", f"{ONNX_FILE} does not have the sha256 that lungct.json names")]
        )
        found.check(f"{ONNX_FILE} is the file that lungct.json names", wrong)
    found.check("no pickle or secret is among the files", content.pickles(files) + content.secrets(files))


def _tag_reasons(repo: ModelRepo, record: Record) -> list[Reason]:
    asked = Version.of_tag(repo.requested_revision or "")
    due = tag_of_record(record)
    if asked is None or asked.tag == due:
        return []
    return [Reason("tag-moved", f"{asked.tag} was asked for, and lungct.json says that this is {due}")]


def _evidence(repo: ModelRepo, found: Verification) -> Split | None:
    """Check the evidence; its split, None where the evidence cannot be read."""
    try:
        stored = evidence.read_evidence(repo)
    except LungCTError as error:
        found.false.append(Reason("metrics-mismatch", str(error)))
        return None
    split = stored.split
    reasons = evidence.manifest_reasons(stored)
    allowed = _allowed(repo)
    # What the author let through and the card says is not a false claim.
    stated = [reason for reason in reasons if reason.code == "groups-across-split" and _says_crossing(stored, allowed)]
    found.notes += [f"As the card says: {reason}" for reason in stated]
    found.check(
        f"split.csv, predictions.parquet and lungct.json speak of the same {len(split.ids)} slices, split "
        f"{split.hash[:12]}, data {split.fingerprint()[:12]}",
        [reason for reason in reasons if reason not in stated],
    )
    if not any(reason.code == "groups-across-split" for reason in reasons):
        found.held.append("no group has slices both in test and outside it")
    metrics = evidence.metrics_reasons(stored)
    found.check(f"metrics.json follows from the {len(stored.table)} stored predictions", metrics)
    found.check("the stored abstentions follow from the stored answers and lungct.json", evidence.rule_reasons(stored))
    if (calibration := repo.contract.calibration) and calibration.operating:
        said = "the cuts for disease in lungct.json are those that the validation slices give"
        found.check(said, evidence.operating_reasons(stored))
    found.check(".eval_results follows from metrics.json", evidence.eval_results_reasons(repo))
    _external(repo, found)
    record = repo.release or {}
    found.check(
        "the card is what the model's files give", evidence.card_reasons(repo, [record.get("repo"), repo.repo_id])
    )
    if found.false and record.get("package_version") not in (None, __version__):
        found.notes.append(
            f"lungct-hf {record['package_version']} wrote this and {__version__} checks it: their wording may differ. "
            f"To be sure: pip install lungct-hf=={record['package_version']}"
        )
    return split


def _external(repo: ModelRepo, found: Verification) -> None:
    """Check what is stored of tests on other data, where there is any."""
    reasons = external.external_reasons(repo)
    if reasons or repo.external:
        names = ", ".join((repo.external or {}).get("sets") or {})
        found.check(f"the tests elsewhere ({names}) follow from their predictions and lungct.json", reasons)


def _people(repo: ModelRepo, split: Split | None, found: Verification) -> None:
    """Whom the files name, whether or not the evidence could be read."""
    ids = [] if split is None else [*split.ids.tolist(), *split.groups.tolist()]
    reasons = content.patient_data(repo.files, ids, repo.classes)
    if "patient-data" in _allowed(repo):
        found.notes += [f"The author looked and let it through: {reason}" for reason in reasons]
        return
    what = "path" if split is None else "id or path"
    found.check(f"no DICOM file or element is there, and no {what} looks like a person's name", reasons)


def _allowed(repo: ModelRepo) -> set[str]:
    """The codes that the release let through."""
    return {row["code"] for row in (repo.release or {}).get("allowed") or []}


def _says_crossing(stored: evidence.Evidence, allowed: set[str]) -> bool:
    said = stored.stored.get("split") or {}
    counted = said.get("groups_crossing") or said.get("groups_in_training_and_validation")
    return "groups-across-split" in allowed or bool(counted) or said.get("protocol") == "image"


def _answers(repo: ModelRepo, found: Verification) -> None:
    if not (repo.path / FOLDER).is_dir() and repo.release is None:
        found.notes.append("There are no canaries, so no loader's answers were compared.")
        return
    try:
        canaries = read_canaries(repo.path)
    except LungCTError as error:
        found.false.append(Reason("canary-changed", str(error)))
        return
    answers = score(repo, canaries.images)
    wrong = [Reason("loader-mismatch", sentence) for sentence in deviations(answers, canaries.golden)]
    found.check(f"{', '.join(answers)} give the recorded logits of {len(canaries.images)} canaries", wrong)
    if "onnx" not in answers or "lungct_hf" not in answers:
        found.notes.append("Not every loader is installed here: pip install 'lungct-hf[train]' for all.")
