"""One hash for all slices of a cohort."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ..classes import Classes


def fingerprint(sha256: Iterable[str], labels: Iterable[int], classes: Classes) -> str:
    """sha256 over the sorted lines "SHA256 LABEL": names and order do not matter, one changed byte does."""
    lines = sorted(f"{sha} {classes[label]}\n" for sha, label in zip(sha256, labels, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
