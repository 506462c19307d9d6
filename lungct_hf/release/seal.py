"""One seal over every file of a release: seal.json, in the format of OpenSSF model signing.

Unsigned it is an in-toto statement that names the sha256 of every file; signed, the sigstore bundle that
`model-signing` writes around this very statement. Whoever may write to the repo can make an unsigned seal anew, and no
signed one.

    {"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://model_signing/signature/v1.0",
     "subject": [{"name": ..., "digest": {"sha256": <of all digests>}}],
     "predicate": {"serialization": {...}, "resources": [{"name": path, "algorithm": "sha256", "digest": hex}]}}

Their own program can check it as well (docs/releases.md).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import LungCTError, UsageError, brief, require
from ..files import read_json, sha256_of, write_json
from ..hub.model_repo import GITATTRIBUTES, SEAL

PASSWORD = "LUNGCT_KEY_PASSWORD"
_IGNORED = (SEAL, GITATTRIBUTES)
# What git and the Hub's client leave in a folder that they have filled.
_LEFT_LOCALLY = (".git/", ".cache/huggingface/")
_STATEMENT, _PREDICATE = "https://in-toto.io/Statement/v1", "https://model_signing/signature/v1.0"
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_FIX = "Fix: openssl ecparam -name prime256v1 -genkey -noout -out KEY; openssl ec -in KEY -pubout -out KEY.pub"
_ATTRIBUTE = re.compile(
    r"\s*(?:#.*|\S+(?:\s+(?:-?(?:text|diff|merge|filter)|(?:filter|diff|merge)=lfs|text=auto|eol=lf))+)?\s*"
)


@dataclass(frozen=True)
class Seal:
    """What seal.json says: {path: sha256}, and of a signed one the `signer`, the sha256 of the public key as PEM."""

    files: dict[str, str]
    signed: bool = False
    signer: str | None = None


@dataclass(frozen=True)
class Changes:
    """Paths that are not as the seal says."""

    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changed or self.added or self.missing)

    def __str__(self) -> str:
        named = {"changed": self.changed, "added": self.added, "missing": self.missing}
        return "; ".join(f"{what}: {', '.join(names)}" for what, names in named.items() if names)


def every_file(folder: Path, *, downloaded: bool = True) -> dict[str, Path]:
    """{path in the repo: file}, hidden ones included, without the seal and the Hub's own .gitattributes.

    `downloaded`: by a git or Hub client into a folder of its user's, where both leave files of their own.
    """
    paths = (path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir())
    found = {path.relative_to(folder).as_posix(): path for path in paths}
    left = _LEFT_LOCALLY if downloaded else ()
    return {name: path for name, path in found.items() if name not in _IGNORED and not name.startswith(left)}


def hashes(files: Mapping[str, Path]) -> dict[str, str]:
    """{path in the repo: sha256}; a link to a folder or to nothing has none."""
    return {name: sha256_of(path) if path.is_file() else "no file" for name, path in files.items()}


def statement(files: Mapping[str, Path], name: str) -> dict[str, Any]:
    """The in-toto statement over `files` of the model `name`, as `model-signing` would write it."""
    resources = [{"name": path, "algorithm": "sha256", "digest": sha256_of(files[path])} for path in sorted(files)]
    whole = hashlib.sha256(b"".join(bytes.fromhex(row["digest"]) for row in resources)).hexdigest()
    how = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": sorted(_IGNORED)}
    return {
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": whole}}],
        "predicateType": _PREDICATE,
        "predicate": {"serialization": how, "resources": resources},
    }


def write_seal(folder: Path, key: Path | None = None) -> None:
    """Seal what lies in `folder`, signed with the private `key` (a PEM file) where one is given; nothing may be
    written there afterwards. Raises UsageError for a key that cannot sign."""
    if key is None:
        write_json(folder / SEAL, statement(every_file(folder, downloaded=False), folder.name))
        return
    signing = _tool()
    config = (
        signing.signing.Config()
        .set_hashing_config(_hashing(signing))
        .use_elliptic_key_signer(private_key=key, password=_password())
    )
    config.sign(folder, folder / SEAL)


def read_seal(path: Path) -> Seal:
    """The seal in the file `path`, of which no signature is checked. Raises LungCTError for one that says nothing."""
    record = read_json(path, f"There is no {path.name}.")
    try:
        signer, signed = None, "dsseEnvelope" in record
        if signed:
            signer = (record["verificationMaterial"].get("publicKey") or {}).get("hint")
            record = json.loads(base64.b64decode(record["dsseEnvelope"]["payload"], validate=True))
        if (record["_type"], record["predicateType"]) != (_STATEMENT, _PREDICATE):
            raise ValueError(f"its predicate is {record['predicateType']}")
        resources = record["predicate"]["resources"]
        files = {str(row["name"]): str(row["digest"]) for row in resources if row["algorithm"] == "sha256"}
        if len(files) != len(resources):
            raise ValueError("a file is named twice, or not by its sha256")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LungCTError(f"{path.name} is no seal over the files ({brief(error)}).") from error
    return Seal(files, signed, signer)


def changes(seal: Seal, here: Mapping[str, str]) -> Changes:
    """How the files `here` {path: sha256} differ from those that were sealed."""
    return Changes(
        tuple(name for name in sorted(seal.files) if name in here and here[name] != seal.files[name]),
        tuple(name for name in sorted(here) if name not in seal.files),
        tuple(name for name in sorted(seal.files) if name not in here),
    )


def foreign_attributes(folder: Path) -> list[str]:
    """Lines of .gitattributes, which no seal covers, that say more than which files are large or text."""
    path = folder / GITATTRIBUTES
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    return [line for line in lines if not _ATTRIBUTE.fullmatch(line)]


def check_signature(folder: Path, key: Path, *, downloaded: bool = True) -> str | None:
    """Why seal.json in `folder` is no signature of these very files by the public `key` (PEM); None where it is.

    The tool hashes every file itself. Raises UsageError where `key` is no public key.
    """
    tool = _tool()
    fingerprint(key)
    ignored = [*_IGNORED, *(_LEFT_LOCALLY if downloaded else ())]
    verifier = (
        tool.verifying.Config().set_hashing_config(_hashing(tool, ignored)).use_elliptic_key_verifier(public_key=key)
    )
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):  # of seals by its older versions it prints a warning
            verifier.verify(folder, folder / SEAL)
    except Exception as error:  # whatever its parsers and its cryptography raise for a seal that somebody has made
        return brief(error) or type(error).__name__
    return None


def fingerprint(key: Path) -> str:
    """The sha256 of a public key as PEM, of a private `key` that of its public one: what a seal names its signer by.

    Raises UsageError for a file that is no key on one of the curves that are signed with.
    """
    _tool()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        content = key.read_bytes()
    except OSError as error:
        raise UsageError(f"The key {key} cannot be read ({brief(error)}). {_FIX}") from error
    secret = b"PRIVATE KEY" in content
    try:
        loaded = (
            serialization.load_pem_private_key(content, _password()).public_key()
            if secret
            else serialization.load_pem_public_key(content)
        )
    except TypeError as error:
        raise UsageError(
            f"The key {key} cannot be opened: {brief(error)}. Fix: set {PASSWORD} to its password, or leave it unset "
            "for a key without one."
        ) from error
    except Exception as error:  # several kinds, for several ways of being no key
        raise UsageError(
            f"{key} is no key in PEM ({brief(error)}), or {PASSWORD} is not its password. {_FIX}"
        ) from error
    if not isinstance(loaded, ec.EllipticCurvePublicKey) or loaded.curve.name not in _CURVES:
        raise UsageError(f"{key} is no elliptic-curve key on P-256, P-384 or P-521. {_FIX}")
    pem = loaded.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()


def check_private_key(key: Path) -> str:
    """The fingerprint of a key that can sign. Raises UsageError for any other file."""
    found = fingerprint(key)
    if b"PRIVATE KEY" not in key.read_bytes():
        raise UsageError(f"{key} is a public key, which cannot sign. Fix: name the private one.")
    return found


def _password() -> bytes | None:
    found = os.environ.get(PASSWORD)
    return found.encode() if found else None


def _hashing(tool: Any, ignored: list[str] | None = None) -> Any:
    """The tool's way of hashing, with links followed where the Hub's cache is made of them (`ignored` is given)."""
    config = tool.hashing.Config().use_file_serialization().set_allow_symlinks(ignored is not None)
    return config.set_ignored_paths(paths=ignored or list(_IGNORED), ignore_git_paths=False)


def _tool() -> Any:
    require("model_signing", "sign")
    require("OpenSSL", "sign")
    import model_signing

    return model_signing
