"""Write what a run publishes: `model/`, complete or absent."""

from __future__ import annotations

import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import __version__
from ..cohort import Cohort, Split
from ..evaluation import nearest_neighbour, score, write_predictions
from ..files import folder_in_one_step, write_json
from ..labels import LABELS
from ..model import LungCTClassifier
from ..model.contract import Contract

SPLITS = ("train", "validation", "test")
_PACKAGES = ("torch", "torchvision", "timm", "transformers", "accelerate", "datasets", "huggingface_hub")


def evaluate_run(cohort: Cohort, split: Split, logits: dict[str, np.ndarray]) -> dict[str, Any]:
    """metrics.json: both held-out sets from their logits, the 1-NN baseline beside them, the split they rest on."""
    labels = np.asarray(cohort.labels)
    blocks = {}
    for name, values in logits.items():
        rows = split.indices(name)
        groups = len(set(split.groups[rows]))
        blocks[name] = {"groups": groups, **score(labels[rows], values)}
    known, test = np.concatenate([split.indices("train"), split.indices("validation")]), split.indices("test")
    named = nearest_neighbour(cohort.thumbnails[known], labels[known], cohort.thumbnails[test])
    neighbour = score(labels[test], np.eye(len(LABELS))[named])
    return {
        "schema_version": 1,
        "split": {
            "protocol": split.protocol,
            "grouping": split.grouping,
            "hash": split.hash,
            "groups_crossing": split.groups_crossing,
            "counts": split.counts(),
            "groups": {name: len(set(split.groups[split.indices(name)])) for name in SPLITS},
        },
        **blocks,
        "baselines": {
            "nearest_neighbour": {
                "accuracy": neighbour["accuracy"],
                "balanced_accuracy": neighbour["balanced_accuracy"],
                "description": "1-NN on 64 x 64 grey thumbnails, training and validation slices as neighbours",
            }
        },
    }


def prediction_rows(cohort: Cohort, split: Split, logits: dict[str, np.ndarray]) -> list[dict[str, object]]:
    """One row per predicted slice, with the columns of evaluation.predictions.SCHEMA."""
    rows: list[dict[str, object]] = []
    for name, values in logits.items():
        for row, triple in zip(split.indices(name), values, strict=True):
            rows.append(
                {
                    "id": cohort.ids[row],
                    "sha256": cohort.sha256[row],
                    "group": split.groups[row],
                    "split": name,
                    "fold": int(split.fold_of[row]),
                    "label": LABELS[cohort.labels[row]],
                    "logits": [float(value) for value in triple],
                }
            )
    return rows


def split_record(split: Split) -> dict[str, Any]:
    """The entry for lungct.json that says which assignment of slices the figures rest on."""
    return {
        "protocol": split.protocol,
        "grouping": split.grouping,
        "rule": split.rule,
        "hash": split.hash,
        "fold": split.fold,
        "folds": split.folds,
        "seed": split.seed,
        "margin": split.margin,
        "dropped": len(split.indices("dropped")),
    }


def data_record(cohort: Cohort, kind: str) -> dict[str, Any]:
    """The entry for lungct.json that says which slices were used, without naming a folder of the author's."""
    return {
        "kind": kind,
        "source": cohort.source,
        "fingerprint": cohort.fingerprint(),
        "slices": len(cohort),
        "groups": len(set(cohort.groups)),
        "counts": cohort.counts(),
        "skipped": len(cohort.bad_files),
    }


def software_record() -> dict[str, Any]:
    """Versions that influence a number, and the commit of this package where it runs from a checkout."""
    versions = {name: version(name) for name in _PACKAGES}
    return {
        "package_version": __version__,
        "git_commit": _git_commit(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {"python": platform.python_version(), **versions},
    }


def write_model_repo(
    folder: Path,
    network: nn.Module,
    contract: Contract,
    *,
    cohort: Cohort,
    split: Split,
    metrics: dict[str, Any],
    logits: dict[str, np.ndarray],
) -> None:
    """Write weights, configs, evaluation, split and card into `folder` in one step."""
    with folder_in_one_step(folder) as fresh:
        write_json(fresh / "evaluation" / "metrics.json", metrics)
        write_predictions(fresh / "evaluation" / "predictions.parquet", prediction_rows(cohort, split, logits))
        split.write_csv(fresh / "evaluation" / "split.csv")
        LungCTClassifier(network.to(memory_format=torch.contiguous_format), contract).save_pretrained(fresh)


def _git_commit() -> str | None:
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
