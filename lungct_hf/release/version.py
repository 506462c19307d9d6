"""Version numbers and the tags that carry them: vX.Y.Z, and vX.Y.Z+rollback.N where an older version came back."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import UsageError

_NUMBER = r"(0|[1-9]\d{0,8})"
_VERSION = re.compile(rf"v?{_NUMBER}\.{_NUMBER}\.{_NUMBER}")
_TAG = re.compile(rf"v{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:\+rollback\.([1-9]\d{{0,8}}))?")


@dataclass(frozen=True, order=True)
class Version:
    """Ordered as semantic versioning orders them; the `rollback` number, 0 for none, comes last."""

    major: int
    minor: int
    patch: int
    rollback: int = 0

    @classmethod
    def parse(cls, text: str) -> Version:
        """From "1.2.0" or "v1.2.0". Raises UsageError for anything else."""
        match = _VERSION.fullmatch(text.strip())
        if match is None:
            raise UsageError(f"{text!r} is not a version. Fix: three numbers as in 1.2.0.")
        return cls(*map(int, match.groups()))

    @classmethod
    def of_tag(cls, tag: str) -> Version | None:
        """The version that a tag names, None for a tag that is no release's."""
        match = _TAG.fullmatch(tag)
        return cls(*(int(number or 0) for number in match.groups())) if match else None

    @property
    def number(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"

    @property
    def tag(self) -> str:
        return f"v{self.number}" + (f"+rollback.{self.rollback}" if self.rollback else "")
