"""Fit what decision.py applies on held-out groups only: temperatures, operating points, when to say "I don't know"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.optimize import minimize
from scipy.special import logsumexp

from ..classes import Classes
from ..decision import AbstainRule, Blocks, Calibration, contrasts, tempering
from ..errors import UsageError
from ..guard import SourceDistance
from .operating import fit_operating
from .sample import softmax
from .source_guard import fit_limit, fit_sources

TEMPERATURES = (0.05, 20.0)
_FOLDS = 5
_FEWEST_GROUPS = 10  # fewer cannot tell one rule from another
_SINGLED_OUT = 10  # up to so many classes each is tried against the rest
_SIZES = (2, 3, 5, 9, 17, 33, 65)  # how many blocks of much confused classes are tried


class Temperatures(NamedTuple):
    """What `tempering` needs: `within` tells the classes of one of `blocks` apart, `temperature` the blocks."""

    temperature: float
    within: float
    blocks: Blocks

    def matrix(self, classes: int) -> np.ndarray:
        """(C, C): raw logits times it are calibrated."""
        return tempering(classes, *self)


def fit_temperatures(
    logits: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None, *, classes: Classes
) -> Temperatures:
    """The blocks that `choose_blocks` finds on held-out slices (N, C), and the temperatures that fit them best.

    Without `groups` every slice counts as one. Raises UsageError for an empty set or values that are not finite.
    """
    logits, labels, groups = _checked(logits, labels, groups, len(classes))
    blocks = choose_blocks(logits, labels, groups, classes)
    return Temperatures(*temperatures_for(logits, labels, groups, blocks), blocks)


def temperatures_for(
    logits: np.ndarray, labels: np.ndarray, groups: np.ndarray | None, blocks: Blocks
) -> tuple[float, float]:
    """The two temperatures of `tempering` at which the log loss on held-out slices (N, C) is lowest; without `blocks`
    they are one.

    Where nothing was answered wrongly that loss falls for ever as a temperature goes to 0. So the truth is softened by
    half a group more: each label keeps 1 - e, the others share e = 0.5 / (groups + 1); no confidence is claimed beyond
    what that many groups can show. Both are kept within TEMPERATURES; a contrast that is the same for all slices and 0
    gives 1.

    Raises UsageError for an empty set or values that are not finite.
    """
    logits, labels, groups = _checked(logits, labels, groups, np.shape(logits)[-1])
    truth = _softened(labels, groups, logits.shape[1])
    # Logits are linear in the inverse temperatures, in which the loss is convex: one minimum.
    parts = contrasts(logits, blocks) if blocks else logits[None]
    parts = parts - parts.mean(axis=2, keepdims=True)

    def loss(inverse: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = np.tensordot(inverse, parts, 1)
        probabilities = softmax(scaled)
        gradient = ((probabilities - truth) * parts).sum(axis=2).mean(axis=1)
        return float(_log_losses(scaled, truth).mean()), gradient

    bounds = [(1 / TEMPERATURES[1], 1 / TEMPERATURES[0])] * len(parts)
    exact = {"ftol": 1e-14, "gtol": 1e-9}
    found = minimize(loss, np.ones(len(parts)), jac=True, bounds=bounds, method="L-BFGS-B", options=exact)
    made = [
        float(1 / inverse) if np.abs(part).max() > 1e-6 else 1.0 for inverse, part in zip(found.x, parts, strict=True)
    ]
    return made[0], made[-1]


def choose_blocks(logits: np.ndarray, labels: np.ndarray, groups: np.ndarray, classes: Classes) -> Blocks:
    """The blocks of classes that two temperatures serve best, none where one does: found on held-out groups.

    What is tried, from what assumes least to what was searched for:
    1. one temperature;
    2. the positive classes against the others, where classes are marked: the question that the data were made for;
    3. each class against the rest (of up to _SINGLED_OUT), and blocks of classes that are confused most.
    Each is fitted on four fifths of the groups and judged by its log loss on the fifth, in turn. Taken is the first
    step whose best is at most one standard error above the lowest of all, the error being that of the difference,
    group by group: to search more finds a lower loss by chance alone. Fewer than _FEWEST_GROUPS groups cannot tell,
    nor can slices that lack a class.
    """
    names = np.unique(groups)
    if len(classes) == 2 or len(names) < _FEWEST_GROUPS or len(np.unique(labels)) < len(classes):
        return ()
    steps = candidate_blocks(logits, labels, groups, classes)
    found = [[(blocks, held_out_losses(logits, labels, groups, blocks)) for blocks in step] for step in steps]
    _, lowest = min((pair for step in found for pair in step), key=lambda pair: pair[1].mean())
    for step in found:
        blocks, losses = min(step, key=lambda pair: pair[1].mean())
        apart = np.bincount(np.searchsorted(names, groups), losses - lowest)
        if apart.sum() <= np.sqrt(len(names)) * apart.std(ddof=1):
            return blocks
    raise AssertionError("the lowest loss is not above itself")


def candidate_blocks(
    logits: np.ndarray, labels: np.ndarray, groups: np.ndarray, classes: Classes
) -> list[list[Blocks]]:
    """What `choose_blocks` tries of three or more classes, step by step and each once; () is one temperature."""
    count = len(classes)
    everyone = range(count)

    def against_the_rest(some: list[int]) -> Blocks:
        return _ordered([some, [c for c in everyone if c not in some]])

    marked = [c for c, positive in enumerate(classes.is_positive()) if positive]
    steps: list[list[Blocks]] = [[()], [against_the_rest(marked)] if marked else []]
    searched = [against_the_rest([c]) for c in everyone] if count <= _SINGLED_OUT else []
    searched += _confused(logits, labels, groups)
    seen = {blocks for step in steps for blocks in step}
    steps.append([blocks for blocks in dict.fromkeys(searched) if blocks not in seen])
    return [step for step in steps if step]


def held_out_losses(logits: np.ndarray, labels: np.ndarray, groups: np.ndarray, blocks: Blocks) -> np.ndarray:
    """(N,) the log loss of each slice under temperatures that were fitted without its fold of the groups."""
    fold, truth = folds_of(labels, groups, logits.shape[1]), _softened(labels, groups, logits.shape[1])
    losses = np.zeros(len(labels))
    for one in np.unique(fold):
        out = fold == one
        fitted = temperatures_for(logits[~out], labels[~out], groups[~out], blocks)
        losses[out] = _log_losses(logits[out] @ tempering(logits.shape[1], *fitted, blocks), truth[out])
    return losses


def _confused(logits: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> list[Blocks]:
    """Partitions of the classes into _SIZES blocks: those that are taken for each other most are joined first.

    How much is the mean probability that the slices of the one give to the other, both ways, at one temperature; of
    blocks it is the mean over their pairs of classes.
    """
    count = logits.shape[1]
    temperature, _ = temperatures_for(logits, labels, groups, ())
    sums = np.zeros((count, count))
    np.add.at(sums, labels, softmax(logits / temperature))
    of_class = np.bincount(labels, minlength=count)[:, None]
    given = np.divide(sums, of_class, out=np.zeros_like(sums), where=of_class > 0)
    unlikeness = 2 - given - given.T
    tree = linkage(unlikeness[np.triu_indices(count, 1)], "average")
    cuts = [fcluster(tree, size, "maxclust") for size in _SIZES if size < count]
    return [_ordered([np.flatnonzero(cut == n).tolist() for n in np.unique(cut)]) for cut in cuts]


def _ordered(blocks: list[list[int]]) -> Blocks:
    return tuple(sorted(tuple(sorted(block)) for block in blocks))


def folds_of(labels: np.ndarray, groups: np.ndarray, classes: int) -> np.ndarray:
    """(N,) a fold for each group, the groups of a class dealt out in turn, the largest first."""
    names, place = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), classes), np.int64)
    np.add.at(counts, (place, labels), 1)
    order = np.lexsort((names, -counts.sum(axis=1), counts.argmax(axis=1)))
    fold = np.empty(len(names), np.int64)
    fold[order] = np.arange(len(names)) % min(_FOLDS, len(names))
    return fold[place]


def _softened(labels: np.ndarray, groups: np.ndarray, classes: int) -> np.ndarray:
    """(N, C) the truth as `temperatures_for` softens it."""
    softened = 0.5 / (len(np.unique(groups)) + 1)
    truth = np.full((len(labels), classes), softened / (classes - 1))
    truth[np.arange(len(labels)), labels] = 1 - softened
    return truth


def _log_losses(logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return logsumexp(logits, axis=1) - (truth * logits).sum(axis=1)


def _checked(
    logits: np.ndarray, labels: np.ndarray, groups: np.ndarray | None, classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    logits, labels = np.asarray(logits, np.float64).reshape(-1, classes), np.asarray(labels)
    if not len(labels) or len(labels) != len(logits) or not np.isfinite(logits).all():
        raise UsageError("Temperatures need at least one slice, a label for each, and finite logits.")
    return logits, labels, np.arange(len(labels)) if groups is None else np.asarray(groups)


def fold_calibration(weight: np.ndarray, bias: np.ndarray, calibration: Calibration) -> tuple[np.ndarray, np.ndarray]:
    """Weight (C, D) and bias (C,) of a last layer whose logits are calibrated.

    So timm, transformers, ONNX Runtime and a browser give calibrated probabilities without knowing lungct.json.
    """
    matrix = calibration.matrix(len(weight))
    return (matrix @ weight).astype(weight.dtype), (matrix @ bias).astype(bias.dtype)


def fit_abstain(
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    target_error: float = 0.05,
    distance: SourceDistance | None = None,
    distances: np.ndarray | None = None,
) -> AbstainRule:
    """Thresholds from calibrated predictions of held-out groups: as many answers as the target error allows.

    First the distance: its threshold is `fit_limit` of `distances`, so that it refuses what other sources made and
    hardly any slice of its own. Then, among what passes, the lowest confidence threshold at which
    (errors + m) / (answers + m) is at most `target_error`, m being the mean number of answers in a group that is
    answered: as if one more group had been answered and all of it wrongly. That guards against few groups: a target of
    5 % needs at least 19 answered groups, even without an error. When no threshold does it, the one with the lowest
    such bound is taken and `target_met` is False. `expected_error` and `expected_coverage` are what these very slices
    gave, without the guard.
    """
    if not 0 < target_error < 1:
        raise UsageError(f"The target error is {target_error}; it must lie between 0 and 1.")
    if not len(labels) or (distance is None) != (distances is None):
        raise UsageError("Thresholds need held-out slices, and the distance together with its values for them.")
    limit = None if distances is None else fit_limit(distances, groups)
    passing = np.ones(len(labels), bool) if distances is None else distances <= limit
    confidence, wrong = probabilities.max(axis=1), probabilities.argmax(axis=1) != labels
    order = np.flatnonzero(passing)[np.argsort(-confidence[passing], kind="stable")]
    ranked = confidence[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # equal confidences are answered together
    first = np.zeros(len(order))
    first[np.unique(np.asarray(groups)[order], return_index=True)[1]] = 1
    answers, errors, met = ends + 1.0, wrong[order].cumsum()[ends], first.cumsum()[ends]
    extra = answers / met
    bound = (errors + extra) / (answers + extra)
    good = np.flatnonzero(bound <= target_error)
    chosen = int(good[-1]) if len(good) else int(np.flatnonzero(bound <= bound.min() + 1e-12)[-1])
    return AbstainRule(
        min_confidence=_down(float(ranked[ends[chosen]])),
        max_distance=limit,
        target_error=target_error,
        target_met=bool(len(good)),
        expected_error=float(errors[chosen] / answers[chosen]),
        expected_coverage=float(answers[chosen] / len(labels)),
        distance=distance,
    )


def fit_calibration(
    logits: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    classes: Classes,
    target_error: float = 0.05,
    features: np.ndarray | None = None,
    training: tuple[np.ndarray, np.ndarray] | None = None,
    distances: np.ndarray | None = None,
    folded: bool = True,
) -> Calibration:
    """Temperatures, operating points and abstain rule from the logits of held-out groups, before any calibration.

    With `training` = (features at the guard's stage, names of their sources) of the training slices, and of the
    held-out slices their `features` or their
    `distances` (where networks of their own measured them), the rule also looks at the distance. `folded` says that
    the caller folds the temperatures into the last layer.
    """
    fitted = fit_temperatures(logits, labels, groups, classes=classes)
    distance = fit_sources(*training) if training is not None else None
    if distance is not None and features is not None:
        distances = distance(features)
    held_out = softmax(np.asarray(logits) @ fitted.matrix(len(classes))), np.asarray(labels), np.asarray(groups)
    rule = fit_abstain(
        *held_out,
        target_error=target_error,
        distance=distance,
        distances=distances,
    )
    counted: Mapping[str, int] = {"slices": len(labels), "groups": len(set(np.asarray(groups).tolist()))}
    points = fit_operating(*held_out, classes)
    return Calibration(*fitted, folded=folded, abstain=rule, operating=points, fitted_on=counted)


def risk_coverage(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """How the error among answers falls as the least confident are left out.

    `coverage`, `risk` and `threshold` (K,), one entry per distinct confidence from the highest down; `aurc` as
    figures.py defines it.
    """
    confidence, wrong = probabilities.max(axis=1), probabilities.argmax(axis=1) != labels
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    risk = wrong[order].cumsum()[ends] / (ends + 1)
    return {
        "coverage": (ends + 1) / len(order),
        "risk": risk,
        "threshold": ranked[ends],
        "aurc": float(np.average(risk, weights=np.diff(ends, prepend=-1))),
    }


def _down(value: float) -> float:
    """Rounded so that what just passed still passes."""
    return float(np.floor(value * 1e6) / 1e6)
