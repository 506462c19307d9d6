"""What must not be among the files of a release: pickles, code, secrets, and anything that names a patient."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..hub.folder import PICKLE
from ..hub.model_repo import EVAL_RESULTS
from ..known_sets import known_sets
from .reasons import Reason

_PICKLE_START = re.compile(rb"\x80[\x02-\x05][\x95}\]\(cX\x8c]")
_PICKLE_OPCODES = 4  # fewer are found in prose: "No." would be a pickle
_LOOKED_AT = 2**20  # bytes of a file, packed or not, by which it is told
_PACKED: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": lambda path: gzip.open(path),
    b"BZh": lambda path: bz2.open(path),
    b"\xfd7zXZ\x00": lambda path: lzma.open(path),
}
_CODE = re.compile(
    r"(?i)\.(?:py[cdwx]?|ipynb|so(?:\.\d+)*|dll|dylib|exe|com|bat|cmd|ps1|sh|bash|zsh|js|mjs|ts|wasm|jar|class|rb|pl|"
    r"lua|php|r|whl|egg|deb|rpm|msi|app|dmg|html?|svg|pkg)$"
)
_CODE_START = (b"#!", b"\x7fELF", b"MZ\x90\x00", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
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
    "a JSON web token": rb"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    "a private key": rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
    "a password in an address": rb"\b[a-z][a-z0-9+.-]*://[^\s/:@\"']+:[^\s/:@\"']{3,}@",
}
KINDS = len(_SECRETS)
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


def reasons(
    files: Mapping[str, Path], ids: Iterable[str] = (), classes: Iterable[str] = (), *, token: str | None = None
) -> list[Reason]:
    """What speaks against publishing `files`; `ids` of slices in them, names of the `classes`, one's own `token`."""
    found = pickles(files) + code(files) + secrets(files, token) + other_results(files)
    return found + patient_data(files, ids, classes)


def pickles(files: Mapping[str, Path]) -> list[Reason]:
    """Files that unpickling would run, by suffix and by what they, or what is packed in them, begin with.

    Arrays of objects (.npy, .npz) are pickles as well.
    """
    found = [name for name, path in files.items() if PICKLE.search(name) or _is_pickle(path)]
    return [
        Reason("pickle", f"{name} can run code on the machine that loads it. Keep the weights as safetensors")
        for name in found
    ]


def code(files: Mapping[str, Path]) -> list[Reason]:
    """Programs and libraries, by suffix and first bytes, and configurations that make a loader run some."""
    found = []
    for name, path in files.items():
        if _CODE.search(name) or _begins(path).startswith(_CODE_START):
            found.append(Reason("code", f"{name} is a program, and a model needs none. Keep it in another repository"))
        elif path.suffix.lower() == ".json" and (key := _names_code(path)):
            found.append(Reason("code", f'{name} holds "{key}", by which a loader runs code. Remove the entry'))
    return found


def other_results(files: Mapping[str, Path]) -> list[Reason]:
    """Files of results that this package did not write, which the Hub would show as this model's."""
    folder = EVAL_RESULTS.partition("/")[0]
    return [
        Reason("metrics-mismatch", f"{name} holds results that follow from nothing here. Remove the file")
        for name in files
        if name.startswith(f"{folder}/") and name != EVAL_RESULTS
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


def _begins(path: Path, length: int = 16) -> bytes:
    with path.open("rb") as stream:
        return stream.read(length)


def _names_code(path: Path) -> str | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None
    return next((key for key in _keys(record) if key in ("auto_map", "custom_pipelines")), None)


def _keys(value: Any) -> Iterator[str]:
    """The keys of all objects in a JSON value."""
    todo = [value]
    while todo:
        inner = todo.pop()
        if isinstance(inner, dict):
            yield from inner
            todo += inner.values()
        elif isinstance(inner, list):
            todo += inner


def _is_pickle(path: Path) -> bool:
    start = _begins(path)
    if start.startswith(b"PK\x03\x04"):
        return _holds_pickle(path)
    for magic, unpack in _PACKED.items():
        if start.startswith(magic):
            try:
                with unpack(path) as stream:
                    return _unpickles(stream.read(_LOOKED_AT))
            except (OSError, EOFError, lzma.LZMAError):
                return False
    with path.open("rb") as stream:
        return _unpickles(stream.read(_LOOKED_AT))


def _holds_pickle(path: Path) -> bool:
    """Whether a zip archive, as torch and numpy write them, has a pickle among its members."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if PICKLE.search(member.filename) and not member.filename.endswith(".bin"):
                    return True
                with archive.open(member) as stream:
                    if _unpickles(stream.read(_LOOKED_AT)):
                        return True
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError):
        return False
    return False


def _unpickles(content: bytes) -> bool:
    """Whether `content` begins with a pickle of any protocol, or is an array of objects."""
    if content.startswith(b"\x93NUMPY"):
        return _array_of_objects(content)
    if _PICKLE_START.match(content):
        return True
    operations, calls = 0, False
    try:
        # Protocols 0 and 1 have no first bytes of their own: what can be read as one up to its end is taken for one.
        for opcode, argument, place in pickletools.genops(content):
            operations += 1
            calls |= opcode.name in ("GLOBAL", "INST") and bool(re.fullmatch(r"[\w.]+ [\w.]+", str(argument)))
            if opcode.name == "STOP":
                ends = not content[(place or 0) + 1 :].strip()
                return operations >= _PICKLE_OPCODES and (calls or ends)
    except Exception:  # whatever its reader raises, so would a loader
        return False
    return False


def _array_of_objects(content: bytes) -> bool:
    from numpy.lib import format as npy

    stream = io.BytesIO(content)
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        return bool(read(stream)[2].hasobject)
    except (ValueError, SyntaxError, TypeError):
        return True  # numpy cannot read it either, and who knows what another reader makes of it


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"
