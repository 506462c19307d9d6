"""The report on stored predictions: grouped beside image-level, model beside baselines, all with intervals.

`Report.metrics` is what metrics.json stores:

    test            the headline protocol's test slices, all folds and seeds pooled: the block of figures.figures with
      intervals     {figure: {value, low, high}}, per class under per_class (bootstrap.py)
      cautions      what to know before believing the intervals
      cases         the same figures and intervals with each group's slices pooled (`pooling` names the rule)
      folds, seeds  accuracy and balanced accuracy of each; mean_of_folds over all folds of all seeds
      risk_coverage error among the most confident share of the slices
      uncalibrated  ece, log_loss and brier before calibration, when the predictions carry it
      abstention    coverage and error of the abstain rule, when there is one
    validation      plain figures: it chose the weights
    baselines       nearest_neighbour, ring_nearest_neighbour, histogram_nearest_neighbour, model_ring: as test, and
                    model_minus: paired difference
    neutral         equal_histogram, equal_texture: as test, of the slices with equal grey levels, or equal texture;
      minus_untouched  paired difference from test
      histogram        1-NN on the grey levels of such slices, and model_minus: paired difference
    operating       where classes are marked positive: any of them against the others, see operating.py
    other_protocols {name: {test, validation, baselines, operating}}
    leak_gap        image-level minus the headline, for the model and each baseline
    protocol, split, bootstrap
    classes         their names in order, and which of them are positive; absent where the predictions do not say
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..decision import OPERATING_POINTS, POOLING, Calibration, why_not
from ..errors import LungCTError, UsageError
from .baselines import VIEWS
from .bootstrap import REPLICATES, cautions, difference, intervals, method, paired_difference, share
from .calibration import risk_coverage
from .figures import figures
from .operating import operating_block
from .predictions import (
    class_numbers,
    classes_of_table,
    has_classes,
    logits_of,
    read_predictions,
    uncalibrated_logits,
)
from .sample import Sample

CROSS_VALIDATED = "cross-validated"  # the figures are the folds', not those of the weights beside them
IMAGE = "image"  # the protocol that leaks: slices assigned one by one
BASELINES = {
    "nearest_neighbour": "1-NN on 64 x 64 grey thumbnails, training and validation slices as neighbours",
    "ring_nearest_neighbour": "the same on the outer 10-pixel ring alone, where no lung is seen",
    "histogram_nearest_neighbour": "the same on the grey histogram alone, which knows no place",
    "model_ring": "the model itself, shown only the outer ring",
}
# Columns of the model's answers to neutral views (neutral.py), what they are, and the baseline beside them.
NEUTRAL = {
    "equal_histogram": ("every slice with the grey levels that the training slices have on average", "histogram"),
    "equal_texture": ("every slice with the noise and sharpness that the training slices have on average", None),
}
_COMPARED = ("balanced_accuracy", "accuracy", "macro_auroc", "auroc")
_COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)


@dataclass(frozen=True, eq=False)
class Part:
    """The predictions under one protocol. `ids` and `folds` have one entry per row of `test`."""

    test: Sample
    ids: np.ndarray
    folds: np.ndarray
    validation: Sample | None = None
    baselines: dict[str, Sample] = field(default_factory=dict)
    neutral: dict[str, Sample] = field(default_factory=dict)
    neutral_histogram: Sample | None = None
    uncalibrated: Sample | None = None
    answered: np.ndarray | None = None
    thresholds: np.ndarray | None = None  # (N, 4) the cuts that judge each row of `test`
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Report:
    """`metrics` for metrics.json; the `parts` by protocol, for plots; `headline` is the protocol shown first."""

    metrics: dict[str, Any]
    parts: dict[str, Part]
    headline: str


def evaluate_predictions(
    predictions: pa.Table | Path,
    *,
    split: Mapping[str, Any] | None = None,
    calibration: Calibration | None = None,
    headline: str | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Report:
    """Everything that follows from predictions.parquet (its table or path).

    `split` is the block of that name in metrics.json; it names the protocol of rows that do not say it. `headline` is
    the protocol that `test` shows: by default `linked`, else any that keeps groups whole, else what there is.

    Raises LungCTError when there are no test rows, a slice was predicted twice in one run, or logits are not finite.
    """
    table = read_predictions(predictions)[0] if isinstance(predictions, Path) else predictions
    split = dict(split or {})
    parts = dict(_parts(table, split, calibration))
    if not parts:
        raise LungCTError("The predictions have no rows of the split test, so there is nothing to report on.")
    first = _headline(list(parts), headline)
    target = calibration.abstain.target_error if calibration and calibration.abstain else None

    def blocks(part: Part) -> dict[str, Any]:
        found = _blocks(part, target, replicates, seed)
        if has_classes(table) and part.test.classes.positive:
            found["operating"] = operating_block(part.test, part.thresholds, replicates=replicates, seed=seed)
        return found

    metrics: dict[str, Any] = {"schema_version": 1, "protocol": first, "split": split}
    if has_classes(table):
        metrics["classes"] = classes_of_table(table).to_json()
    metrics |= blocks(parts[first])
    others = {name: blocks(part) for name, part in parts.items() if name != first}
    if others:
        metrics["other_protocols"] = others
    if IMAGE in others:
        metrics["leak_gap"] = _leak_gap(parts[IMAGE], parts[first], replicates, seed)
    metrics["bootstrap"] = method(replicates, seed)
    return Report(metrics, parts, first)


def _parts(table: pa.Table, split: dict[str, Any], calibration: Calibration | None) -> Iterator[tuple[str, Part]]:
    names = _texts(table, "protocol", _protocol_name(split))
    tested, held_back = (_texts(table, "split") == side for side in ("test", "validation"))
    for name in sorted(set(names[tested].tolist())):
        rows = table.filter(pa.array((names == name) & tested))
        others = table.filter(pa.array((names == name) & held_back))
        _check_unique(rows, name)
        # The cuts of a model that was trained on all slices were fitted on its folds' test slices as well.
        yield name, _part(rows, others, calibration, pooled=split.get("evidence") == CROSS_VALIDATED)


def _part(rows: pa.Table, others: pa.Table, calibration: Calibration | None, *, pooled: bool) -> Part:
    test, baselines = _sample(rows), {}
    for column in VIEWS:
        if column in rows.column_names and (named := class_numbers(rows, column)).min() >= 0:
            baselines[column] = replace(test, named=named, probabilities=None)
    if (ring := _complete(rows, "ring_logits")) is not None:
        baselines["model_ring"] = _sample(rows, ring)
    neutral = {name: _complete(rows, f"{name}_logits") for name in NEUTRAL}
    levels, histogram = "equal_histogram_nearest_neighbour", None
    if levels in rows.column_names and (named := class_numbers(rows, levels)).min() >= 0:
        histogram = replace(test, named=named, probabilities=None)
    raw = uncalibrated_logits(rows)
    abstained = _abstained(rows, test, calibration)
    reasons: Counter[str] = Counter() if abstained is None else Counter(abstained[abstained != ""].tolist())
    return Part(
        test=test,
        ids=_texts(rows, "id"),
        folds=np.asarray(rows["fold"].to_pylist(), np.int64),
        validation=_sample(others) if len(others) else None,
        baselines=baselines,
        neutral={name: _sample(rows, logits) for name, logits in neutral.items() if logits is not None},
        neutral_histogram=histogram,
        uncalibrated=None if raw is None else _sample(rows, raw),
        answered=None if abstained is None else abstained == "",
        thresholds=_thresholds(rows, None if pooled else calibration),
        reasons=dict(sorted(reasons.items())),
    )


def _complete(rows: pa.Table, column: str) -> np.ndarray | None:
    """float32 (N, C): the logits of a column that every row has; None otherwise."""
    if column not in rows.column_names:
        return None
    logits = logits_of(rows, column)
    return None if np.isnan(logits).any() else logits


def _abstained(rows: pa.Table, test: Sample, calibration: Calibration | None) -> np.ndarray | None:
    """Each row's reason not to answer or "": as stored (folds have thresholds of their own), else by the rule."""
    if "abstained" in rows.column_names and not rows["abstained"].null_count:
        return _texts(rows, "abstained")
    rule = calibration.abstain if calibration else None
    has_distance = "distance" in rows.column_names and not rows["distance"].null_count
    if calibration is None or rule is None or (rule.distance is not None and not has_distance):
        return None
    distance = _numbers(rows, "distance") if rule.distance is not None else None
    confidence = calibration.probabilities(logits_of(rows)).max(axis=1)
    return np.array([reason or "" for reason in why_not(rule, confidence, distance)], np.str_)


def _thresholds(rows: pa.Table, calibration: Calibration | None) -> np.ndarray | None:
    """The cuts that judge each row (N, 4): as stored (folds have their own), else those of `calibration`."""
    if "thresholds" in rows.column_names and not rows["thresholds"].null_count:
        found = rows["thresholds"].to_pylist()
        if wrong := next((row for row in found if len(row) != len(OPERATING_POINTS)), None):
            raise LungCTError(f"The predictions have {len(wrong)} thresholds in a row, not {len(OPERATING_POINTS)}.")
        return np.array(found, np.float64)
    if calibration is None or not calibration.operating:
        return None
    return np.tile([point.threshold for point in calibration.operating], (len(rows), 1))


def _blocks(part: Part, target: float | None, replicates: int, seed: int) -> dict[str, Any]:
    test = _block(part.test, replicates, seed) | _by_run(part)
    test["risk_coverage"] = _risk_table(part.test)
    if part.uncalibrated is not None:
        before = figures(part.uncalibrated)
        test["uncalibrated"] = {name: before[name] for name in ("ece", "log_loss", "brier")}
    if part.answered is not None:
        everything, wrong = np.ones(len(part.test), bool), part.test.named != part.test.labels
        test["abstention"] = {
            "target_error": target,
            "coverage": share(part.test, part.answered, everything, replicates=replicates, seed=seed),
            "error": share(part.test, wrong, part.answered, replicates=replicates, seed=seed),
            "reasons": part.reasons,
        }
    found: dict[str, Any] = {"test": test}
    if part.validation is not None:
        found["validation"] = figures(part.validation)
    found["baselines"] = {
        name: _block(sample, replicates, seed)
        | {"description": BASELINES[name], "model_minus": _compared(part.test, sample, replicates, seed)}
        for name, sample in part.baselines.items()
    }
    if part.neutral:
        found["neutral"] = {name: _neutral(part, name, replicates, seed) for name in part.neutral}
    return found


def _neutral(part: Part, name: str, replicates: int, seed: int) -> dict[str, Any]:
    sample, (description, baseline) = part.neutral[name], NEUTRAL[name]
    found = _block(sample, replicates, seed) | {
        "description": description,
        "minus_untouched": _compared(sample, part.test, replicates, seed),
    }
    if baseline and part.neutral_histogram is not None:
        beside = part.neutral_histogram
        minus = _compared(sample, beside, replicates, seed)
        found[baseline] = _block(beside, replicates, seed) | {"model_minus": minus}
    return found


def _block(sample: Sample, replicates: int, seed: int) -> dict[str, Any]:
    cases = sample.cases()
    pooled = {"pooling": POOLING if sample.probabilities is not None else "vote", **figures(cases)}
    return figures(sample) | {
        "intervals": intervals(sample, replicates=replicates, seed=seed),
        "cautions": cautions(sample),
        "cases": pooled
        | {
            "intervals": intervals(cases, replicates=replicates, seed=seed),
            "mixed_groups": len(sample.mixed_groups),
        },
    }


def _compared(a: Sample, b: Sample, replicates: int, seed: int) -> dict[str, Any]:
    return _few(paired_difference(a, b, replicates=replicates, seed=seed))


def _leak_gap(image: Part, grouped: Part, replicates: int, seed: int) -> dict[str, Any]:
    """How much of the image-level score is recognition of near-copies."""
    pairs = {"model": (image.test, grouped.test)}
    pairs |= {n: (image.baselines[n], grouped.baselines[n]) for n in image.baselines if n in grouped.baselines}
    found = {name: difference(*pair, replicates=replicates, seed=seed) for name, pair in pairs.items()}
    return {"paired": found["model"]["paired"], **{name: _few(values) for name, values in found.items()}}


def _few(found: dict[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in _COMPARED if name in found}


def _by_run(part: Part) -> dict[str, Any]:
    """Folds and seeds one by one, where there are several."""
    runs = part.test.runs
    places = sorted({(run, fold) for run, fold in zip(runs.tolist(), part.folds.tolist(), strict=True)}, key=str)
    if len(places) < 2:
        return {}
    folds = []
    for run, fold in places:
        one = part.test.take((runs == run) & (part.folds == fold))
        folds.append({"seed": int(run), "fold": fold, "n": len(one)} | _two(one))
    means = {name: float(np.mean([row[name] for row in folds])) for name in ("accuracy", "balanced_accuracy")}
    seeds = [{"seed": int(run)} | _two(part.test.take(runs == run)) for run in sorted(set(runs.tolist()), key=int)]
    return {"folds": folds, "mean_of_folds": means, "seeds": seeds}


def _two(sample: Sample) -> dict[str, float]:
    right = sample.named == sample.labels
    rates = [right[sample.labels == c].mean() for c in np.unique(sample.labels)]
    return {"accuracy": float(right.mean()), "balanced_accuracy": float(np.mean(rates))}


def _risk_table(sample: Sample) -> list[dict[str, float]]:
    """Error among the answers at the smallest possible coverage of at least 100, 90, ... %."""
    assert sample.probabilities is not None
    curve = risk_coverage(sample.probabilities, sample.labels)
    places = np.searchsorted(curve["coverage"], np.array(_COVERAGES) - 1e-9)
    return [
        {"coverage": float(curve["coverage"][i]), "error": float(curve["risk"][i])}
        | {"min_confidence": float(curve["threshold"][i])}
        for i in places
    ]


def _sample(rows: pa.Table, logits: np.ndarray | None = None) -> Sample:
    values = logits_of(rows) if logits is None else logits
    if not np.isfinite(values).all():
        raise LungCTError("Some stored logits are not finite, so no figure can be computed from them.")
    return Sample.of(
        class_numbers(rows, "label"),
        values,
        classes=classes_of_table(rows),
        groups=_texts(rows, "group"),
        keys=_texts(rows, "sha256"),
        runs=_texts(rows, "seed", "0"),
    )


def _texts(table: pa.Table, column: str, otherwise: str = "") -> np.ndarray:
    if column not in table.column_names:
        return np.full(len(table), otherwise)
    return np.array([otherwise if v is None else str(v) for v in table[column].to_pylist()], np.str_)


def _numbers(table: pa.Table, column: str) -> np.ndarray:
    return np.asarray(table[column].to_pylist(), np.float64)


def _check_unique(rows: pa.Table, protocol: str) -> None:
    keys = np.char.add(np.char.add(_texts(rows, "seed", "0"), "\n"), _texts(rows, "id"))
    names, counts = np.unique(keys, return_counts=True)
    if counts.max() > 1:
        twice = str(names[counts.argmax()]).partition("\n")[2]
        raise LungCTError(
            f'The slice "{twice}" was predicted {counts.max()} times in one run ({protocol}), so it would count more '
            "than others. Fix: one row per slice, seed and protocol."
        )


def _protocol_name(split: dict[str, Any]) -> str:
    protocol = str(split.get("protocol") or "unrecorded")
    return str(split.get("grouping") or protocol) if protocol == "grouped" else protocol


def _headline(names: list[str], wanted: str | None) -> str:
    if wanted is not None and wanted not in names:
        raise UsageError(f"There are no predictions under the protocol {wanted!r}; there are: {', '.join(names)}.")
    return wanted or min(names, key=lambda name: (name == IMAGE, name != "linked", name))
