"""Test a model on slices that it was not made from: read them, and decide about each as the runtime does."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from ..cohort import Cohort, Split, load_cohort
from ..cohort.outside import LEFT_OUT, Outside
from ..errors import LungCTError
from ..hub.model_repo import SPLIT
from ..runtime import LungCT
from ..runtime.prediction import ABSTAIN, REFUSED

_BATCH = 32


def measure(
    model: LungCT,
    name: str,
    data: str,
    outside: Outside,
    *,
    on_bad_file: Literal["refuse", "skip"] = "refuse",
    progress: bool = True,
) -> tuple[list[dict[str, object]], dict[str, Any]]:
    """(rows of external.SCHEMA, what the set was) of the data set `data`, called `name`, by `model`.

    Of identical files one is kept, and none where they have different labels; slices of the model's own data, and
    all that share a group with one of them, are left out.

    Raises LungCTError where the data cannot be used, or nothing is left to test on.
    """
    contract = model.contract
    cohort = load_cohort(
        data,
        outside=outside,
        window=contract.window,
        preprocessing=contract.preprocessing,
        on_bad_file=on_bad_file,
        progress=progress,
    )
    kept, left_out = _choose(cohort, _own_slices(model))
    if not len(kept):
        told = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise LungCTError(
            f"{name} has no slices to test the model on (left out: {told or 'none'}). Fix: name a data set that the "
            "model was not made from."
        )
    titles = [outside.title, cohort.known_set.title if cohort.known_set else "", name]
    facts: dict[str, Any] = {
        "title": next(filter(None, titles)),
        "kind": cohort.kind,
        "classes": dict(cohort.class_map),
        "window": {**asdict(contract.window), "unit": "HU"},
        "grouping": "folders" if outside.patients_are_folders else cohort.grouping,
        "backend": model.backend,
        "left_out": left_out,
    }
    if cohort.kind == "hub":
        facts["source"] = cohort.source
    groups = _folders(cohort) if outside.patients_are_folders else cohort.groups
    return _rows(model, name, cohort, kept, groups, progress), facts


def _own_slices(model: LungCT) -> set[str]:
    """The sha256 of the slices that the model's own evidence is about."""
    repo = model.repo
    return set(Split.read(repo.file(SPLIT), repo.classes).sha256.tolist()) if repo.has(SPLIT) else set()


def _choose(cohort: Cohort, own: set[str]) -> tuple[np.ndarray, dict[str, int]]:
    """The rows to test on, and how many are left out by reason."""
    left_out = Counter(cohort.left_out)
    if cohort.bad_files:
        left_out["unreadable"] = len(cohort.bad_files)
    names = [cohort.classes[number] for number in cohort.labels]
    labels = defaultdict(set)
    for sha, label in zip(cohort.sha256.tolist(), names, strict=True):
        labels[sha].add(label)
    known = set(cohort.groups[np.isin(cohort.sha256, sorted(own))].tolist())
    seen: set[str] = set()
    kept = []
    for row, sha in enumerate(cohort.sha256.tolist()):
        if names[row] == LEFT_OUT:
            left_out["by the class map"] += 1
        elif cohort.groups[row] in known:
            left_out["of the model's own data"] += 1
        elif len(labels[sha]) > 1:
            left_out["with two labels"] += 1
        elif sha in seen:
            left_out["copies of another file"] += 1
        else:
            seen.add(sha)
            kept.append(row)
    return np.array(kept, np.int64), dict(sorted(left_out.items()))


def _folders(cohort: Cohort) -> np.ndarray:
    """(N,) the folder in which each slice's file lies."""
    return np.array([cohort.reader.entries[entry].id.rpartition("/")[0] for entry, _, _ in cohort.reader.places])


def _rows(
    model: LungCT, name: str, cohort: Cohort, kept: np.ndarray, groups_of: np.ndarray, progress: bool
) -> list[dict[str, object]]:
    preprocessing = model.contract.preprocessing
    groups = {group: f"group-{number:04d}" for number, group in enumerate(dict.fromkeys(groups_of[kept].tolist()))}
    made: list[dict[str, object]] = []
    bar = tqdm(total=len(kept), desc=f"Deciding, {name}", unit="slice", delay=2, disable=not progress)
    for start in range(0, len(kept), _BATCH):
        rows = kept[start : start + _BATCH].tolist()
        if cohort.squares is not None:
            squares = np.stack([cohort.squares[row] for row in rows])
        else:
            squares = preprocessing.squares([cohort.read(row) for row in rows])
        logits, features, _ = model.predict_images(squares)
        for place, (row, decision) in enumerate(zip(rows, model.decide(logits, features), strict=True)):
            refused = cohort.reports[row].reason
            made.append(
                {
                    "id": f"{name}/{len(made):05d}",
                    "sha256": str(cohort.sha256[row]),
                    "group": groups[str(groups_of[row])],
                    "label": cohort.classes[cohort.labels[row]],
                    "decision": REFUSED if refused else decision.label or ABSTAIN,
                    "reason": refused or decision.reason,
                    "logits": logits[place].tolist(),
                    "distance": decision.distance,
                }
            )
        bar.update(len(rows))
    bar.close()
    return made
