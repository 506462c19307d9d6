"""One hash for all slices of a cohort."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ..labels import LABELS


def fingerprint(sha256: Iterable[str], labels: Iterable[int]) -> str:
    """sha256 over the sorted lines "SHA256 LABEL": names and order do not matter, one changed byte does."""
    lines = sorted(f"{sha} {LABELS[label]}\n" for sha, label in zip(sha256, labels, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
