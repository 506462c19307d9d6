"""Whose slice it is, as a DICOM header says: used to group slices, and never written down.

Groups and ids are keyed hashes (HMAC-SHA256, 16 hex digits). Without the key, which stays in the run's folder, nobody
can try out patient numbers until one fits.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ..errors import BadSliceError, LungCTError
from ..slices.dicom_file import element, integer, read_dataset

_KEY_BYTES = 32
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_PERSON = ("PatientID", "PatientName", "PatientBirthDate", "OtherPatientIDs", "AccessionNumber")


@dataclass(frozen=True)
class Identity:
    """Whose slice a header says it is; "" where it says nothing. `tells` is all by which it could be traced."""

    patient: str = field(repr=False)
    study: str = field(repr=False)
    series: str = field(repr=False)
    sop: str = field(repr=False)
    number: int | None
    tells: frozenset[str] = field(repr=False)

    @property
    def group(self) -> tuple[str, str]:
        """The widest unit that the header names: its kind and value, ("", "") where it names none."""
        found = (("patient", self.patient), ("study", self.study), ("series", self.series))
        return next(((kind, value) for kind, value in found if value), ("", ""))

    def is_named_by(self, folder: str) -> bool:
        """Whether a folder that is taken for a class is called after this patient, study or series."""
        folded = folder.casefold()
        words = {word for word in re.split(r"[\W_]+", folded) if len(word) > 2}
        values = (self.patient, self.study, self.series)
        return any(len(value) > 2 and value.casefold() in folded for value in values) or (
            bool(words) and words <= self.tells
        )


def read_identity(handle: BinaryIO) -> Identity:
    """Read the header of a DICOM file. Raises BadSliceError where it is damaged."""
    dataset = read_dataset(handle, pixels=False, also=(*_PERSON, *_UIDS))
    values = {name: str(element(dataset, name) or "").strip() for name in (*_PERSON, *_UIDS)}
    words = [*values.values(), *re.split(r"[\s^=,;]+", values["PatientName"])]
    study, series, sop = (values[name] for name in _UIDS)
    return Identity(
        values["PatientID"],
        study,
        series,
        sop,
        integer(dataset, "InstanceNumber"),
        frozenset(word.casefold() for word in words if len(word) > 2),
    )


class Pseudonyms:
    """Keyed hashes of what must not be shown. The key comes from `path`, which is made when it is first needed.

    Without a path the key is random and forgotten with this object.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._key: bytes | None = None

    def __call__(self, kind: str, value: str) -> str:
        """16 hex digits that stand for `value`, a `kind` of thing. Raises LungCTError: the key cannot be read."""
        if self._key is None:
            self._key = secrets.token_bytes(_KEY_BYTES) if self._path is None else _key_of(self._path)
        return hmac.new(self._key, f"{kind}\0{value}".encode(), hashlib.sha256).hexdigest()[:16]


def _key_of(path: Path) -> bytes:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Made whole under another name, then linked: of two processes that want it, both read the first one's.
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as stream:
                stream.write(secrets.token_bytes(_KEY_BYTES))
            if not path.exists():
                os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        key = path.read_bytes()
    except OSError as error:
        raise LungCTError(
            f"{path.name}, the key of the groups, cannot be read or made: {error.strerror or error}. Fix: give "
            "yourself access."
        ) from error
    if len(key) != _KEY_BYTES:
        raise LungCTError(f"{path.name} is no key of groups. Fix: restore it, or remove it and make a new split.")
    return key


class Masked:
    """Hides what headers tell of people in what is shown of the paths to their files."""

    def __init__(self, identities: Iterable[Identity]) -> None:
        self._tells = frozenset().union(*(identity.tells for identity in identities))

    def tells(self, text: str) -> bool:
        """Whether `text` holds something by which a person could be traced."""
        folded = text.casefold()
        return any(word in folded for word in self._tells)

    def path(self, path: str) -> str:
        """`path` with "..." for each part that tells, up to the ending of the last."""
        parts = path.split("/")
        return "/".join("..." if self.tells(part) else part for part in parts)


def identity_or_none(handle: BinaryIO) -> Identity | None:
    """`read_identity`, or None for a header that is damaged: decoding the file says why. The handle is rewound."""
    try:
        return read_identity(handle)
    except BadSliceError:
        return None
    finally:
        handle.seek(0)
