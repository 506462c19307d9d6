"""Which slices of a study belong together: each scan by itself, and what is no scan beside one."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..slices.frame import Frame, Unreadable
from ..slices.image_type import DERIVED_SERIES
from ..slices.report import InputReport, ordered
from ..slices.series import SeriesChoice
from .prediction import ERROR, REFUSED, Prediction

# Of a picture that is no CT slice at all, beside a scan.
_NO_SCAN = {"other-series", "not-ct", "burned-in-text", "colour-photograph", "too-small"}


@dataclass(frozen=True)
class Group:
    """The slices of one scan in its order; `beside` are localizers, projections, reports and files that gave none."""

    key: str | None
    description: str | None
    slices: list[Prediction]
    beside: list[Prediction]

    @property
    def voters(self) -> list[Prediction]:
        """The slices that a decision may rest on; their output may still turn out not to be finite."""
        return [row for row in self.slices if row.confidence is not None]


def mark_others(found: Frame | Unreadable, choice: SeriesChoice | None) -> Frame | Unreadable:
    """A slice of another series than the chosen one with the code that says so."""
    if choice is None or isinstance(found, Unreadable) or choice.fits(found.series, found.names):
        return found
    report = found.report
    codes = ordered({*report.codes, "other-series"})
    return replace(found, report=InputReport(codes, report.warnings, report.facts))


def group_by_series(rows: Sequence[Prediction], choice: SeriesChoice | None = None) -> list[Group]:
    """The scans among `rows`, in the order in which they come, at least one.

    DICOM files are one scan by their series, a volume is one, and so are the pages of a file and the pictures of a
    folder, which say nothing about it. Series that were made from others count only where they are chosen.
    """
    found: dict[str, list[Prediction]] = {}
    pages = {row.file for row in rows if row.frame and row.series is None}
    for row in rows:
        found.setdefault(_key_of(row, pages), []).append(row)
    is_named = choice is not None and not choice.is_largest
    groups, beside = [], list[Prediction]()
    for members in found.values():
        counted = [row for row in members if _counts(row, is_named)]
        first = counted[0] if counted else None
        is_scan = first is not None and not (first.series is None and all(row.confidence is None for row in counted))
        if first is None or not is_scan:
            beside += members
            continue
        others = [row for row in members if not _counts(row, is_named)]
        counted.sort(key=lambda row: (row.series or "", math.inf if row.position is None else row.position))
        groups.append(Group(first.series, first.description, counted, others))
    if choice is not None and choice.is_largest and len(groups) > 1:
        largest = max(groups, key=lambda group: len(group.voters))
        beside += [_other(row) for group in groups if group is not largest for row in (*group.slices, *group.beside)]
        groups = [largest]
    if not groups:
        return [Group(None, None, [], list(rows))]
    return [replace(groups[0], beside=groups[0].beside + beside), *groups[1:]]


def _key_of(row: Prediction, pages: set[str]) -> str:
    if row.series is not None:
        return f"series {row.series}"
    if row.file in pages:
        return f"file {row.file}"
    table = re.fullmatch(r"(.*\.parquet)/\d+(/[^/]*)?", row.file)  # a row of a table
    return f"folder {table[1] if table else row.file.rpartition('/')[0]}"


def _counts(row: Prediction, is_named: bool) -> bool:
    """Whether a row is a slice of a scan, answered or not."""
    if row.decision == ERROR or (row.decision == REFUSED and row.reason in _NO_SCAN):
        return False
    left_out = row.report.left_out if row.report else None
    return left_out is None or (is_named and left_out == DERIVED_SERIES)


def _other(row: Prediction) -> Prediction:
    """A slice of a series that is not the largest, without the answer that it got before that was known."""
    if row.report is None:
        return row
    codes = ordered({*row.report.codes, "other-series"})
    report = InputReport(codes, row.report.warnings, row.report.facts)
    nothing: dict[str, Any] = dict.fromkeys(("probabilities", "confidence", "distance", "cam", "pixels"))
    return replace(row, decision=REFUSED, reason="other-series", report=report, forced=False, **nothing)
