"""The three classes, their order, and every name they go by in the data sets people download."""

from __future__ import annotations

import re

LABELS: tuple[str, ...] = ("normal", "benign", "malignant")

# "Bengin" is how IQ-OTH/NCCD spells it on disk.
ALIASES: dict[str, str] = {
    "normal": "normal",
    "healthy": "normal",
    "benign": "benign",
    "bengin": "benign",
    "malignant": "malignant",
    "malign": "malignant",
}


def canonical_label(name: str) -> str | None:
    """The class that a folder or label column means by `name`, or None if it is not one of the three.

    Case, punctuation and a trailing "case", "cases", "slice(s)" or "image(s)" do not matter: "Bengin cases" is benign.
    """
    words = re.sub(r"[^a-z]+", " ", name.lower()).split()
    while len(words) > 1 and words[-1] in {"case", "cases", "slice", "slices", "image", "images"}:
        words.pop()
    return ALIASES.get(" ".join(words))
