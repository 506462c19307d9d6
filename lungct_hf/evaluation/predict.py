"""Logits and features of a cohort's slices from a loaded classifier, the way it answers anywhere else."""

from __future__ import annotations

import numpy as np
import torch
from tqdm import tqdm

from ..cohort import Cohort, Split
from ..cohort.folds import units
from ..decision import Calibration, decide
from ..model.network import logits_and_features
from ..runtime.classifier import LungCTClassifier
from .baselines import VIEWS, nearest_neighbour


@torch.inference_mode()
def predict_cohort(
    classifier: LungCTClassifier,
    cohort: Cohort,
    rows: np.ndarray,
    *,
    batch_size: int = 32,
    progress: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (len(rows), C) and what the abstain rule measures (len(rows), D), float32, in the order of `rows`.

    Raises LungCTError when a file has gone or changed since the cohort was loaded.
    """
    network, device = classifier.network, next(classifier.parameters()).device
    was_training = classifier.training
    classifier.eval()
    logits, features = [np.empty((0, len(classifier.contract.classes)), np.float32)], []
    bar = tqdm(total=len(rows), desc="Predicting", unit="slice", delay=2, disable=not progress)
    for start in range(0, len(rows), batch_size):
        batch = np.stack([classifier.preprocessing(cohort.read(row)) for row in rows[start : start + batch_size]])
        inputs = torch.from_numpy(batch).to(device, memory_format=torch.channels_last)
        answers, pooled = logits_and_features(network, inputs, classifier.contract.measured_output or "source")
        logits.append(answers.cpu().numpy())
        features.append(pooled.cpu().numpy())
        bar.update(len(batch))
    bar.close()
    classifier.train(was_training)
    return np.concatenate(logits), np.concatenate(features) if features else np.empty((0, 0), np.float32)


def prediction_rows(
    classifier: LungCTClassifier,
    cohort: Cohort,
    split: Split | None,
    seen: set[str],
    calibration: Calibration | None,
    *,
    progress: bool = True,
) -> list[dict[str, object]]:
    """Rows for write_predictions from fresh answers: all slices, or with `split` its test slices.

    The cohort's classes are the classifier's.

    Slices whose sha256 is in `seen` tell nothing about new people: their split is "seen", which no figure counts. With
    `split` the baselines stand beside the model, with its training and validation slices as neighbours; slices of an
    external data set have none.
    """
    rows = split.indices("test") if split is not None else np.arange(len(cohort))
    logits, features = predict_cohort(classifier, cohort, rows, progress=progress)
    groups = split.groups if split is not None else cohort.groups
    named = baselines_of(cohort, split) if split is not None else {}
    classes = cohort.classes
    decisions = (
        decide(calibration, classes, logits, features) if calibration is not None and calibration.abstain else None
    )
    made: list[dict[str, object]] = []
    for place, row in enumerate(rows.tolist()):
        sha256 = str(cohort.sha256[row])
        found: dict[str, object] = {
            "id": str(cohort.ids[row]),
            "sha256": sha256,
            "group": str(groups[row]),
            "split": "seen" if sha256 in seen else "test",
            "fold": int(split.fold_of[row]) if split is not None else 0,
            "label": classes[cohort.labels[row]],
            "logits": logits[place].tolist(),
        }
        found |= {name: classes[numbers[place]] for name, numbers in named.items()}
        if decisions is not None:
            found |= {"distance": decisions[place].distance, "abstained": decisions[place].reason or ""}
        made.append(found)
    return made


def known_slices(cohort: Cohort, split: Split | None, trained: Split) -> tuple[set[str], set[str]]:
    """The sha256 of what a model that was trained on `trained` saw: its slices, and with them all of their groups.

    A group is known when the cohort (or `split`, a manifest) or `trained` puts a slice of it beside one the model saw.
    The model's own manifest is judged as it stands: its protocol says already which groups are on both sides.
    """
    learned = np.isin(trained.split, ("train", "validation"))
    seen = set(trained.sha256[learned].tolist())
    if split is not None and split.hash == trained.hash:
        return seen, seen
    known = set(trained.sha256[_whole_units(trained.groups, trained.sha256, learned)].tolist())
    groups = split.groups if split is not None else cohort.groups
    touched = _whole_units(groups, cohort.sha256, np.isin(cohort.sha256, sorted(known)))
    return seen, known | set(cohort.sha256[touched].tolist())


def _whole_units(groups: np.ndarray, sha256: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """bool (N,): `rows` and all that shares a group, or an identical file, with one of them."""
    members = units(groups, sha256)
    return np.isin(members, members[rows])


def baselines_of(cohort: Cohort, split: Split) -> dict[str, np.ndarray]:
    """Class numbers of the test slices by what learns nothing, under the columns' names in predictions.parquet."""
    known = np.concatenate([split.indices("train"), split.indices("validation")])
    test, labels = split.indices("test"), cohort.labels
    views = {name: view(cohort.thumbnails) for name, view in VIEWS.items()}
    return {name: nearest_neighbour(view[known], labels[known], view[test]) for name, view in views.items()}
