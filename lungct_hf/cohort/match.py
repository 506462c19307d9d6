"""Find every slice of a cohort in a manifest: by its bytes and label, so that renamed files are found as well."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from ..errors import LungCTError
from ..labels import LABELS
from .cohort import Cohort
from .names import first_few


def match_rows(shown: str, ids: np.ndarray, sha256: np.ndarray, labels: np.ndarray, cohort: Cohort) -> np.ndarray:
    """For each slice of `cohort` the manifest row with the same bytes and label; renamed files are found by sha256.

    Raises:
        LungCTError: a slice of the manifest is missing (copies count one by one) or changed, its label differs, or the
            data have more files. The text names the first few.
    """
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, sha in enumerate(sha256.tolist()):
        rows_of[sha].append(row)
    matched = np.full(len(cohort), -1, dtype=np.int64)
    waiting: list[int] = []
    names = dict(zip(ids.tolist(), range(len(ids)), strict=True))
    for i, (name, sha, label) in enumerate(
        zip(cohort.ids.tolist(), cohort.sha256.tolist(), cohort.labels, strict=True)
    ):
        namesake = names.get(name)
        if namesake is not None and sha256[namesake] == sha and labels[namesake] == label:
            matched[i] = namesake
            rows_of[sha].remove(namesake)
        else:
            waiting.append(i)
    problems: dict[str, list[str]] = defaultdict(list)
    named: set[str] = set()  # of the rows that a problem has told of
    for i in waiting:
        name, label = str(cohort.ids[i]), int(cohort.labels[i])
        left = rows_of[str(cohort.sha256[i])]
        same = [row for row in left if labels[row] == label]
        if same:
            matched[i] = same[0]
            left.remove(same[0])
        elif left:
            named.add(name)
            was = LABELS[int(labels[left.pop(0)])]
            problems["with another label"].append(f'"{name}" ({LABELS[label]}, in the manifest {was})')
        elif name in names:
            named.add(name)
            problems["with other bytes"].append(f'"{name}"')
        else:
            problems["that the manifest does not list"].append(f'"{name}"')
    here = set(cohort.ids.tolist())
    for name in (str(ids[row]) for rows in rows_of.values() for row in rows):
        # A name that is still there tells nothing: another slice of the manifest may have been moved over it.
        if name not in named:
            now = " (that file now holds another slice)" if name in here else ""
            problems["missing from the data"].append(f'"{name}"{now}')
    if problems:
        text = "; ".join(f"{len(found)} {what}: {first_few(found, 5)}" for what, found in problems.items())
        raise LungCTError(
            f'The data do not match the split manifest "{shown}". Files {text}. Fix: restore these files, or make a '
            f"new split."
        )
    return matched
