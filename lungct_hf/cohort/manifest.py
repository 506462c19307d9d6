"""The split manifest: a CSV with one row per slice, and how the split was made."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import LungCTError
from ..files import write_atomic
from ..slices.listing import one_name
from .names import SPLITS, canonical_split, first_few
from .text import decoded

PROTOCOLS: tuple[str, ...] = ("grouped", "image", "given")
DROPPED = "dropped"  # what the margin took out of training
_REQUIRED = ("id", "sha256", "label", "group", "split", "fold")
# How the split was made, the same in every row: a plain CSV has no better place, and any reader keeps it.
_MADE = ("protocol", "grouping", "test_fold", "folds", "seed", "margin", "rule")
_HEADER = (*_REQUIRED, "reason", *_MADE, "check")


@dataclass
class Manifest:
    """The columns of the file, one list entry per slice, and how the split was made.

    `reasons` say what ties a slice to its group and, where the margin dropped it, what it is too like.
    """

    ids: list[str]
    sha256: list[str]
    labels: list[str]
    groups: list[str]
    splits: list[str]
    fold_of: list[int]
    reasons: list[str]
    protocol: str
    grouping: str
    folds: int
    seed: int
    test_fold: int
    margin: float | None
    rule: str


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write `manifest` atomically; LungCTError if that fails (the old file is then untouched)."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    made = [manifest.protocol, manifest.grouping, manifest.test_fold, manifest.folds, manifest.seed]
    made += ["" if manifest.margin is None else np.format_float_positional(manifest.margin), manifest.rule]
    columns = (manifest.ids, manifest.sha256, manifest.labels, manifest.groups, manifest.splits, manifest.fold_of)
    for *cells, reason in zip(*columns, manifest.reasons, strict=True):
        row = [str(value) for value in (*cells, reason, *made)]
        writer.writerow((*row, _check_digits(dict(zip(_HEADER, row, strict=False)))))
    try:
        write_atomic(path, text.getvalue())
    except OSError as error:
        raise LungCTError(f'The split manifest "{path}" cannot be written: {error.strerror or error}.') from error


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        LungCTError: it is missing, empty, not a CSV with the columns id, sha256, label, group, split, fold, has a
            value that cannot be, lists an id twice, has rows of several splits, or a row has been changed since it was
            written; the text names its slice.
    """
    shown = f'The split manifest "{path.name}"'
    fix = "Fix: use one that `lungct split` or a training run has written."
    try:
        reader = csv.DictReader(io.StringIO(decoded(path.read_bytes()), newline=""), strict=True)
        columns, rows = list(reader.fieldnames or []), list(reader)
    except (OSError, ValueError, csv.Error) as error:
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
    changed = [row["id"] for row in rows if "check" in row and row["check"] != _check_digits(row)]
    if changed:
        listed = first_few([f'"{name}"' for name in changed], 5)
        raise LungCTError(
            f"{shown} was edited after it was written: {len(changed)} rows no longer fit their check digits: "
            f"{listed}. Fix: restore it, or make a new split (one that is made by hand has no column check)."
        )
    if again := [name for name, count in Counter(row["id"] for row in rows).items() if count > 1]:
        listed = first_few([f'"{name}"' for name in again], 5)
        raise LungCTError(
            f"{shown} lists {len(again)} ids more than once: {listed}. Fix: a row for each slice, or a new split."
        )
    made = _how_made(shown, rows)
    fold_of = [int(row["fold"]) for row in rows]
    splits = [str(_split_name(row["split"])) for row in rows]
    tested = {fold for fold, split in zip(fold_of, splits, strict=True) if split == "test"}
    return Manifest(
        ids=[one_name(row["id"]) for row in rows],
        sha256=[row["sha256"].lower() for row in rows],
        labels=[one_name(row["label"]) for row in rows],
        groups=[one_name(row["group"]) for row in rows],
        splits=splits,
        fold_of=fold_of,
        reasons=[row.get("reason") or "" for row in rows],
        # Rows that somebody wrote by hand are held to the strictest protocol.
        protocol=made["protocol"] if made["protocol"] in PROTOCOLS else "grouped",
        grouping=made["grouping"] or "manifest",
        folds=_number(made["folds"], max(fold_of) + 1),
        seed=_number(made["seed"], 0),
        test_fold=_number(made["test_fold"], max(0, min(tested, default=0))),
        margin=float(made["margin"]) if re.fullmatch(r"0?[.][0-9]+", made["margin"]) else None,
        rule=made["rule"],
    )


def _how_made(shown: str, rows: list[dict[str, str]]) -> dict[str, str]:
    """How the split was made, by column; every row must say the same."""
    made = {name: rows[0].get(name) or "" for name in _MADE}
    for name, value in made.items():
        odd = next((row for row in rows if (row.get(name) or "") != value), None)
        if odd is not None:
            raise LungCTError(
                f'{shown} has rows of different splits: the column {name} is "{value}" for "{rows[0]["id"]}" and '
                f'"{odd.get(name) or ""}" for "{odd["id"]}". Fix: restore it, or make a new split.'
            )
    return made


def _wrong_cell(row: dict[str, str]) -> str:
    """What is wrong with a line, "" if nothing."""
    if None in row or None in row.values():
        return "it has another number of cells than the header"
    if not re.fullmatch(r"[0-9a-fA-F]{64}", row["sha256"]):
        return f'"{row["sha256"]}" is not a sha256'
    if _split_name(row["split"]) is None:
        return f'"{row["split"]}" is none of the splits {", ".join([*SPLITS, DROPPED])}'
    if not re.fullmatch(r"-?[0-9]{1,6}", row["fold"]):
        return f'the fold "{row["fold"]}" is not a number'
    return "" if row["id"] and row["group"] and row["label"] else "its id, label or group is empty"


def _split_name(text: str) -> str | None:
    return DROPPED if text == DROPPED else canonical_split(text)


def _check_digits(row: dict[str, str]) -> str:
    """Eight digits over what a row says about a slice, its name and the reason left out: an edited row is found."""
    cells = [row.get(name) or "" for name in (*_REQUIRED[1:], *_MADE)]
    return hashlib.sha256("\x1f".join(cells).encode()).hexdigest()[:8]


def _number(text: str, otherwise: int) -> int:
    return int(text) if re.fullmatch(r"[0-9]{1,10}", text) else otherwise
