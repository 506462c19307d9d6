"""Which stage of the network tells other sources apart: the table in docs/results.md.

    python benchmarks/source_guard.py runs/NAME --data DATA --outside NAME=FOLDER --outside NAME=FOLDER ...

For every stage of the run's network, and for the features before its last layer: mean and scatter of the channels, the
distance of `fit_sources` fitted on four fifths of the groups of DATA, the limit of `fit_limit` from the fifth that was
left out (all five in turn), and of the slices of each outside folder that pass the input check's absolute rules the
share beyond that limit. DATA are the slices that the run learned from; its split.csv says the folds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lungct_hf import LungCTClassifier
from lungct_hf.cohort import load_cohort, make_split
from lungct_hf.evaluation.source_guard import fit_limit, fit_sources
from lungct_hf.slices.source import Frame, open_slices

_BATCH = 16


@torch.inference_mode()
def stages(network: Any, inputs: torch.Tensor) -> Iterator[np.ndarray]:
    """Mean and standard deviation of every channel after each stage, then the pooled features."""
    maps = network.bn1(network.conv_stem(inputs))
    for stage in network.blocks:
        maps = stage(maps)
        yield torch.cat([maps.mean((2, 3)), maps.std((2, 3), unbiased=False)], 1).numpy()
    yield network.forward_head(network.bn2(network.conv_head(maps)), pre_logits=True).numpy()


def measured(classifier: LungCTClassifier, squares: np.ndarray) -> list[np.ndarray]:
    """For each stage the features (N, D) of letterboxed slices."""
    parts = []
    for start in range(0, len(squares), _BATCH):
        inputs = torch.from_numpy(classifier.preprocessing.normalise(squares[start : start + _BATCH]))
        parts.append(list(stages(classifier.network, inputs)))
    return [np.concatenate(found) for found in zip(*parts, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--outside", action="append", default=[], metavar="NAME=FOLDER")
    asked = parser.parse_args()
    classifier = LungCTClassifier.from_pretrained(asked.run)
    contract = classifier.contract
    cohort = load_cohort(asked.data, classes=contract.classes, window=contract.window, progress=False)
    model = asked.run / "model" if (asked.run / "model").is_dir() else asked.run
    split = make_split(cohort, str(model / "evaluation" / "split.csv"))
    own = measured(classifier, classifier.preprocessing.squares([cohort.read(row) for row in range(len(cohort))]))
    outside = {}
    for entry in asked.outside:
        name, _, folder = entry.partition("=")
        found = [one for one in open_slices(folder, window=contract.window) if isinstance(one, Frame)]
        passed = [one.pixels for one in found if not one.report.codes]
        outside[name] = measured(classifier, classifier.preprocessing.squares(passed)) if passed else None
        print(f"{name}: {len(passed)} of {len(found)} slices pass the absolute rules")
    print("| stage | numbers | limit | own slices beyond it, % |", " | ".join(outside), "|")
    print("|---|---|---|---|" + "---|" * len(outside))
    for stage, features in enumerate(own):
        distances = np.empty(len(cohort))
        for fold in range(split.folds):
            out = split.fold_of == fold
            distances[out] = fit_sources(features[~out], ["own"] * int((~out).sum()))(features[out])
        limit, near = fit_limit(distances, split.groups), fit_sources(features, ["own"] * len(features))
        beyond = ["-" if of is None else f"{100 * np.mean(near(of[stage]) > limit):.0f}" for of in outside.values()]
        label = f"{stage + 1} of {len(own) - 1}" if stage < len(own) - 1 else "last layer"
        share = 100 * np.mean(distances > limit)
        print(f"| {label} | {features.shape[1]} | {limit:.2f} | {share:.1f} |", " | ".join(beyond), "|")


if __name__ == "__main__":
    main()
