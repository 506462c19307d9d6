"""Whether a published model's claims are true, for anyone: nothing but the repo itself is needed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..contract import ONNX_FILE
from ..errors import LungCTError
from ..files import read_json, sha256_of
from ..hub.model_repo import ATTESTATION, CARD, GITATTRIBUTES, MODEL, SEAL, ModelRepo
from . import content, evidence, external
from .attestation import statement as statement_of
from .canaries import FOLDER, deviations, read_canaries
from .loaders import score
from .reasons import Reason
from .record import Record, content_hash, file_hashes, tag_of_record
from .seal import (
    Changes,
    Seal,
    changes,
    check_signature,
    every_file,
    fingerprint,
    foreign_attributes,
    hashes,
    read_seal,
)
from .version import Version

if TYPE_CHECKING:
    from ..cohort import Split


# What no reading of the files can tell; stands in every outcome.
UNKNOWABLE = (
    "that the stored predictions are the answers of these weights, and not invented",
    "that the nearest neighbours and other baselines were asked as they should be, and not made worse",
    "that the slices are what their labels and groups say, and that none was left out",
    "what the author wrote into the card by hand",
)
_SIGNED, _UNCHECKED, _UNSIGNED, _BROKEN, _NONE = "signed", "signature not checked", "unsigned", "broken", "no seal"


@dataclass(frozen=True)
class SealFound:
    """What the seal says: a `state`, the sentence for it, the `signer` it names, and what differs from it."""

    state: str
    sentence: str
    signer: str | None = None
    changes: Changes = Changes()


@dataclass
class Verification:
    """`false`: what does not hold, by code. What holds is in `recomputed`, from the files themselves, and in
    `compared`, with what the release noted or the Hub states. `notes`: what could not be checked, or is worth knowing;
    `seal`: whether the files are those that were released."""

    name: str
    false: list[Reason] = field(default_factory=list)
    recomputed: list[str] = field(default_factory=list)
    compared: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seal: SealFound = SealFound(_NONE, "")

    @property
    def held(self) -> list[str]:
        return [*self.compared, *self.recomputed]

    def check(self, what: str, found: list[Reason]) -> None:
        """Note what was recomputed from the files, or where it does not hold."""
        self.false += found
        self.recomputed += [] if found else [what]

    def compare(self, what: str, found: list[Reason]) -> None:
        """As `check`, for what was only compared with another statement."""
        self.false += found
        self.compared += [] if found else [what]


def verify(repo_or_dir: str, *, token: str | None = None, key: Path | None = None) -> Verification:
    """Check a Hub repo ("owner/name[@revision]"), a run or a model directory; with the public `key` of its signer also
    the signature of its seal.

    Raises LungCTError when the model cannot be fetched or found, UsageError when `key` is none; what is wrong with the
    model is in the result.
    """
    if key is not None:
        fingerprint(key)
    repo = ModelRepo.open(repo_or_dir, token=token).need(*MODEL)
    found = Verification(repo.name)
    files = every_file(repo.path, downloaded=repo.repo_id is None)
    _seal(repo, files, key, found)
    try:
        _files(repo, files, found)
        _people(repo, files, _evidence(repo, found), found)
        _answers(repo, found)
    except LungCTError as error:  # what the seal says is worth telling all the more
        found.false.append(Reason("not-readable", str(error)))
    return found


def _seal(repo: ModelRepo, files: dict[str, Path], key: Path | None, found: Verification) -> None:
    """Which of three holds: every file is as released and signed, as released, or not as released."""
    record = repo.release or {}
    _where(repo, record, found)
    wrong = [
        Reason("file-changed", f"{GITATTRIBUTES}, which no seal covers, says {line!r}")
        for line in foreign_attributes(repo.path)
    ]
    if not repo.has(SEAL):
        said = "nothing tells whether these are the files that were released"
        why = "no release published this" if not record else "a lungct-hf without seals released it"
        found.seal = SealFound(_NONE, f"There is no seal ({why}), so {said}.")
        if record.get("seal"):
            wrong.append(Reason("seal-broken", f"lungct.json names the seal {record['seal']}, and it is missing"))
        if key is not None:
            wrong.append(Reason("not-signed", f"there is no {SEAL}, so {key.name} has signed nothing here"))
        found.false += wrong
        return
    try:
        seal = read_seal(repo.file(SEAL))
    except LungCTError as error:
        found.seal = SealFound(_BROKEN, f"Not as released: {error}")
        found.false += [*wrong, Reason("seal-broken", str(error))]
        return
    different = changes(seal, hashes(files))
    words = different == Changes(changed=(CARD,)) and not evidence.card_reasons(
        repo, [record.get("repo"), repo.repo_id]
    )
    said_by = (record.get("signer") or {}).get("sha256")
    if said_by != seal.signer and (said_by or seal.signed):
        wrong.append(
            Reason("seal-broken", f"lungct.json names the signer {said_by}, {SEAL} is by {seal.signer or 'nobody'}")
        )
    if different and not (words and key is None):
        what = f"{CARD}, of which only the author's text was changed since" if words else str(different)
        wrong.append(Reason("seal-broken", f"not every file is as it was released. {what[:1].upper()}{what[1:]}"))
    if key is not None:
        wrong += _signature(repo, seal, key, bool(different))
    found.false += wrong
    if wrong:
        asked = {reason.code for reason in wrong} == {"not-signed"} and not seal.signed
        said = f"Not as released: {different}" if different else f"Not as it should be: {wrong[0].sentence}"
        found.seal = SealFound(_UNSIGNED if asked else _BROKEN, f"{said}.", seal.signer, different)
        return
    but = f", but for {CARD}: changed since: the author's text in it" if words else ""
    every = f"Every file is as released ({len(seal.files)} of them; not counted: {GITATTRIBUTES} of the Hub){but}"
    if key is not None:
        state, said = _SIGNED, f"{every}, signed by {key.name} ({seal.signer})."
    elif seal.signed:
        state = _UNCHECKED
        said = (
            f"{every} if its signature is good. It names the key {seal.signer}, with which nothing was checked: "
            "give the signer's public key, which you have from elsewhere, with --key."
        )
    else:
        state, said = _UNSIGNED, f"{every}, and unsigned: whoever may write to the repo could have remade all of it."
    found.seal = SealFound(state, said, seal.signer, different)


def _signature(repo: ModelRepo, seal: Seal, key: Path, differs: bool) -> list[Reason]:
    if not seal.signed:
        return [Reason("not-signed", f"the seal is not signed, neither by {key.name} nor by anybody else")]
    if seal.signer != fingerprint(key):
        return [Reason("not-signed", f"the seal names the key {seal.signer}, {key.name} is {fingerprint(key)}")]
    problem = check_signature(repo.path, key, downloaded=repo.repo_id is None)
    if problem is None or (differs and problem.startswith("Signature mismatch")):  # it is good, of other files
        return []
    return [Reason("not-signed", f"the signature of the seal is not by {key.name} over these files ({problem})")]


def _where(repo: ModelRepo, record: Record, found: Verification) -> None:
    """Whose release this is, and whether it lies where it was released."""
    if not record:
        return
    signer = (record.get("signer") or {}).get("sha256")
    by = f"signed by the key {signer}" if signer else "not signed"
    found.notes.append(f"lungct.json says: released as {record.get('repo')} {tag_of_record(record)}, {by}.")
    if repo.repo_id is not None and record.get("repo") not in (None, repo.repo_id):
        found.notes.append(
            f"This is a copy under another name: {repo.repo_id} holds what was released as {record['repo']}. Whether "
            f"its owner knows of it, only {record['repo']} can tell."
        )


def _files(repo: ModelRepo, files: dict[str, Path], found: Verification) -> None:
    record, here = repo.release, file_hashes(repo)
    if repo.repo_id is not None:
        found.compared.append("every file arrived with the hash that the Hub states")
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
        found.compare(f"{len(listed)} files have the sha256 of the release record", wrong)
        due = content_hash(repo, listed)
        found.compare(
            "weights, configs and predictions have the sha256 of the release record taken together",
            []
            if due == record.get("content")
            else [Reason("content-changed", "weights, configs or predictions are not those of the release record")],
        )
        if Version.of_tag(repo.requested_revision or "") is not None:
            found.compare("the tag is that of the release record", _tag_reasons(repo, record))
    contract = repo.contract
    if contract.has_onnx:
        same = repo.has(ONNX_FILE) and sha256_of(repo.file(ONNX_FILE)) == (contract.onnx or {})["sha256"]
        wrong = (
            [] if same else [Reason("file-changed", f"{ONNX_FILE} does not have the sha256 that lungct.json names")]
        )
        found.compare(f"{ONNX_FILE} is the file that lungct.json names", wrong)
    if repo.has(ATTESTATION):
        due_there = statement_of(repo) == read_json(repo.file(ATTESTATION), f"There is no {ATTESTATION}.")
        wrong = [] if due_there else [Reason("file-changed", f"{ATTESTATION} is not what lungct.json gives")]
        found.check(f"{ATTESTATION} says what lungct.json and the files give", wrong)
    real = {name: path for name, path in files.items() if path.is_file()}
    links = sorted(files.keys() - real.keys())
    wrong = [Reason("file-changed", f"{name} is a link to a folder or to nothing") for name in links]
    wrong += content.pickles(real) + content.code(real) + content.secrets(real) + content.other_results(real)
    found.check(
        f"of {len(real)} files none was taken for a pickle, a program or one of {content.KINDS} kinds of secrets",
        wrong,
    )


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
        found.recomputed.append("no group has slices both in test and outside it")
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


def _people(repo: ModelRepo, files: dict[str, Path], split: Split | None, found: Verification) -> None:
    """Whom the files name, whether or not the evidence could be read."""
    ids = [] if split is None else [*split.ids.tolist(), *split.groups.tolist()]
    reasons = content.patient_data({n: p for n, p in files.items() if p.is_file()}, ids, repo.classes)
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
