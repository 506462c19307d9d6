"""The split manifest: a CSV with one row per slice, checked against the data whenever it is used."""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import LungCTError
from ..files import write_atomic
from ..labels import LABELS, canonical_label
from .cohort import Cohort
from .names import SPLITS, canonical_split, first_few

PROTOCOLS: tuple[str, ...] = ("grouped", "image", "given")
_REQUIRED = ("id", "sha256", "label", "group", "split", "fold")
# How the split was made, the same in every row: a plain CSV has no better place, and any reader keeps it.
_MADE = ("protocol", "grouping", "test_fold", "folds", "seed")


@dataclass
class Manifest:
    """The columns of the file, one list entry per slice, and how the split was made."""

    ids: list[str]
    sha256: list[str]
    labels: list[str]
    groups: list[str]
    splits: list[str]
    fold_of: list[int]
    protocol: str
    grouping: str
    folds: int
    seed: int
    test_fold: int


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write `manifest` atomically; LungCTError if that fails (the old file is then untouched)."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*_REQUIRED, *_MADE))
    made = (manifest.protocol, manifest.grouping, manifest.test_fold, manifest.folds, manifest.seed)
    columns = (manifest.ids, manifest.sha256, manifest.labels, manifest.groups, manifest.splits, manifest.fold_of)
    writer.writerows((*row, *made) for row in zip(*columns, strict=True))
    try:
        write_atomic(path, text.getvalue())
    except OSError as error:
        raise LungCTError(f'The split manifest "{path}" cannot be written: {error.strerror or error}.') from error


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        LungCTError: it is missing, empty, not a CSV with the columns id, sha256, label, group, split, fold, or has
            a value that cannot be.
    """
    shown = f'The split manifest "{path.name}"'
    fix = "Fix: use one that `lungct split` or a training run has written."
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), strict=True)
        columns, rows = list(reader.fieldnames or []), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LungCTError(f"{shown} cannot be read: {error}. {fix}") from error
    missing = [name for name in _REQUIRED if name not in columns]
    if missing:
        found = ", ".join(columns) or "nothing, it is empty"
        raise LungCTError(f"{shown} has no column {', '.join(missing)} (found: {found}). {fix}")
    if not rows:
        raise LungCTError(f"{shown} lists no slices. {fix}")
    for number, row in enumerate(rows, start=2):
        if wrong := _wrong_cell(row):
            raise LungCTError(f"{shown}, line {number}: {wrong}. {fix}")
    made = {name: rows[0].get(name) or "" for name in _MADE}
    fold_of = [int(row["fold"]) for row in rows]
    tested = {fold for fold, row in zip(fold_of, rows, strict=True) if canonical_split(row["split"]) == "test"}
    return Manifest(
        ids=[row["id"] for row in rows],
        sha256=[row["sha256"].lower() for row in rows],
        labels=[str(canonical_label(row["label"])) for row in rows],
        groups=[row["group"] for row in rows],
        splits=[str(canonical_split(row["split"])) for row in rows],
        fold_of=fold_of,
        # Rows that somebody wrote by hand are held to the strictest protocol.
        protocol=made["protocol"] if made["protocol"] in PROTOCOLS else "grouped",
        grouping=made["grouping"] or "manifest",
        folds=_number(made["folds"], max(fold_of) + 1),
        seed=_number(made["seed"], 0),
        test_fold=_number(made["test_fold"], max(0, min(tested, default=0))),
    )


def match_rows(shown: str, ids: np.ndarray, sha256: np.ndarray, labels: np.ndarray, cohort: Cohort) -> np.ndarray:
    """For each slice of `cohort` the manifest row with the same bytes and label; renamed files are found by sha256.

    Raises:
        LungCTError: a file of the manifest is missing or changed, its label differs, or the data have more files. The
            text names the first few.
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
    for i in waiting:
        name, label = str(cohort.ids[i]), int(cohort.labels[i])
        left = rows_of[str(cohort.sha256[i])]
        same = [row for row in left if labels[row] == label]
        if same:
            matched[i] = same[0]
            left.remove(same[0])
        elif left:
            was = LABELS[int(labels[left.pop(0)])]
            problems["with another label"].append(f'"{name}" ({LABELS[label]}, in the manifest {was})')
        elif name in names:
            problems["with other bytes"].append(f'"{name}"')
        else:
            problems["that the manifest does not list"].append(f'"{name}"')
    here = set(cohort.ids.tolist())
    gone = [str(ids[row]) for rows in rows_of.values() for row in rows if str(ids[row]) not in here]
    if gone:
        problems["missing from the data"] = [f'"{name}"' for name in gone]
    if problems:
        text = "; ".join(f"{len(found)} {what}: {first_few(found, 5)}" for what, found in problems.items())
        raise LungCTError(
            f'The data do not match the split manifest "{shown}". Files {text}. Fix: restore these files, or make a '
            f"new split."
        )
    return matched


def _wrong_cell(row: dict[str, str]) -> str:
    """What is wrong with a line, "" if nothing."""
    if None in row or None in row.values():
        return "it has another number of cells than the header"
    if not re.fullmatch(r"[0-9a-fA-F]{64}", row["sha256"]):
        return f'"{row["sha256"]}" is not a sha256'
    if canonical_label(row["label"]) is None:
        return f'"{row["label"]}" is none of the classes {", ".join(LABELS)}'
    if canonical_split(row["split"]) is None:
        return f'"{row["split"]}" is none of the splits {", ".join(SPLITS)}'
    if not re.fullmatch(r"-?[0-9]{1,6}", row["fold"]):
        return f'the fold "{row["fold"]}" is not a number'
    return "" if row["id"] and row["group"] else "its id or group is empty"


def _number(text: str, otherwise: int) -> int:
    return int(text) if re.fullmatch(r"[0-9]{1,10}", text) else otherwise
