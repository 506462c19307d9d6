"""The audit as one HTML page that opens anywhere: no network, no script, light and dark, phone and desk."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import numpy as np

from .copies import Pairs
from .findings import across_splits, by_class
from .likeness import BLIND_SPOTS
from .pictures import curves, picture, shares, strip
from .probes import VIEWS
from .report import Audit

_PAIRS = 6  # per relation
_GROUPS, _PER_GROUP = 24, 10


def render_page(audit: Audit) -> str:
    """The page as text. Pictures are read again from the data."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = lambda value: "–" if value is None else f"{value:.1%}"
    template = environment.from_string(files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
    figures = audit.figures
    return template.render(
        **{name: value for name, value in figures.items() if name not in ("near_copies", "likeness")},
        warnings=audit.warnings,
        cut=audit.copies.cut,
        views=VIEWS,
        pairs=_pairs(audit),
        sheet=_sheet(audit),
        likeness=Markup(_likeness(figures, audit.copies.cut)),
        blind_spots=BLIND_SPOTS,
        likeness_names=_LIKENESS,
        levels=Markup(_levels(audit)),
    )


_LIKENESS = {
    "consecutive": "consecutive files",
    "one class": "random, one class",
    "two classes": "random, two classes",
}


def _likeness(figures: dict[str, Any], cut: float) -> str:
    found = figures["likeness"]
    series = {words: shares(found[name]) for name, words in _LIKENESS.items()}
    ticks = (-0.2, 0, 0.2, 0.4, 0.6, 0.8, 1)
    return curves(found["bin_edges"], series, ticks, "likeness of pairs", (cut, f"near-copy from {cut:.2f}"))


def _levels(audit: Audit) -> str:
    """The mean share of each grey level per class; a square root, so that one peak does not flatten the rest."""
    series = {}
    for label, name in enumerate(audit.slices.classes):
        counts = audit.slices.histograms[audit.slices.rows(label)].astype(np.float64)
        series[name] = np.sqrt((counts / counts.sum(axis=1, keepdims=True)).mean(axis=0)).tolist()
    return curves(list(range(257)), series, (0, 64, 128, 192, 255), "grey levels per class")


def _pairs(audit: Audit) -> list[dict[str, Any]]:
    """The pairs to look at: the most alike of each relation, each slice and each pair of groups once."""
    slices = audit.slices
    within, across = by_class(slices, audit.copies)
    in_splits = across_splits(slices, audit.copies)
    identical = [
        (rows[0], next(row for row in rows if slices.splits[row] != slices.splits[rows[0]]), 1.0, False)
        for rows in in_splits[1]
        if slices.splits[rows[0]]
    ]
    relabelled = [
        (rows[0], next(row for row in rows if slices.labels[row] != slices.labels[rows[0]]), 1.0, False)
        for rows in audit.copies.same_pixels
        if len(set(slices.labels[rows].tolist())) > 1
    ]
    out = []
    for title, first, pairs in (
        ("Across classes", relabelled, across),
        ("Across the data's own splits", identical, in_splits[0]),
        ("Within a class", [], within),
    ):
        chosen = (first + _varied(audit, pairs))[:_PAIRS]
        if chosen:
            shown = [
                {"likeness": value, "mirrored": mirrored, "slices": [_captioned(audit, row) for row in (i, j)]}
                for i, j, value, mirrored in chosen
            ]
            out.append({"title": title, "pairs": shown})
    return out


def _varied(audit: Audit, pairs: Pairs) -> list[tuple[int, int, float, bool]]:
    groups = audit.slices.group_numbers
    seen: set[frozenset[int]] = set()
    out: list[tuple[int, int, float, bool]] = []
    columns = (pairs.i, pairs.j, pairs.likeness, pairs.mirrored)
    for i, j, value, mirrored in zip(*(column.tolist() for column in columns), strict=True):
        key = frozenset((int(groups[i]), int(groups[j])))
        if key not in seen and len(out) < _PAIRS:
            seen.add(key)
            out.append((i, j, value, mirrored))
    return out


def _captioned(audit: Audit, row: int) -> dict[str, str]:
    slices = audit.slices
    where = ", ".join(filter(None, [slices.classes[slices.labels[row]], str(slices.splits[row])]))
    return {"src": picture(slices, row), "id": str(slices.ids[row]), "where": where}


def _sheet(audit: Audit) -> list[dict[str, Any]]:
    """The largest groups, a strip of thumbnails each, in the order of the file names."""
    slices = audit.slices
    place = np.argsort(slices.natural_order)
    counts = np.bincount(slices.group_numbers)
    first = np.full(len(counts), len(slices))
    np.minimum.at(first, slices.group_numbers, place)
    out = []
    for group in np.lexsort((first, -counts))[:_GROUPS]:
        rows = np.flatnonzero(slices.group_numbers == group)
        rows = rows[np.argsort(place[rows])]
        shown = rows[np.unique(np.linspace(0, len(rows) - 1, min(_PER_GROUP, len(rows))).round().astype(int))]
        classes = sorted({slices.classes[label] for label in slices.labels[rows]})
        out.append(
            {
                "src": strip(slices, shown.tolist()),
                "slices": len(rows),
                "classes": ", ".join(classes),
                "several": len(classes) > 1,
                "first": str(slices.ids[rows[0]]),
                "last": str(slices.ids[rows[-1]]),
                "width": len(shown),
            }
        )
    return out
