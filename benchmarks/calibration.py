"""Rules of calibration beside each other, on the stored predictions of a cross-validation.

    python benchmarks/calibration.py runs/grouped

On validation rows each rule is fitted on four fifths of the groups and judged on the fifth, in turn: that is what a
rule is chosen by. On test rows it is fitted on its fold's validation groups, as training does. Prints a table in
markdown. "surer half wrong" is the error among the more confident half of the answers; "answered" and "wrong" are
those of the abstain rule for a target of 5 %, with 95 % intervals from whole groups.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.optimize import minimize

from lungct_hf.classes import Classes
from lungct_hf.decision import Blocks, FeatureDistance
from lungct_hf.evaluation import Sample, fit_abstain, fit_temperatures, tables
from lungct_hf.evaluation.bootstrap import intervals, share
from lungct_hf.evaluation.calibration import Temperatures, candidate_blocks, choose_blocks, folds_of, temperatures_for
from lungct_hf.evaluation.figures import figures
from lungct_hf.evaluation.predictions import class_numbers, classes_of_table, read_predictions, uncalibrated_logits
from lungct_hf.evaluation.sample import softmax

Rule = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # logits, labels, groups: the matrix (C, C)
_NOWHERE = FeatureDistance(np.zeros((1, 1)), np.ones(1))  # the distances are stored; it only says that there are some


@dataclass(frozen=True, eq=False)
class Side:
    """The rows of a fold's validation or test part, before calibration."""

    logits: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    distances: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a folder with seed-*/fold-*/model/evaluation/predictions.parquet")
    parser.add_argument("--test", action="store_true", help="look at the test rows as well")
    options = parser.parse_args()
    files = sorted(options.run.glob("seed-*/fold-*/model/evaluation/predictions.parquet"))
    if not files:
        parser.error(f"{options.run} holds no fold of a cross-validation")
    read = [read_predictions(path)[0] for path in files]
    classes = classes_of_table(read[0])
    folds = [(side(table, "validation"), side(table, "test")) for table in read]
    columns = ["rule", "log loss", "balanced accuracy, %", "ECE", "surer half wrong, %"]
    columns += ["test: ECE", "answered, %", "wrong, %"] if options.test else []
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name, rule in rules(classes, folds[0][0]).items():
        row = [name, *on_validation([validation for validation, _ in folds], rule, classes)]
        row += on_test(folds, rule, classes) if options.test else []
        print(f"| {' | '.join(row)} |", flush=True)
    unmarked = Classes(classes.names)
    for said, of in (("as marked", classes), ("without marks", unmarked)):
        chosen = [choose_blocks(v.logits, v.labels, v.groups, of) for v, _ in folds]
        print(f"Chosen {said}: " + "; ".join(named(blocks, classes) for blocks in chosen))


def rules(classes: Classes, some: Side) -> dict[str, Rule]:
    """What is tried: the candidates of the package, its choice, and a temperature for each class."""

    def fixed(blocks: Blocks) -> Rule:
        return lambda z, y, g: Temperatures(*temperatures_for(z, y, g, blocks), blocks).matrix(len(classes))

    def chosen(of: Classes) -> Rule:
        return lambda z, y, g: fit_temperatures(z, y, g, classes=of).matrix(len(of))

    candidates = [b for step in candidate_blocks(some.logits, some.labels, some.groups, classes) for b in step]
    made = {"none": lambda z, y, g: np.eye(len(classes))}
    made |= {named(blocks, classes): fixed(blocks) for blocks in candidates}
    made["a temperature for each class"] = per_class
    made["**chosen**"] = chosen(classes)
    made["chosen, no class marked positive"] = chosen(Classes(classes.names))
    return made


def per_class(logits: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Vector scaling without a bias (Guo et al. 2017), the truth softened as the package does."""
    count = logits.shape[1]
    softened = 0.5 / (len(np.unique(groups)) + 1)
    truth = np.full(logits.shape, softened / (count - 1))
    truth[np.arange(len(labels)), labels] = 1 - softened
    centred = logits - logits.mean(axis=1, keepdims=True)

    def loss(inverse: np.ndarray) -> tuple[float, np.ndarray]:
        probabilities = softmax(centred * inverse)
        value = -(truth * np.log(np.maximum(probabilities, 1e-300))).sum(axis=1).mean()
        return float(value), ((probabilities - truth) * centred).mean(axis=0)

    found = minimize(loss, np.ones(count), jac=True, bounds=[(0.05, 20.0)] * count, method="L-BFGS-B")
    return (np.eye(count) - 1 / count) @ np.diag(found.x)


def on_validation(sides: list[Side], rule: Rule, classes: Classes) -> list[str]:
    """Log loss, balanced accuracy, ECE and the error among the surer half, of all folds' validation rows."""
    made = []
    for part in sides:
        probabilities, fold = np.zeros(part.logits.shape), folds_of(part.labels, part.groups, len(classes))
        for one in np.unique(fold):
            out = fold == one
            matrix = rule(part.logits[~out], part.labels[~out], part.groups[~out])
            probabilities[out] = softmax(part.logits[out] @ matrix)
        made.append(probabilities)
    labels, probabilities = np.concatenate([part.labels for part in sides]), np.concatenate(made)
    sample = Sample.of(labels, probabilities=probabilities, classes=classes)
    found = figures(sample)
    surer = probabilities.max(axis=1) >= np.median(probabilities.max(axis=1))
    wrong = 100 * np.mean((sample.named != sample.labels)[surer])
    balanced = 100 * found["balanced_accuracy"]
    return [f"{found['log_loss']:.3f}", f"{balanced:.1f}", f"{found['ece']:.3f}", f"{wrong:.1f}"]


def on_test(folds: list[tuple[Side, Side]], rule: Rule, classes: Classes) -> list[str]:
    """ECE, answered share and error among the answers, of all folds' test rows."""
    made, answered = [], []
    for known, new in folds:
        matrix = rule(known.logits, known.labels, known.groups)
        said = softmax(known.logits @ matrix), known.labels, known.groups
        cut = fit_abstain(*said, distance=_NOWHERE, distances=known.distances)
        made.append(softmax(new.logits @ matrix))
        sure = made[-1].max(axis=1) >= cut.min_confidence
        answered.append(sure & (new.distances <= (cut.max_distance or 0.0)))
    tests = [new for _, new in folds]
    labels, groups = (np.concatenate([getattr(t, name) for t in tests]) for name in ("labels", "groups"))
    sample = Sample.of(labels, groups=groups, probabilities=np.concatenate(made), classes=classes)
    given, everything = np.concatenate(answered), np.ones(len(sample), bool)
    found = share(sample, given, everything), share(sample, sample.named != sample.labels, given)
    return [tables.plain(intervals(sample)["ece"]), *map(tables.percent, found)]


def named(blocks: Blocks, classes: Classes) -> str:
    """Which classes a temperature of their own tells apart."""
    if not blocks:
        return "one temperature"
    return " against ".join("+".join(classes[c] for c in block) for block in blocks)


def side(table: pa.Table, split: str) -> Side:
    """A part of a fold's stored predictions."""
    rows = table.filter(pa.array([name == split for name in table["split"].to_pylist()]))
    logits = uncalibrated_logits(rows)
    if logits is None:
        raise SystemExit("The predictions do not store their logits from before calibration.")
    groups = np.array(rows["group"].to_pylist())
    return Side(logits, class_numbers(rows, "label"), groups, np.array(rows["distance"].to_pylist(), np.float64))


if __name__ == "__main__":
    main()
