"""A study's rows as CSV for a download."""

from __future__ import annotations

import csv
import io

from ..runtime import Study
from ..runtime.prediction import NOTICE, columns


def study_csv(study: Study) -> str:
    """A row for each slice, one named "(case)" for the study or for each scan in it, and the notice in every row."""
    cases = [_case(one) for one in study.studies or (study,)]
    text = io.StringIO()
    # The note came later: it stands after what readers of such a table already know.
    *known, note = columns(study.classes)
    writer = csv.DictWriter(text, [*known, "model", "notice", note], lineterminator="\n")
    writer.writeheader()
    for row in [*(one.row() for one in study.slices), *cases]:
        found = {key: _harmless(value) for key, value in row.items()}
        writer.writerow(found | {"model": study.model, "notice": NOTICE})
    return text.getvalue()


def _case(study: Study) -> dict[str, object]:
    values = {"decision": study.decision, "reason": study.reason, "revision": study.revision}
    chances = {f"p_{name}": value for name, value in (study.probabilities or {}).items()}
    place = {"series": study.series_key, "detail": study.description, "note": study.note}
    return {"file": "(case)", **values, **chances, **place}


def _harmless(value: object) -> object:
    """A file name that a spreadsheet would run as a formula, as text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
