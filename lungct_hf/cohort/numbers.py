"""File numbers: "Normal case (12).jpg" is number 12 of a run, and what was numbered together was scanned together."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from .names import SPLIT_ALIASES

Run = tuple[int, str, str]  # class, text before the number, text after it


def file_runs(labels: np.ndarray, names: Sequence[str]) -> dict[Run, dict[int, list[int]]]:
    """{run: {number: rows}} for all slices whose name ends in a number; the runs of two classes are never one."""
    runs: dict[Run, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, name in enumerate(names):
        match = re.fullmatch(r"(.*?)([0-9]+)([^0-9/]*)", _plain_name(name), flags=re.DOTALL)
        if match:
            runs[int(labels[i]), match[1], match[3]][int(match[2])].append(i)
    return runs


def neighbours(labels: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """int (n, 2): pairs of rows of one run with consecutive numbers."""
    pairs = [
        (i, j)
        for numbered in file_runs(labels, names).values()
        for number, rows in numbered.items()
        for i in rows
        for j in numbered.get(number + 1, ())
    ]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def block_pairs(labels: np.ndarray, names: Sequence[str], size: int) -> np.ndarray:
    """int (n, 2): pairs that chain together all rows of one run whose numbers lie in one block (1 to size, ...)."""
    blocks: dict[tuple[Run, int], list[int]] = defaultdict(list)
    for run, numbered in file_runs(labels, names).items():
        for number in sorted(numbered):
            blocks[run, (number - 1) // size] += numbered[number]
    pairs = [pair for rows in blocks.values() for pair in zip(rows, rows[1:], strict=False)]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _plain_name(name: str) -> str:
    """The path without its ending and its split folder: a data set cut into train/ and test/ keeps its numbers."""
    head, _, rest = name.partition("/")
    path = rest if rest and head.lower() in SPLIT_ALIASES else name
    return re.sub(r"\.[A-Za-z]+$", "", path)
