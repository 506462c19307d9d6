"""What a run was: written beside its output, so that the rows can be traced to a model and a call."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .. import __version__

_PACKAGES = ("numpy", "pillow", "pydicom", "onnxruntime", "torch")


@dataclass
class Tally:
    """Counts of the rows that pass through `of`."""

    decisions: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    studies: dict[str, list[str]] = field(default_factory=dict)  # of each source what its scans are called

    def of(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        for row in rows:
            self.decisions[row["decision"]] += 1
            if row["reason"]:
                self.reasons[row["reason"]] += 1
            yield row

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": self.decisions.total(),
            "decisions": dict(sorted(self.decisions.items())),
            "reasons": dict(sorted(self.reasons.items())),
        }

    @property
    def sentence(self) -> str:
        """Such as "12 rows: 9 CLASS, 2 abstain, 1 error"."""
        parts = ", ".join(f"{count:,} {name}" for name, count in self.decisions.most_common())
        return f"{self.decisions.total():,} rows: {parts or 'nothing'}"


def versions() -> dict[str, str]:
    """What computed the rows; packages that are not installed are left out."""
    found = {"python": platform.python_version(), "lungct_hf": __version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
