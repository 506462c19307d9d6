"""Stratified folds whose only inputs are pictures, labels and groups: no file name, no file order, no group name."""

from __future__ import annotations

import hashlib
import warnings

import numpy as np

from ..classes import Classes
from ..errors import LungCTError

_ATTEMPTS = 50


def canonical_order(sha256: np.ndarray, labels: np.ndarray, groups: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Row numbers in an order that renaming or reordering files does not change (names only part identical rows)."""
    return np.lexsort((ids, groups, labels, sha256))


def units(groups: np.ndarray, sha256: np.ndarray) -> np.ndarray:
    """int (N,): the smallest sets that must stay together: groups, joined where they share an identical file."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    group = np.unique(groups, return_inverse=True)[1].ravel()
    file = np.unique(sha256, return_inverse=True)[1].ravel() + group.max(initial=-1) + 1
    nodes = int(file.max(initial=-1)) + 1
    links = coo_matrix((np.ones(len(group), np.int8), (group, file)), shape=(nodes, nodes))
    return connected_components(links, directed=False)[1][group] if nodes else group


def image_folds(labels: np.ndarray, classes: Classes, folds: int, seed: int) -> np.ndarray:
    """int (N,): stratified folds by image. Rows must be in canonical order."""
    from sklearn.model_selection import StratifiedKFold

    for i, label in enumerate(classes):
        _check_enough(int(np.sum(labels == i)), folds, label, "slices", "the data")
    return _assign(StratifiedKFold(folds, shuffle=True, random_state=seed), labels, None)


def grouped_folds(
    labels: np.ndarray, members: np.ndarray, classes: Classes, folds: int, seed: int, where: str = "the data"
) -> np.ndarray:
    """int (N,): stratified folds that keep every unit of `members` whole. Rows must be in canonical order.

    Raises:
        LungCTError: a class has fewer units than there are folds, or no assignment gives every fold every class.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    for i, label in enumerate(classes):
        _check_enough(len(set(members[labels == i].tolist())), folds, label, "groups", where)
    # Numbered by first appearance: scikit-learn sorts groups by name, and names must not matter.
    _, first, inverse = np.unique(members, return_index=True, return_inverse=True)
    numbered = np.argsort(np.argsort(first))[inverse.ravel()]
    # The greedy assignment can starve a fold of a class although another order would not: try a few derived seeds.
    for attempt in range(_ATTEMPTS):
        derived = hashlib.sha256(f"{seed}/{attempt}".encode()).digest()
        state = seed if attempt == 0 else int.from_bytes(derived[:4], "little")
        fold_of = _assign(StratifiedGroupKFold(folds, shuffle=True, random_state=state), labels, numbered)
        if all(len(set(fold_of[labels == i].tolist())) == folds for i in range(len(classes))):
            return fold_of
    raise LungCTError(
        f"No assignment of the groups of {where} to {folds} folds was found in which every fold has every class. Fix: "
        f"fewer folds, or more cases."
    )


def _assign(splitter: object, labels: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    fold_of = np.full(len(labels), -1, dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "least populated class": checked above, in our own words
        for fold, (_, rows) in enumerate(splitter.split(np.zeros(len(labels)), labels, groups)):  # type: ignore[attr-defined]
            fold_of[rows] = fold
    return fold_of


def _check_enough(count: int, folds: int, label: str, what: str, where: str) -> None:
    if count < folds:
        fix = f"{count} folds, or " if count >= 3 else ""
        raise LungCTError(
            f'The class "{label}" has only {count} {what} in {where}; {folds} folds need at least {folds}. Fix: {fix}'
            f"more {label} cases."
        )
