"""A split of a cohort: which slice trains, validates or tests, its hash, and what it leaks."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..classes import Classes
from ..errors import LungCTError, UsageError
from ..known_sets import known_classes
from ..slices.listing import natural_key
from .cohort import fingerprint
from .folds import units
from .manifest import DROPPED, Manifest, read_manifest, write_manifest
from .names import SPLITS


@dataclass(frozen=True, eq=False)
class Split:
    """Which slice is used for what. All arrays have one entry per slice, in the order of the cohort.

    `protocol` is grouped, image or given; `split` holds train, validation or test, or dropped where `margin` (a
    correlation of thumbnails) took a slice out that is too like a test slice; `fold_of` the cross-validation fold in
    which a slice is tested, -1 where the data name their own test set; `labels` indices into `classes`. Under grouped
    and image, test is fold `fold` and validation the next one. `grouping` and `rule` say what made the groups,
    `reasons` what ties each slice to its own.
    """

    protocol: str
    grouping: str
    fold: int
    folds: int
    seed: int
    split: np.ndarray
    fold_of: np.ndarray
    ids: np.ndarray
    sha256: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    classes: Classes
    margin: float | None = None
    rule: str = ""
    reasons: tuple[str, ...] = field(default=(), repr=False)

    def indices(self, name: str) -> np.ndarray:
        """Rows of the cohort that belong to split `name` ("dropped" is one of its own), ascending."""
        if name not in (*SPLITS, DROPPED):
            raise ValueError(f"{name!r} is not one of {SPLITS}")
        return np.flatnonzero(self.split == name)

    def counts(self) -> dict[str, dict[str, int]]:
        """Slices as {split: {class: n}}; dropped ones are in none."""
        return {
            name: {label: int(np.sum(self.labels[self.indices(name)] == i)) for i, label in enumerate(self.classes)}
            for name in SPLITS
        }

    def group_counts(self) -> dict[str, dict[str, int]]:
        """Groups as {split: {class: n}}; a group with slices of two classes counts for both."""
        return {
            name: {
                label: len({g for g, c in zip(*self._of(name), strict=True) if c == i})
                for i, label in enumerate(self.classes)
            }
            for name in SPLITS
        }

    @cached_property
    def hash(self) -> str:
        """sha256 over the sorted lines "SHA256,GROUP,SPLIT,FOLD,LABEL": file names and row order do not matter."""
        columns = zip(self.sha256, self.groups, self.split, self.fold_of, self.labels, strict=True)
        lines = sorted(
            f"{sha},{group},{name},{fold},{self.classes[label]}\n" for sha, group, name, fold, label in columns
        )
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @cached_property
    def groups_crossing(self) -> int:
        """How many groups, joined by identical files, are both in test and in train or validation. 0 is honest."""
        return len(self._crossing("test"))

    @cached_property
    def groups_in_training_and_validation(self) -> int:
        """How many groups, joined by identical files, both train and validate. 0 is honest: what was trained on
        neither calibrates nor says when to stop."""
        return len(self._crossing("validation"))

    def fingerprint(self) -> str:
        """The fingerprint of the cohort that was split: the manifest lists every slice of it."""
        return fingerprint(self.sha256, self.labels, self.classes)

    def facts(self) -> dict[str, Any]:
        """The block `split` of metrics.json: which assignment of slices the figures rest on."""
        shared = self.groups_in_training_and_validation
        return {
            "protocol": self.protocol,
            "grouping": self.grouping,
            "hash": self.hash,
            "groups_crossing": self.groups_crossing,
            # By image groups are everywhere anyway; only splits that meant to keep them whole have this to say.
            **({"groups_in_training_and_validation": shared} if shared and self.protocol != "image" else {}),
            "counts": self.counts(),
            "groups": {name: len(set(self.groups[self.indices(name)])) for name in SPLITS},
        }

    def rotated(self) -> list[Split]:
        """The same test set with each of the other folds in turn as the validation fold; this split comes first.

        Raises:
            UsageError: the slices have no folds (a test set of the data's own), or validation is not one of them.
        """
        known = np.isin(self.split, ("train", "validation"))
        first = set(self.fold_of[self.split == "validation"].tolist())
        others = sorted(set(self.fold_of[known].tolist()) - first)
        if len(first) != 1 or np.any(self.fold_of[known] < 0):
            raise UsageError(
                f"--rotate-validation: the split {self.protocol} has no folds that could take turns. Fix: "
                "--no-rotate-validation, or --split linked (or similarity, file-blocks:N, grouped, image)."
            )
        turns = [np.where(known, np.where(self.fold_of == fold, "validation", "train"), self.split) for fold in others]
        turned = [replace(self, split=turn.astype(self.split.dtype)) for turn in turns]
        for turn in turned:
            if self.protocol == "grouped" and turn.groups_in_training_and_validation:
                raise UsageError(
                    f"--rotate-validation: the folds part groups: in one turn {turn.describe_crossing()}. Fix: "
                    "--no-rotate-validation, or a split whose folds keep groups whole."
                )
        return [self, *turned]

    def describe_crossing(self) -> str:
        """How many groups cross, with the names of a few files on both sides."""
        sentences = []
        for name, where in (("test", "test and outside it"), ("validation", "training and in validation")):
            examples = []
            for rows in (found := self._crossing(name))[:3]:
                inside = next(i for i in rows if self.split[i] == name)
                outside = next(i for i in rows if self.split[i] != name)
                examples.append(f'"{self.ids[inside]}" ({name}) and "{self.ids[outside]}" ({self.split[outside]})')
            if found:
                sentences.append(f"{len(found)} groups are both in {where}, for example {'; '.join(examples)}")
        return ", and ".join(sentences)

    def write_csv(self, path: str | Path) -> None:
        """Write the manifest: id, sha256, label, group, split, fold, reason, and how it was made; atomically.

        Raises:
            LungCTError: the file cannot be written.
        """
        manifest = Manifest(
            ids=self.ids.tolist(),
            sha256=self.sha256.tolist(),
            labels=[self.classes[label] for label in self.labels],
            groups=self.groups.tolist(),
            splits=self.split.tolist(),
            fold_of=self.fold_of.tolist(),
            reasons=list(self.reasons) or [""] * len(self.ids),
            protocol=self.protocol,
            grouping=self.grouping,
            folds=self.folds,
            seed=self.seed,
            test_fold=self.fold,
            margin=self.margin,
            rule=self.rule,
        )
        write_manifest(manifest, Path(path))

    @classmethod
    def read(cls, path: str | Path, classes: Classes | None = None) -> Split:
        """Read a manifest as it stands, its rows in the file's order, not yet compared with any data.

        Its labels are names; `classes` says which numbers they get, else the known set that has them all, else their
        natural order.

        Raises:
            LungCTError: the file is missing, empty or malformed, or has a label that is none of `classes`.
        """
        manifest = read_manifest(Path(path))
        names = sorted(set(manifest.labels), key=natural_key)
        found = classes or known_classes(names) or Classes(tuple(names))
        number = {name: found.index(label) for name in names if (label := found.find(name))}
        if wrong := next((row for row, name in enumerate(manifest.labels, start=2) if name not in number), None):
            raise LungCTError(
                f'The split manifest "{Path(path).name}", line {wrong}: "{manifest.labels[wrong - 2]}" is none of the '
                f"classes {', '.join(found)}. Fix: the data and classes that it was made for, or a new split."
            )
        return cls(
            protocol=manifest.protocol,
            grouping=manifest.grouping,
            fold=manifest.test_fold,
            folds=manifest.folds,
            seed=manifest.seed,
            split=np.asarray(manifest.splits, dtype=np.str_),
            fold_of=np.asarray(manifest.fold_of, dtype=np.int64),
            ids=np.asarray(manifest.ids, dtype=np.str_),
            sha256=np.asarray(manifest.sha256, dtype=np.str_),
            labels=np.asarray([number[label] for label in manifest.labels], dtype=np.int64),
            groups=np.asarray(manifest.groups, dtype=np.str_),
            classes=found,
            margin=manifest.margin,
            rule=manifest.rule,
            reasons=tuple(manifest.reasons),
        )

    def _of(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        rows = self.indices(name)
        return self.groups[rows], self.labels[rows]

    def _crossing(self, name: str) -> list[list[int]]:
        """The rows of each group, joined by identical files, that is in `name` and in a split which comes before it.

        Training comes before validation, both before test: what one of them shows must not have been learned before.
        """
        among = SPLITS[: SPLITS.index(name) + 1]
        rows_of: dict[int, list[int]] = defaultdict(list)
        for i, unit in enumerate(units(self.groups, self.sha256).tolist()):
            if self.split[i] in among:
                rows_of[unit].append(i)
        return [rows for rows in rows_of.values() if len({self.split[i] == name for i in rows}) == 2]
