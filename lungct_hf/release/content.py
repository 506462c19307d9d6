"""What must not be among the files of a release: pickles, secrets, and anything that names a patient."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..hub.folder import PICKLES
from ..known_sets import known_sets
from .reasons import Reason

_PICKLE_START = re.compile(rb"\x80[\x02-\x05][\x95}\]\(cX\x8c]")
_ZIP_PICKLE = re.compile(rb"(?:data|archive/data|model/data)\.pkl")
_SECRETS = {
    "a Hugging Face token": rb"\bhf_[A-Za-z0-9]{20,}",
    "a GitHub token": rb"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})",
    "a GitLab token": rb"\bglpat-[A-Za-z0-9_-]{20,}",
    "an AWS key": rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a Google key": rb"\bAIza[0-9A-Za-z_-]{35}\b",
    "a Slack token": rb"\bxox[abprs]-[0-9A-Za-z-]{10,}",
    "an OpenAI or Anthropic key": rb"\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{32,}",
    "a PyPI or npm token": rb"\b(?:pypi-AgE[A-Za-z0-9_-]{40,}|npm_[A-Za-z0-9]{36})",
    "a Weights & Biases key": rb"(?i)wandb[_-]?api[_-]?key[\"' ]*[:=][\"' ]*[0-9a-f]{40}",
    "a private key": rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
    "a password in an address": rb"\b[a-z][a-z0-9+.-]*://[^\s/:@\"']+:[^\s/:@\"']{3,}@",
}
_SECRET_FILES = re.compile(r"(?i)(?:^|/)(?:\.?env|\.?netrc|\.?git-credentials|id_(?:rsa|dsa|ecdsa|ed25519)|.*\.pem)$")
_DICOM_FILE = re.compile(r"(?i)\.(?:dcm|dicom|ima)$")
# Names of elements that identify a person, as pydicom and exports write them, and their numbers.
_DICOM_TAGS = re.compile(
    rb"\b(?:Patient'?s?[ _]?(?:Name|ID|Birth[ _]?Date|Address)|OtherPatientIDs|InstitutionName|AccessionNumber|"
    rb"ReferringPhysicianName)\b\s*[\"']?\s*[:=,;\t]|\(0010, ?00(?:10|20|30)\)"
)
_PERSON_NAME = re.compile(r"[^\W\d_][\w' -]*\^[^\W\d_][\w' -]*")  # Name^First, as DICOM writes persons
_CAPITALS = re.compile(r"(?<![^\W_])([^\W\d_]{2,})[_, ]{1,2}([^\W\d_]{2,})(?![^\W_])")
# Words that file names of scans are made of; those of the classes and of known data sets come to them.
_NO_NAMES = frozenset(
    "ABDOMEN ADENO ARTERIAL AXIAL CASE CASES CHEST CONTRAST CORONAL CT DATA FOLD GGO HIGH HU IMAGE IMG LARGE LEFT LOW "
    "LOWER LUNG MASS MEDIASTINUM MIDDLE NODULE PATIENT PET PHANTOM RIGHT SAGITTAL SCAN SERIES SET SLICE SLICES SMALL "
    "STUDY TEST THIN THORAX TRAIN TRAINING UPPER VAL VALIDATION VENOUS VOLUME WINDOW".split()
)
_TEXT_SUFFIXES = {".json", ".csv", ".txt", ".md", ".yaml", ".yml", ".tsv", ".log", ".xml", ".html"}


def pickles(files: Mapping[str, Path]) -> list[Reason]:
    """Files that unpickling would run, by suffix and by their first bytes."""
    named = [name for name in files if name.lower().endswith(PICKLES)]
    hidden = [name for name, path in files.items() if name not in named and _is_pickle(path)]
    return [
        Reason("pickle", f"{name} can run code on the machine that loads it. Keep the weights as safetensors")
        for name in [*named, *hidden]
    ]


def secrets(files: Mapping[str, Path], token: str | None = None) -> list[Reason]:
    """Access tokens and keys, in any file; what was found is not repeated. `token` is the one in use."""
    found = [Reason("secret", f"{name} is a file for secrets") for name in files if _SECRET_FILES.search(name)]
    for name, path in files.items():
        found += _secrets(path.read_bytes(), name, token)
    return found


def secrets_in_text(text: str, name: str, token: str | None = None) -> list[Reason]:
    """As `secrets`, for one text that will be published, called `name`."""
    return list(_secrets(text.encode(), name, token))


def _secrets(content: bytes, name: str, token: str | None) -> Iterator[Reason]:
    if token and token.encode() in content:
        yield Reason("secret", f"{name} holds your own access token. Remove it there, and revoke it")
        return
    for kind, pattern in _SECRETS.items():
        if match := re.search(pattern, content):
            line = content.count(b"\n", 0, match.start()) + 1
            yield Reason("secret", f"{name}, line {line}, holds what looks like {kind}")


def patient_data(files: Mapping[str, Path], ids: Iterable[str] = (), classes: Iterable[str] = ()) -> list[Reason]:
    """DICOM files, DICOM elements of a person in text, and persons' names in paths or in the `ids` of slices.

    A word of the names of `classes` is none of a person.
    """
    found, words = [], _no_names(classes)
    for name, path in files.items():
        if _DICOM_FILE.search(name) or _is_dicom(path):
            found.append(Reason("patient-data", f"{name} is a DICOM file"))
        if path.suffix.lower() in _TEXT_SUFFIXES and (match := _DICOM_TAGS.search(path.read_bytes())):
            what = match.group().decode("ascii", "replace").strip(" \t:=,;\"'")
            found.append(Reason("patient-data", f"{name} holds the DICOM element {what}"))
    found += [
        Reason("patient-data", f"the path {name} looks like a person's name") for name in files if _names(name, words)
    ]
    named = [text for text in dict.fromkeys(ids) if _names(text, words)]
    if named:
        # The ids are what is to be kept private, so only their number is told.
        found.append(
            Reason(
                "patient-data",
                f"{len(named)} ids or groups of slices in evaluation/ look like a person's name. Rename the files of "
                "the data set (their content decides, not their names) and train again",
            )
        )
    return found


def _no_names(classes: Iterable[str]) -> frozenset[str]:
    """Words, in capitals, that are not taken for a person's name."""
    said = [*classes]
    for known in known_sets().values():
        said += [known.title, *known.classes, *(other for other, _ in known.classes.aliases), *known.folders]
    return _NO_NAMES | {word.upper() for text in said for word in re.findall(r"[^\W\d_]{2,}", text)}


def _names(text: str, words: frozenset[str]) -> bool:
    return any(_is_name(part, words) for part in text.split("/"))


def _is_name(part: str, words: frozenset[str]) -> bool:
    if _PERSON_NAME.search(part):
        return True
    stem = _DICOM_FILE.sub("", part)
    pairs = list(_pairs(stem if stem != part else part.rpartition(".")[0] or part, words))
    # Two words in capitals are how exports write SURNAME_NAME; of a DICOM file any two words are taken for that.
    return any((first + second).isupper() or stem != part for first, second in pairs)


def _pairs(text: str, words: frozenset[str]) -> Iterator[tuple[str, str]]:
    for match in _CAPITALS.finditer(text):
        if not {match[1].upper(), match[2].upper()} & words:
            yield match[1], match[2]


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as stream:
        start = stream.read(4)
        if start.startswith(b"PK\x03\x04"):
            return bool(_ZIP_PICKLE.search(path.read_bytes()))
    return bool(_PICKLE_START.match(start))


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"
