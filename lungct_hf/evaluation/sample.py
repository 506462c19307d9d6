"""A sample: true classes, answers and groups of the slices (or cases) that figures are computed from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..classes import Classes
from ..decision import pool_probabilities
from ..errors import UsageError


def softmax(logits: np.ndarray) -> np.ndarray:
    """Logits (N, C) to probabilities, in float64."""
    shifted = np.exp(np.asarray(logits, np.float64) - np.max(logits, axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


@dataclass(frozen=True, eq=False)
class Sample:
    """N predictions of C `classes`. `labels` and `named` (N,) class numbers, `groups` (N,) text, `keys` (N,) what was
    predicted.

    `probabilities` is float64 (N, C), or None for a baseline that only names a class: figures that need a ranking are
    then left out. `runs` (N,) tells several predictions of one slice (seeds) apart. A group is what is resampled.
    """

    classes: Classes

    labels: np.ndarray
    named: np.ndarray
    groups: np.ndarray
    keys: np.ndarray
    runs: np.ndarray
    probabilities: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        labels: np.ndarray,
        logits: np.ndarray | None = None,
        groups: np.ndarray | None = None,
        *,
        classes: Classes,
        named: np.ndarray | None = None,
        probabilities: np.ndarray | None = None,
        keys: np.ndarray | None = None,
        runs: np.ndarray | None = None,
    ) -> Sample:
        """From logits, probabilities or only named classes. Without `groups` every row stands for itself.

        Raises UsageError when lengths differ, a class number is unknown or a value is not finite.
        """
        labels = np.asarray(labels, np.int64)
        if logits is not None:
            probabilities = softmax(np.asarray(logits).reshape(-1, len(classes)))
        if probabilities is not None:
            probabilities = np.asarray(probabilities, np.float64).reshape(-1, len(classes))
            if not np.isfinite(probabilities).all():
                raise UsageError("Some predictions are not finite, so no figure can be computed from them.")
            named = probabilities.argmax(axis=1)
        if named is None:
            raise UsageError("A sample needs logits, probabilities or named classes.")
        rows = np.arange(len(labels)).astype(np.str_)
        made = cls(
            classes,
            labels,
            np.asarray(named, np.int64),
            rows if groups is None else np.asarray(groups, np.str_),
            rows if keys is None else np.asarray(keys, np.str_),
            np.full(len(labels), "0") if runs is None else np.asarray(runs, np.str_),
            probabilities,
        )
        if any(len(column) != len(labels) for column in (made.named, made.groups, made.keys, made.runs)):
            raise UsageError(f"A sample of {len(labels)} labels has columns of other lengths.")
        if len(labels) and not (0 <= labels.min() and labels.max() < len(classes)):
            raise UsageError(f"Class numbers must be 0 to {len(classes) - 1}.")
        return made

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def group_names(self) -> np.ndarray:
        """The G different groups, sorted: their order does not depend on the order of the rows."""
        return np.unique(self.groups)

    @cached_property
    def group_of(self) -> np.ndarray:
        """(N,) each row's place in `group_names`."""
        return np.searchsorted(self.group_names, self.groups)

    @cached_property
    def group_counts(self) -> np.ndarray:
        """(G, C) rows of each class in each group."""
        counts = np.zeros((len(self.group_names), len(self.classes)), np.int64)
        np.add.at(counts, (self.group_of, self.labels), 1)
        return counts

    @cached_property
    def group_labels(self) -> np.ndarray:
        """(G,) each group's majority class; `_largest` breaks a tie."""
        return self._largest(self.group_counts)

    @property
    def mixed_groups(self) -> list[str]:
        """Groups with slices of more than one class: no single answer is right for them."""
        return self.group_names[(self.group_counts > 0).sum(axis=1) > 1].tolist()

    def take(self, rows: np.ndarray) -> Sample:
        """The rows that an index or mask selects."""
        chosen = None if self.probabilities is None else self.probabilities[rows]
        columns = {name: getattr(self, name)[rows] for name in ("labels", "named", "groups", "keys", "runs")}
        return replace(self, **columns, probabilities=chosen)

    def cases(self) -> Sample:
        """One row per group and run: the mean of its slices' probabilities, and the group's majority class.

        Without probabilities the named classes are averaged, which is a vote; `_largest` breaks a tie.
        """
        votes = self.probabilities if self.probabilities is not None else np.eye(len(self.classes))[self.named]
        run_names, unit, case_of = self._units
        means = pool_probabilities(votes, case_of, len(unit))
        group, run = unit // max(1, len(run_names)), unit % max(1, len(run_names))
        names = self.group_names[group]
        runs = run_names[run] if len(unit) else names
        votes_or_shares: dict[str, Any] = (
            {"named": self._largest(means)} if self.probabilities is None else {"probabilities": means}
        )
        truth = self.group_labels[group]
        return Sample.of(truth, classes=self.classes, groups=names, keys=names, runs=runs, **votes_or_shares)

    @property
    def case_of(self) -> np.ndarray:
        """(N,) each row's place in `cases()`."""
        return self._units[2]

    @cached_property
    def _units(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The runs, of each case its group and run as one number, and of each row its case."""
        run_names, run_of = np.unique(self.runs, return_inverse=True)
        unit, case_of = np.unique(self.group_of * len(run_names) + run_of, return_inverse=True)
        return run_names, unit, case_of

    def _largest(self, counts: np.ndarray) -> np.ndarray:
        """(M,) the class with the highest of `counts` (M, C); of tied ones a positive one, then the later."""
        positive = self.classes.is_positive()
        order = np.array(sorted(range(len(positive)), key=lambda c: (positive[c], c), reverse=True))
        return order[counts[:, order].argmax(axis=1)]
