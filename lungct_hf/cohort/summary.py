"""What a split amounts to, as plain values for a table or JSON."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from .names import SPLITS
from .split import Split


def summarise(split: Split, largest: int = 5) -> dict[str, Any]:
    """Slices and groups per class, fold and split, the `largest` groups, and how many slices each kind of link ties.

    A group with slices of two classes counts for both, and once in "all".
    """
    parts = (
        {f"fold {fold}": split.fold_of == fold for fold in range(split.folds)} if (split.fold_of >= 0).any() else {}
    )
    parts |= {name: split.split == name for name in (*SPLITS, "dropped")}
    sizes = Counter(split.groups.tolist())
    return {
        "protocol": split.protocol,
        "grouping": split.grouping,
        "rule": split.rule,
        "fold": split.fold,
        "folds": split.folds,
        "seed": split.seed,
        "margin": split.margin,
        "hash": split.hash,
        "groups_crossing": split.groups_crossing,
        "groups_in_training_and_validation": split.groups_in_training_and_validation,
        "slices": len(split.ids),
        "groups": len(sizes),
        "parts": {name: _count(split, rows) for name, rows in parts.items()},
        "all": _count(split, np.ones(len(split.ids), bool)),
        "largest_groups": [
            _describe(split, group)
            for group, _ in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:largest]
        ],
        "links": dict(
            Counter(reason.split(maxsplit=1)[0].strip(";") for reason in split.reasons if reason).most_common()
        ),
    }


def _count(split: Split, rows: np.ndarray) -> dict[str, dict[str, int]]:
    counted = {"all": rows} | {label: rows & (split.labels == i) for i, label in enumerate(split.classes)}
    return {
        name: {"slices": int(part.sum()), "groups": len(set(split.groups[part].tolist()))}
        for name, part in counted.items()
    }


def _describe(split: Split, group: str) -> dict[str, Any]:
    rows = np.flatnonzero(split.groups == group)
    classes = Counter(split.classes[i] for i in split.labels[rows].tolist())
    return {"group": group, "slices": len(rows), "classes": dict(classes), "first": str(split.ids[rows[0]])}
