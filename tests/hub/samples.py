"""Small model folders as training writes them: real JSON, invented bytes for the weights."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

LABELS = ["normal", "benign", "malignant"]

CONFIG: dict[str, Any] = {
    "architecture": "mobilenetv2_100",
    "architectures": ["TimmWrapperForImageClassification"],
    "model_type": "timm_wrapper",
    "num_classes": 3,
    "label_names": LABELS,
    "model_args": {},
    "pretrained_cfg": {"input_size": [3, 224, 224], "crop_pct": 1.0},
}
LUNGCT: dict[str, Any] = {
    "schema_version": 1,
    "labels": LABELS,
    "window": {"center": -485.0, "width": 1500.0, "unit": "HU"},
    "geometry": {"mode": "letterbox", "size": 224, "fill": [124, 116, 104], "interpolation": "bilinear"},
    "provenance": {
        "package_version": "0.1.0",
        "git_commit": "a" * 40,
        "command": "training/train.py",
        "created": "2025-11-23T12:00:00Z",
        "seed": 0,
        "init": {"kind": "random", "source": None, "sha256": None},
        "data": {
            "kind": "phantom",
            "source": "phantoms",
            "fingerprint": "f" * 64,
            "slices": 360,
            "groups": 60,
            "counts": {"normal": 120, "benign": 120, "malignant": 120},
            "skipped": 0,
        },
        "split": {
            "protocol": "grouped",
            "grouping": "column:patient_id",
            "hash": "5" * 64,
            "fold": 0,
            "folds": 5,
            "seed": 0,
        },
        "recipe": {"name": "phantom", "epochs": 12, "lr": 0.002, "class_weights": True},
        "training": {
            "epochs": 12,
            "best_epoch": 9,
            "steps": 168,
            "seconds": 141.6,
            "processes": 1,
            "mixed_precision": "no",
        },
        "versions": {"python": "3.11.2", "torch": "2.9.1", "timm": "1.0.31"},
    },
}
_BLOCK: dict[str, Any] = {
    "n": 72,
    "groups": 12,
    "accuracy": 0.8888888888,
    "balanced_accuracy": 0.8823456,
    "macro_auroc": 0.9712,
    "per_class": {
        "normal": {"sensitivity": 0.9583, "specificity": 0.9375, "n": 24},
        "benign": {"sensitivity": 0.75, "specificity": 0.9791, "n": 24},
        "malignant": {"sensitivity": None, "specificity": 0.9166, "n": 24},
    },
    "confusion_matrix": [[23, 1, 0], [2, 18, 4], [1, 0, 23]],
}
METRICS: dict[str, Any] = {
    "schema_version": 1,
    "split": {
        "protocol": "grouped",
        "grouping": "column:patient_id",
        "hash": "5" * 64,
        "groups_crossing": 0,
        "counts": {
            "train": {"normal": 72, "benign": 72, "malignant": 72},
            "validation": {"normal": 24, "benign": 24, "malignant": 24},
            "test": {"normal": 24, "benign": 24, "malignant": 24},
        },
        "groups": {"train": 36, "validation": 12, "test": 12},
    },
    "test": _BLOCK,
    "validation": {**_BLOCK, "balanced_accuracy": 0.9012},
    "baselines": {
        "nearest_neighbour": {
            "accuracy": 0.61,
            "balanced_accuracy": 0.6042,
            "description": "1-NN on 64 x 64 grey thumbnails, training and validation slices as neighbours",
        }
    },
}


def stand_in() -> tuple[dict[str, Any], dict[str, Any]]:
    """lungct.json and metrics.json of a run on IQ-OTH/NCCD that started from a stand-in file."""
    lungct, metrics = copy.deepcopy(LUNGCT), copy.deepcopy(METRICS)
    provenance = lungct["provenance"]
    provenance["init"] = {"kind": "stand-in", "source": "mobilenet_v2-standin.safetensors", "sha256": "d" * 64}
    provenance["data"] |= {"kind": "folder", "source": "iq-oth-nccd", "slices": 1097, "groups": 124, "skipped": 1}
    provenance["data"]["counts"] = {"normal": 416, "benign": 120, "malignant": 561}
    provenance["split"] |= {"grouping": "linked"}
    provenance["command"] = "training/train.py --data iq-oth-nccd --init mobilenet_v2-standin.safetensors"
    metrics["split"] |= {"grouping": "linked"}
    metrics["test"] |= {"n": 219, "groups": 26, "accuracy": 0.731, "balanced_accuracy": 0.586, "macro_auroc": None}
    metrics["test"]["confusion_matrix"] = [[43, 20, 20], [10, 6, 8], [1, 0, 111]]
    metrics["test"]["per_class"] = {
        "normal": {"sensitivity": 0.518, "specificity": 0.919, "n": 83},
        "benign": {"sensitivity": 0.25, "specificity": 0.897, "n": 24},
        "malignant": {"sensitivity": 0.991, "specificity": 0.738, "n": 112},
    }
    metrics["baselines"]["nearest_neighbour"] |= {"accuracy": 0.595, "balanced_accuracy": 0.498}
    return lungct, metrics


def write_model(
    folder: Path,
    lungct: dict[str, Any] = LUNGCT,
    metrics: dict[str, Any] | None = METRICS,
    weights: bytes = b"\0w" * 999,
) -> Path:
    """A model folder without its card."""
    (folder / "evaluation").mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "lungct.json").write_text(json.dumps(lungct))
    (folder / "model.safetensors").write_bytes(weights)
    if metrics is not None:
        (folder / "evaluation" / "metrics.json").write_text(json.dumps(metrics))
        (folder / "evaluation" / "predictions.parquet").write_bytes(b"PAR1\0rows")
    return folder
