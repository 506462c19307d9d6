"""Shortcut probes: how well classes are told apart by what should not tell them, by image and by group."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from ..cohort.folds import units
from .geometry import features
from .grey import fine_structure
from .slices import THUMBNAIL, Slices

RING = 10  # thumbnail pixels: the skin, the table and the air around, hardly any lung
REPEATS = 3  # random splits per kind, averaged
_QUERIES = 5000  # slices whose neighbours are looked for; all others remain candidates
_BLOCK = 512
_PERMUTATIONS = 200

# {key: (short name, what it sees)}
VIEWS: dict[str, tuple[str, str]] = {
    "1-nn": ("1-NN on thumbnails", "64 x 64 pixels, grey"),
    "ring": ("1-NN, outer ring only", "the outer 10 of 64 pixels: no lung visible"),
    "bottom": ("1-NN, bottom quarter", "the lowest 16 of 64 rows"),
    "geometry": ("picture size only", "a decision tree on width, height, aspect ratio and area"),
    "histogram": ("1-NN, histogram only", "how many pixels have each grey level"),
    "levels": ("1-NN, level pattern", "which grey levels stand out from those beside them: noise and export"),
}


@dataclass(frozen=True)
class _Folds:
    """One random split: the fold of each slice, and whether groups were kept whole."""

    grouped: bool
    fold_of: np.ndarray


def run_probes(slices: Slices, folds: int, seed: int, progress: bool) -> dict[str, Any]:
    """Every view under image-level and grouped splits: {"views": {name: {"image": score, "grouped": score}}, ...}.

    A score holds accuracy, balanced accuracy, recall per class, and `chance99`: the balanced accuracy that 99 of 100
    random exchanges of labels between groups stay below. "grouped" is None where a class has a single group.
    """
    members = units(slices.groups, slices.pixels)
    splits = _make_folds(slices.labels, members, folds, seed)
    queries = np.arange(len(slices))
    if len(slices) > _QUERIES:
        queries = np.sort(np.random.default_rng(seed).choice(len(slices), _QUERIES, replace=False))
    views = {}
    for name in tqdm(VIEWS, desc="Probing shortcuts", unit="probe", delay=2, disable=not progress):
        predicted = _predict(slices, name, splits, queries)
        by_image = [one for split, one in zip(splits, predicted, strict=True) if not split.grouped]
        by_group = [one for split, one in zip(splits, predicted, strict=True) if split.grouped]
        views[name] = {
            "image": _mean_score(slices, members, queries, by_image),
            "grouped": _mean_score(slices, members, queries, by_group),
        }
    counts = np.bincount(slices.labels, minlength=len(slices.classes))
    return {
        "chance_balanced_accuracy": round(1 / len(slices.classes), 4),
        "majority_accuracy": round(float(counts.max() / counts.sum()), 4),
        "folds": {kind: _fold_count(splits, g) for kind, g in (("image", False), ("grouped", True))},
        "repeats": REPEATS,
        "slices_tested": len(queries),
        "views": views,
    }


def _make_folds(labels: np.ndarray, members: np.ndarray, folds: int, seed: int) -> list[_Folds]:
    """Stratified folds by image and by group, as many as the smallest class allows."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    # Numbered by first appearance in an order that file names have no part in: scikit-learn sorts groups.
    _, first, inverse = np.unique(members, return_index=True, return_inverse=True)
    numbered = np.argsort(np.argsort(first))[inverse.ravel()]
    by_image = min(folds, int(np.bincount(labels).min()))
    by_group = min(folds, *(len(np.unique(members[labels == label])) for label in np.unique(labels)))
    made = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for repeat in range(REPEATS):
            for grouped, count in ((False, by_image), (True, by_group)):
                if count < 2:
                    continue
                kind = StratifiedGroupKFold if grouped else StratifiedKFold
                splitter = kind(count, shuffle=True, random_state=seed + repeat)
                fold_of = np.empty(len(labels), np.int64)
                for fold, (_, rows) in enumerate(splitter.split(labels[:, None], labels, numbered)):
                    fold_of[rows] = fold
                made.append(_Folds(grouped, fold_of))
    return made


def _fold_count(splits: list[_Folds], grouped: bool) -> int:
    return max((int(split.fold_of.max()) + 1 for split in splits if split.grouped == grouped), default=0)


def _predict(slices: Slices, name: str, splits: list[_Folds], queries: np.ndarray) -> list[np.ndarray]:
    """The class predicted for each query under each split, from slices in other folds."""
    if name == "geometry":
        return _trees(features(slices), slices.labels, splits, queries)
    if name == "levels":
        return _neighbours(fine_structure(slices.histograms), slices.labels, splits, queries)
    if name == "histogram":
        shares = slices.histograms / slices.histograms.sum(axis=1, keepdims=True)
        return _neighbours(np.sqrt(shares).astype(np.float32), slices.labels, splits, queries)
    return _neighbours(slices.thumbnails[:, _mask(name)].astype(np.float32), slices.labels, splits, queries)


def _mask(name: str) -> np.ndarray:
    """bool (64, 64): the pixels that a view shows."""
    mask = np.ones((THUMBNAIL, THUMBNAIL), bool)
    if name == "ring":
        mask[RING:-RING, RING:-RING] = False
    if name == "bottom":
        mask[: -THUMBNAIL // 4] = False
    return mask


def _neighbours(points: np.ndarray, labels: np.ndarray, splits: list[_Folds], queries: np.ndarray) -> list[np.ndarray]:
    """Euclidean nearest neighbours; all splits share one pass over the distances."""
    points = points - points.mean(axis=0)
    squares = np.einsum("ij,ij->i", points, points)
    predicted = [np.empty(len(queries), np.int64) for _ in splits]
    for start in range(0, len(queries), _BLOCK):
        rows = queries[start : start + _BLOCK]
        distance = squares - 2 * points[rows] @ points.T
        for split, out in zip(splits, predicted, strict=True):
            own_fold = split.fold_of[rows, None] == split.fold_of[None, :]
            out[start : start + _BLOCK] = labels[np.argmin(np.where(own_fold, np.inf, distance), axis=1)]
    return predicted


def _trees(points: np.ndarray, labels: np.ndarray, splits: list[_Folds], queries: np.ndarray) -> list[np.ndarray]:
    """Small decision trees: nearest neighbours would part equal points by chance."""
    from sklearn.tree import DecisionTreeClassifier

    predicted = []
    for split in splits:
        out = np.empty(len(labels), np.int64)
        for fold in range(int(split.fold_of.max()) + 1):
            test = split.fold_of == fold
            tree = DecisionTreeClassifier(
                max_leaf_nodes=8, min_samples_leaf=5, class_weight="balanced", random_state=0
            )
            out[test] = tree.fit(points[~test], labels[~test]).predict(points[test])
        predicted.append(out[queries])
    return predicted


def _mean_score(
    slices: Slices, members: np.ndarray, queries: np.ndarray, predicted: list[np.ndarray]
) -> dict[str, Any] | None:
    """The scores, averaged over the repeats."""
    if not predicted:
        return None
    truth = slices.labels[queries]
    classes = len(slices.classes)
    recalls = np.stack([_recalls(truth, one, classes) for one in predicted])
    return {
        "accuracy": round(float(np.mean([np.mean(one == truth) for one in predicted])), 4),
        "balanced_accuracy": round(float(np.nanmean(recalls)), 4),
        "recall": dict(zip(slices.classes, np.round(recalls.mean(axis=0), 4).tolist(), strict=True)),
        "chance99": _chance(slices.labels, members, queries, predicted, classes),
    }


def _recalls(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    hits = np.bincount(truth[predicted == truth], minlength=classes)
    return hits / np.maximum(np.bincount(truth, minlength=classes), 1)


def _chance(
    labels: np.ndarray, members: np.ndarray, queries: np.ndarray, predicted: list[np.ndarray], classes: int
) -> float:
    """What the same predictions score when groups exchange their labels: slices of one person are no new evidence."""
    _, number = np.unique(members, return_inverse=True)
    number = number.ravel()
    votes = np.zeros((int(number.max()) + 1, classes))
    np.add.at(votes, (number, labels), 1)
    major = votes.argmax(axis=1)
    rng = np.random.default_rng(0)
    scores = []
    for turn in range(_PERMUTATIONS):
        truth = major[rng.permutation(len(major))][number[queries]]
        recalls = _recalls(truth, predicted[turn % len(predicted)], classes)
        scores.append(recalls[np.bincount(truth, minlength=classes) > 0].mean())
    return round(float(np.percentile(scores, 99)), 4)
