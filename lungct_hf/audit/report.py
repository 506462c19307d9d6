"""One audit from beginning to end, and its figures as plain values."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import __version__
from ..cohort import Cohort, load_cohort
from ..cohort.names import SPLITS
from ..errors import UsageError, require
from .copies import Copies, find_copies
from .findings import Finding, across_splits, by_class, file_order, find_warnings, remarks
from .geometry import geometry
from .grey import TRACES, TRACES_OF_PROCESSED, class_differences, statistics
from .likeness import BLIND_SPOTS
from .probes import VIEWS, run_probes
from .slices import Slices

SCHEMA = 1
MAX_PAIRS = 200  # near-copy pairs listed per relation
_BINS = np.linspace(-0.2, 1, 61)


@dataclass(frozen=True, eq=False)
class Audit:
    """What was found: `figures` (plain values, ready for JSON), `warnings`, and what pictures are drawn from."""

    figures: dict[str, Any]
    warnings: tuple[Finding, ...]
    slices: Slices
    copies: Copies

    def to_dict(self) -> dict[str, Any]:
        """The JSON: the warnings first, then all figures."""
        return {"schema": SCHEMA, "warnings": [warning.to_dict() for warning in self.warnings], **self.figures}


def audit_data(data: str, *, seed: int = 0, folds: int = 5, progress: bool = True, **how: Any) -> Audit:
    """Audit the data set that `data` names; `how` is what `load_cohort` takes (classes, labels, group_column, ...).

    Raises:
        UsageError: the call makes no sense.
        LungCTError: the data cannot be audited; the text says what came, what is needed and the fix.
    """
    _check(seed, folds)
    return audit_cohort(load_cohort(data, progress=progress, **how), seed=seed, folds=folds, progress=progress)


def _check(seed: int, folds: int) -> None:
    if folds < 2:
        raise UsageError(f"{folds} folds were asked for; at least 2 are needed.")
    if not 0 <= seed < 2**31:
        raise UsageError(f"The seed is {seed}; it must be between 0 and {2**31 - 1}.")
    for module in ("sklearn", "scipy"):
        require(module, "train")


def audit_cohort(cohort: Cohort, *, seed: int = 0, folds: int = 5, progress: bool = True) -> Audit:
    """Audit a cohort.

    The result depends on the pictures, labels, groups and (for `file-order` alone) on the names, not on the order in
    which files are listed. No slice is decoded again; memory peaks at about 70 KB per slice, the cohort's included
    (benchmarks/audit_memory.py).

    Raises:
        UsageError: the call makes no sense.
        LungCTError: there is nothing to compare.
    """
    _check(seed, folds)
    slices = Slices.of(cohort)
    copies = find_copies(slices, seed, progress)
    processed, differences = class_differences(slices)
    words = {trace.name: trace.words for trace in (*TRACES, *TRACES_OF_PROCESSED)}
    histograms = {"processed": processed, "traces": differences, "words": words}
    order = file_order(slices, copies)
    probes = run_probes(slices, folds, seed, progress)
    found = find_warnings(slices, copies, order, histograms, probes)
    figures = {
        "made_by": f"lungct_hf {__version__}",
        "data": {
            "source": cohort.source,
            "kind": cohort.kind,
            "slices": len(slices),
            "notes": list(cohort.notes),
            "left_out": dict(cohort.left_out),
            "bad_files": [{"id": entry.id, "reason": entry.reason} for entry in slices.bad_files],
        },
        "remarks": remarks(probes),
        "options": {"seed": seed, "folds": folds, "group_column": _column(cohort)},
        "classes": _classes(slices),
        "splits": _splits(slices, copies),
        "groups": _groups(slices),
        "duplicates": _duplicates(slices, copies),
        "near_copies": _near_copies(slices, copies),
        "file_order": order,
        "geometry": geometry(slices),
        "grey": statistics(slices),
        "histograms": histograms,
        "probes": probes | {"words": {name: ": ".join(words) for name, words in VIEWS.items()}},
        "likeness": {
            "bin_edges": [round(float(edge), 2) for edge in _BINS],
            **{
                name: np.histogram(np.maximum(values, _BINS[0]), bins=_BINS)[0].tolist()
                for name, values in ({"consecutive": copies.consecutive.likeness} | copies.samples).items()
            },
        },
    }
    return Audit(figures, tuple(found), slices, copies)


def _column(cohort: Cohort) -> str | None:
    return cohort.grouping.removeprefix("column:") if cohort.grouping.startswith("column:") else None


def _classes(slices: Slices) -> dict[str, dict[str, int]]:
    out = {}
    for label, name in enumerate(slices.classes):
        rows = slices.rows(label)
        out[name] = {
            "slices": len(rows),
            "pictures": len(set(slices.pixels[rows].tolist())),
            "groups": len(set(slices.groups[rows].tolist())),
        }
    return out


def _splits(slices: Slices, copies: Copies) -> dict[str, Any]:
    """The data's own splits: slices per class, and what crosses them."""
    named = [split for split in (*SPLITS, "") if split in set(slices.splits.tolist())]
    near, same, groups = across_splits(slices, copies)
    return {
        "counts": {
            split or "none": {
                name: int(((slices.splits == split) & (slices.labels == label)).sum())
                for label, name in enumerate(slices.classes)
            }
            for split in named
        },
        "identical_pictures_across": len(same),
        "slices_with_near_copy_across": len(near.rows()),
        "named_groups_across": len(groups) if slices.groups_are_named else None,
    }


def _groups(slices: Slices) -> dict[str, Any]:
    sizes = Counter(slices.groups.tolist())
    classes: dict[str, set[int]] = {}
    for group, label in zip(slices.groups.tolist(), slices.labels.tolist(), strict=True):
        classes.setdefault(group, set()).add(label)
    of_size = Counter(sizes.values())
    return {
        "grouping": slices.grouping,
        "groups": len(sizes),
        "largest": max(sizes.values()),
        "median_size": float(np.median(list(sizes.values()))),
        "with_several_classes": sum(len(found) > 1 for found in classes.values()),
        "sizes": {str(size): of_size[size] for size in sorted(of_size)},
    }


def _duplicates(slices: Slices, copies: Copies) -> dict[str, Any]:
    sets = sorted((sorted(slices.ids[rows].tolist()) for rows in copies.same_pixels), key=str)
    return {
        "distinct_files": len(set(slices.sha256.tolist())),
        "distinct_pictures": len(set(slices.pixels.tolist())),
        "sets": sets[:MAX_PAIRS],
        "total_sets": len(sets),
    }


def _near_copies(slices: Slices, copies: Copies) -> dict[str, Any]:
    """Pairs that were looked at closely: up to 16 candidates per slice, so `pairs_found` is a lower bound."""
    within, across = by_class(slices, copies)
    out: dict[str, Any] = {"cut": round(copies.cut, 4), "not_recognised": BLIND_SPOTS}
    relations = {
        "within_class": within,
        "across_classes": across,
        "across_splits": across_splits(slices, copies)[0],
    }
    for name, pairs in relations.items():
        listed = zip(pairs.i[:MAX_PAIRS], pairs.j[:MAX_PAIRS], pairs.likeness[:MAX_PAIRS], strict=True)
        out[name] = {
            "slices": len(pairs.rows()),
            "pairs_found": len(pairs),
            "mirrored_pairs": int(pairs.mirrored.sum()),
            "pairs": [[*sorted((str(slices.ids[i]), str(slices.ids[j]))), round(float(v), 4)] for i, j, v in listed],
        }
    return out
