"""The report as one HTML file that needs nothing else: tables and plots inside it, no script, no network."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from ..files import write_atomic
from ..hub.external import NEVER
from . import tables
from .report import BASELINES, Report

_CAPTIONS = {
    "comparison": "Balanced accuracy of everything that was measured. A model is worth what it adds to the baselines.",
    "confusion": "True and named classes; per cent of the row.",
    "roc": "How well each class's probability ranks the slices.",
    "roc_positive": "How well the probability of any positive class ranks the slices; the band holds 95 % of the "
    "draws of groups. Points: what the cuts that were fitted on validation groups reach on the test groups.",
    "precision_recall": "The same where a class is rare: how many of the named slices are right.",
    "reliability": "Whether a confidence means what it says; larger points hold more slices.",
    "risk_coverage": "The error that remains when only the most confident answers are given.",
    "worst_errors": "What the model was surest of and wrong about, one slice per group.",
}


def write_page(
    report: Report,
    pictures: list[Path],
    path: Path,
    *,
    model: str,
    data: str | None = None,
    external: Mapping[str, Any] | None = None,
) -> Path:
    """Write the page with the PNGs `pictures` inside it; `model` and `data` are named in its heading.

    `external` are the model's tests on other data by set, None where the page is not about the model itself.
    """
    metrics = report.metrics
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = page.from_string(template).render(
        model=model,
        data=data,
        headline=tables.headline(metrics),
        notes=tables.notes(metrics),
        comparison=tables.comparison_rows(metrics),
        gap=tables.gap_rows(metrics),
        figures=tables.figure_rows(metrics),
        classes=tables.class_rows(metrics),
        class_columns=tables.class_columns(metrics),
        folds=metrics["test"].get("folds", []),
        mean=metrics["test"].get("mean_of_folds"),
        operating=tables.operating_rows(metrics),
        operating_title=tables.operating_title(metrics),
        positive=tables.positive_names(metrics),
        protocol=metrics["protocol"],
        bootstrap=metrics["bootstrap"],
        baselines=[(tables.SOURCES[name], BASELINES[name]) for name in metrics["baselines"]],
        external=external
        if external is None
        else [
            (tables.external_title(name, one), tables.external_rows(one), tables.external_notes(one))
            for name, one in external.items()
        ],
        never=NEVER,
        pooling=metrics["test"]["cases"]["pooling"],
        pictures=[(file.stem, _CAPTIONS.get(file.stem, ""), _inline(file)) for file in pictures],
    )
    write_atomic(path, text)
    return path


def _inline(picture: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode("ascii")
