"""Why a release is refused: every code, what it means, and whether its author may override it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import RefusedError, UsageError

CODES = {
    "split-mismatch": "split.csv, predictions.parquet and lungct.json do not speak of the same split",
    "data-mismatch": "the data fingerprint in lungct.json is not that of the slices in split.csv",
    "groups-across-split": "a group has slices both in test and outside it, or both in training and in validation",
    "random-init": "training started from random weights",
    "stand-in-init": "training started from a file that stands in for the published ImageNet weights",
    "unknown-init": "it is not recorded what training started from",
    "classes-changed": "the classes, or their order, are not those of the last version",
    "regression": "the grouped score is worse than the last version's, beyond its interval",
    "calibration-worse": "the calibration error is worse than the last version's, beyond its interval, or it was lost",
    "no-guard": "the model has no source guard, so it would answer for slices from any hospital, scanner or window",
    "shortcut-probe": "what sees only the outer ring of the slice does as well, or better than chance",
    "canary-changed": "the same weights give a canary another answer than the last version",
    "loader-mismatch": "two ways of loading the model disagree on a canary",
    "version-not-greater": "the version is not greater than the last one",
    "tag-exists": "the tag of this version names another commit",
    "pickle": "a pickle is among the files",
    "code": "a program, or a configuration that makes a loader run one, is among the files",
    "secret": "something that looks like an access token or a private key is among the files",
    "patient-data": "a DICOM file, a DICOM tag of a person or a person's name is among the files or ids",
    "metrics-mismatch": "metrics.json does not follow from predictions.parquet",
    "calibration-mismatch": "the stored abstentions or the rule's promise do not follow from the stored answers",
    "external-mismatch": "what is stored of tests elsewhere does not follow from its predictions",
    "external-stale": "a test elsewhere was made with other weights, or with another window or input check",
    "external-false-alarms": "more false alarms elsewhere than the last version had, beyond its interval",
    "external-missing": "an outside set that the last version was tested on is not tested any more",
    "card-mismatch": "README.md was edited outside the author's text",
}
HARD = ("tag-exists", "pickle", "code", "secret")  # published is published: no override


@dataclass(frozen=True)
class Reason:
    """One refusal: its code and a sentence with the particulars."""

    code: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.code}: {self.sentence}"


def check_allowed(codes: Sequence[str]) -> None:
    """Raise UsageError for a code that does not exist or cannot be overridden."""
    for code in codes:
        if code not in CODES:
            raise UsageError(f"There is no gate code {code!r}. Known: {', '.join(CODES)}.")
        if code in HARD:
            raise UsageError(f"{code} cannot be allowed: {CODES[code]}. Fix: remove the cause.")


def sift(reasons: Sequence[Reason], allowed: Sequence[str]) -> tuple[list[Reason], list[Reason]]:
    """(those that refuse, those that the author overrides)."""
    return [r for r in reasons if r.code not in allowed], [r for r in reasons if r.code in allowed]


def refuse(reasons: Sequence[Reason], what: str = "release") -> None:
    """Raise RefusedError for `what` is not published, with one line per reason, if there is any."""
    if reasons:
        soft = sorted({reason.code for reason in reasons} - set(HARD))
        hint = f"\nFix the causes, or override with {' '.join(f'--allow {code}' for code in soft)}." if soft else ""
        lines = "\n".join(f"  {reason}" for reason in reasons)
        raise RefusedError(f"The {what} is refused:\n{lines}{hint}")
