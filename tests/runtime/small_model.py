"""A small model with everything a published one has: ONNX file, temperature, and a rule to abstain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from helpers import draw_slice, wake_up
from lungct_hf import LungCTClassifier
from lungct_hf.classes import Classes
from lungct_hf.contract import Contract
from lungct_hf.decision import AbstainRule, Calibration
from lungct_hf.evaluation.source_guard import fit_sources
from lungct_hf.known_sets import phantoms, schema_1_classes
from lungct_hf.model import build_network
from lungct_hf.model.network import logits_and_features
from lungct_hf.model.onnx_export import export_onnx
from lungct_hf.slices.limits import fit_limits
from lungct_hf.slices.phantom import draw_phantom
from lungct_hf.slices.preprocess import Preprocessing
from lungct_hf.slices.source import Frame, open_slices
from lungct_hf.slices.window import Window

SIZE = 64
WIDE = Window(-450.0, 2400.0)
TWO = Classes(("clear", "shadow"), ("shadow",))
TWENTY = Classes(tuple(f"finding number {number}" for number in range(20)), ("finding number 3", "finding number 19"))


def write_model(folder: Path, *, size: int = SIZE, classes: Classes | None = None) -> Path:
    """Answers on drawn discs with varying confidence; abstains on noise and where it is unsure."""
    classes = classes or schema_1_classes()
    count = len(classes)
    torch.manual_seed(3)
    preprocessing = Preprocessing(size=size)
    network = wake_up(build_network("mobilenetv2_035", count), size)
    torch.nn.init.normal_(network.classifier.weight, std=0.4)
    rng = np.random.default_rng(5)
    pictures = [
        Image.fromarray(draw_slice(number % 3, rng, 96)).convert("RGB") for number in range(max(30, 2 * count))
    ]
    squares = preprocessing.squares(pictures)
    with torch.inference_mode():
        logits, features = (
            values.numpy().astype(np.float64)
            for values in logits_and_features(network, torch.from_numpy(preprocessing.normalise(squares)))
        )
    distance = fit_sources(features, ["drawn"] * len(features))
    scale = float(np.abs(logits - logits.mean(axis=1, keepdims=True)).max())
    with torch.no_grad():  # as if the temperature were folded in
        network.classifier.weight.div_(scale / 2)
        network.classifier.bias.div_(scale / 2)
    confidence = Calibration(temperature=scale / 2).probabilities(logits).max(axis=1)
    rule = AbstainRule(
        min_confidence=float(np.quantile(confidence, 0.3)),
        max_distance=float(np.quantile(distance(features), 0.95)) * 1.2,
        distance=distance,
    )
    calibration = Calibration(temperature=scale / 2, folded=True, abstain=rule, fitted_on={"slices": 30, "groups": 9})
    folder.mkdir(parents=True)
    record = export_onnx(network, preprocessing, squares, folder)
    contract = Contract("mobilenetv2_035", classes, preprocessing, calibration=calibration, onnx=record)
    LungCTClassifier(network, contract).save_pretrained(folder)
    return folder


def drawn_slices(window: Window, count: int = 24) -> list[Image.Image]:
    """Phantoms as an export in this window has them."""
    labels = phantoms().classes
    hu = [draw_phantom(labels[seed % len(labels)], seed, 0.0, size=192) for seed in range(count)]
    return [Image.fromarray(window.apply(one)) for one in hu]


def write_model_for(folder: Path, window: Window) -> Path:
    """`write_model` with the input limits of phantoms in `window`."""
    reports = [found.report for found in open_slices(drawn_slices(window)) if isinstance(found, Frame)]
    classifier = LungCTClassifier.from_pretrained(write_model(folder.with_name(f"{folder.name}-before")))
    classifier.contract = replace(classifier.contract, limits=fit_limits(reports))
    return classifier.save_pretrained(folder)
