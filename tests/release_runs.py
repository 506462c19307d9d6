"""Runs to release: a small real network, and evidence of a model that is good, as training writes it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from helpers import draw_slice, wake_up
from lungct_hf import LungCTClassifier
from lungct_hf.classes import Classes
from lungct_hf.cohort import Split
from lungct_hf.commands.external import judge_elsewhere
from lungct_hf.contract import Contract
from lungct_hf.decision import AbstainRule, Calibration
from lungct_hf.evaluation import evaluate_predictions, write_predictions
from lungct_hf.evaluation.source_guard import fit_sources
from lungct_hf.files import write_json
from lungct_hf.hub import ModelRepo, write_card, write_eval_results
from lungct_hf.known_sets import schema_1_classes
from lungct_hf.model import build_network
from lungct_hf.model.network import logits_and_features
from lungct_hf.model.onnx_export import export_onnx
from lungct_hf.slices.phantom import draw_phantom
from lungct_hf.slices.preprocess import Preprocessing
from lungct_hf.slices.window import LUNG_WINDOW

ARCHITECTURE, SIZE = "mobilenetv2_035", 64
CLASSES = schema_1_classes()
GROUPS, SLICES, FOLDS = 45, 2, 3  # of each class


def write_run(
    run: Path,
    *,
    classes: Classes = CLASSES,
    seed: int = 0,
    signal: float = 3.0,
    scale: float = 1.0,
    init: str | None = "imagenet1k-v2",
) -> Path:
    """A run of `classes` whose weights are random and whose stored predictions are those of a good model.

    `signal` says how good: the right class's logit stands out by so many deviations. `scale` multiplies the logits, so
    that their confidence is wrong. Nobody without the data can tell that they are not the network's own.
    """
    model = run / "model"
    (model / "evaluation").mkdir(parents=True)
    split = make_split(classes)
    contract, calibration = write_network(model, classes, seed)
    write_evidence(model, split, calibration, seed, signal, scale)
    provenance = {
        "package_version": "0.1.0",
        "git_commit": "a" * 40,
        "created": "2026-11-20T12:00:00Z",
        "command": "training/train.py --data clinic",
        "seed": seed,
        "init": {"kind": init, "source": None, "sha256": None} if init else {},
        "data": {
            "kind": "folder",
            "source": "clinic",
            "fingerprint": split.fingerprint(),
            "slices": len(split.ids),
            "groups": len(classes) * GROUPS,
            "counts": dict.fromkeys(classes, GROUPS * SLICES),
            "skipped": 0,
        },
        "split": {"protocol": "grouped", "grouping": split.grouping, "hash": split.hash, "fold": 0, "folds": FOLDS},
        "recipe": {"name": "default", "epochs": 3},
        "training": {"epochs": 3, "best_epoch": 2, "steps": 9, "seconds": 1.0, "processes": 1},
    }
    write_json(model / "lungct.json", contract | {"provenance": provenance})
    finish(model)
    for name in ("comparison", "confusion", "roc", "precision_recall", "reliability", "risk_coverage"):
        Image.new("L", (8, 8), seed).save(model / "evaluation" / f"{name}.png")  # a release draws them anew
    write_card(model)
    return run


def finish(model: Path) -> None:
    """Make figures, results and card follow from what the folder holds, as training does; the pictures stay."""
    record = json.loads((model / "lungct.json").read_text()).get("calibration")
    split = Split.read(model / "evaluation" / "split.csv", ModelRepo(model).classes)
    report = evaluate_predictions(
        model / "evaluation" / "predictions.parquet",
        split=split.facts(),
        calibration=Calibration.from_json(record) if record else None,
        replicates=200,
    )
    write_json(model / "evaluation" / "metrics.json", report.metrics)
    write_eval_results(model)
    write_card(model)


def write_elsewhere(folder: Path, *, people: int = 4) -> Path:
    """data/clear and data/ill with windowed phantoms of `people` each, one copied, and a map.yaml for them."""
    for name, label, first in (("clear", "normal", 500), ("ill", "malignant", 600)):
        (folder / "data" / name).mkdir(parents=True)
        for person in range(people):
            for place in range(2):
                hu = draw_phantom(label, first + person, 2.0 * place, size=160)
                file = folder / "data" / name / f"{chr(97 + person)}{place}.png"
                Image.fromarray(LUNG_WINDOW.apply(hu)).save(file)
        (folder / "data" / name / "copy.png").write_bytes(file.read_bytes())
    (folder / "map.yaml").write_text("title: Drawn elsewhere\nclasses: {clear: negative, ill: malignant}\n")
    return folder


def evaluate_elsewhere(run: Path, elsewhere: Path, name: str = "other") -> None:
    """`lungct evaluate --external` on what write_elsewhere wrote."""
    sets = [f"{name}={elsewhere / 'data'}"]
    judge_elsewhere(str(run), sets, [f"{name}={elsewhere / 'map.yaml'}"], "refuse", 200, as_json=True)


def make_split(classes: Classes) -> Split:
    rows = [(c, g, s) for c in range(len(classes)) for g in range(GROUPS) for s in range(SLICES)]
    fold_of = np.array([g % FOLDS for _, g, _ in rows])
    side = np.array(["test", "validation", "train"])[fold_of]
    names = [f"{classes[c]}/{classes[c][0]}{g:02d}_{s}.png" for c, g, s in rows]
    return Split(
        protocol="grouped",
        grouping="column:patient_id",
        fold=0,
        folds=FOLDS,
        seed=0,
        split=side.astype(np.str_),
        fold_of=fold_of,
        ids=np.array(names),
        sha256=np.array([hashlib.sha256(name.encode()).hexdigest() for name in names]),
        labels=np.array([c for c, _, _ in rows]),
        groups=np.array([f"{classes[c][0]}{g:02d}" for c, g, _ in rows]),
        classes=classes,
    )


def write_network(model: Path, classes: Classes, seed: int) -> tuple[dict[str, Any], Calibration]:
    """Weights, config.json and ONNX file; gives what lungct.json has to say about them.

    The guard knows the drawn slices, and its rule answers everything that anybody could draw.
    """
    torch.manual_seed(seed)
    preprocessing = Preprocessing(size=SIZE)
    network = wake_up(build_network(ARCHITECTURE, len(classes)), SIZE)
    torch.nn.init.normal_(network.classifier.weight, std=0.05)
    rng = np.random.default_rng(seed)
    pictures = [Image.fromarray(draw_slice(number % 3, rng)).convert("RGB") for number in range(9)]
    squares = preprocessing.squares(pictures)
    with torch.inference_mode():
        seen = logits_and_features(network, torch.from_numpy(preprocessing.normalise(squares)))[1].numpy()
    rule = AbstainRule(min_confidence=0.0, max_distance=1e6, distance=fit_sources(seen, ["clinic"] * len(seen)))
    fitted = {"groups": 45, "slices": 90}
    calibration = Calibration(temperature=1.0, folded=True, abstain=rule, fitted_on=fitted)
    record = export_onnx(network, preprocessing, squares, model)
    contract = Contract(ARCHITECTURE, classes, preprocessing, calibration=calibration, onnx=record)
    LungCTClassifier(network, contract).save_pretrained(model)
    return contract.lungct(), calibration


def write_evidence(
    model: Path, split: Split, calibration: Calibration, seed: int, signal: float, scale: float
) -> None:
    rng, classes = np.random.default_rng(seed), split.classes
    rows: list[dict[str, object]] = []
    for i in np.flatnonzero(split.split != "train").tolist():
        logits = rng.normal(0, 1, len(classes))
        logits[split.labels[i]] += signal
        row: dict[str, object] = {
            "id": str(split.ids[i]),
            "sha256": str(split.sha256[i]),
            "group": str(split.groups[i]),
            "split": str(split.split[i]),
            "fold": int(split.fold_of[i]),
            "label": classes[split.labels[i]],
            "logits": (scale * logits).tolist(),
            "raw_logits": (scale * logits).tolist(),
            "distance": 1.0,
            "abstained": "",
        }
        if row["split"] == "test":
            guesses = np.random.default_rng([7, i]).integers(0, len(classes), 2).tolist()
            row |= {"nearest_neighbour": classes[guesses[0]], "ring_nearest_neighbour": classes[guesses[1]]}
        rows.append(row)
    write_predictions(model / "evaluation" / "predictions.parquet", rows, classes)
    split.write_csv(model / "evaluation" / "split.csv")
