"""A small model with everything that a published one has: evaluation, plots, known answers, provenance."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from evaluation.simulated import rows
from hub_server import HubServer
from lungct_hf import LungCT
from lungct_hf.classes import Classes
from lungct_hf.evaluation.plots import write_plots
from lungct_hf.evaluation.predictions import write_predictions
from lungct_hf.evaluation.report import evaluate_predictions
from lungct_hf.known_sets import phantoms, schema_1_classes
from lungct_hf.slices.phantom import draw_phantom
from lungct_hf.slices.window import LUNG_WINDOW
from runtime.small_model import write_model


def phantom_picture(label: str, patient: int, size: int = 192) -> Image.Image:
    return Image.fromarray(LUNG_WINDOW.apply(draw_phantom(label, patient, 0.0, size=size)))


def png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def write_published(folder: Path, classes: Classes | None = None) -> Path:
    """`write_model` that answers on some phantoms and abstains on others."""
    classes = classes or schema_1_classes()
    write_model(folder, classes=classes)
    record = json.loads((folder / "lungct.json").read_text())
    record["calibration"]["abstain"] |= {"min_confidence": 0.5, "max_distance": 2.0}
    record["provenance"] = {
        "init": {"kind": "random", "source": None, "sha256": None},
        "data": {"kind": "phantom", "source": "/home/someone/phantoms", "slices": 45, "groups": 15},
    }
    (folder / "lungct.json").write_text(json.dumps(record))
    write_evidence(folder, classes)
    write_canaries(folder)
    return folder


def write_evidence(folder: Path, classes: Classes) -> None:
    """evaluation/ as training writes it, from simulated predictions under two protocols."""
    rng, evaluation = np.random.default_rng(0), folder / "evaluation"
    evaluation.mkdir()
    guesses = {"nearest_neighbour": classes[0], "ring_nearest_neighbour": classes[1]}
    table = rows(rng, protocol="linked", classes=classes, **guesses)
    table += rows(rng, protocol="image", signal=4.0, classes=classes, **guesses)
    write_predictions(evaluation / "predictions.parquet", table, classes)
    split = {"protocol": "linked", "grouping": "linked", "hash": "ab" * 32, "groups_crossing": 0}
    report = evaluate_predictions(evaluation / "predictions.parquet", split=split, replicates=50)
    (evaluation / "metrics.json").write_text(json.dumps(report.metrics))
    write_plots(report, evaluation)


def write_canaries(folder: Path, *, shift: float = 0.0) -> None:
    """canaries/ as a release writes it; with `shift` it records other logits than the model gives."""
    model = LungCT.from_pretrained(folder)
    pictures = {f"{label}_90001.png": phantom_picture(label, 90001) for label in phantoms().classes}
    squares = model.contract.preprocessing.squares([one.convert("RGB") for one in pictures.values()])
    logits = model.predict_images(squares)[0] + shift
    (folder / "canaries").mkdir(exist_ok=True)
    slices = []
    for (name, picture), values in zip(pictures.items(), logits.tolist(), strict=True):
        (folder / "canaries" / name).write_bytes(content := png(picture))
        digest = hashlib.sha256(content).hexdigest()
        slices.append({"file": name, "sha256": digest, "label": name.partition("_")[0], "logits": values})
    record = {"tolerance": 1e-4, "generator": 1, "labels": list(phantoms().classes), "slices": slices}
    (folder / "canaries" / "canaries.json").write_text(json.dumps(record))


def put(hub: HubServer, model: Path) -> str:
    """Upload the model as alice/tiny; returns the commit."""
    if ("model", "alice/tiny") not in hub.store.repos:
        hub.store.create_repo("alice/tiny")
    files = {str(path.relative_to(model)): path.read_bytes() for path in model.rglob("*") if path.is_file()}
    hub.store.put("alice/tiny", files)
    return hub.repo("alice/tiny").branches["main"]
