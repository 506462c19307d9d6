"""A small model with everything a published one has: ONNX file, temperature, and a rule to abstain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import draw_slice, wake_up
from lungct_hf.contract import Contract
from lungct_hf.decision import AbstainRule, Calibration, FeatureDistance
from lungct_hf.model import LungCTClassifier, build_network
from lungct_hf.model.network import logits_and_features
from lungct_hf.model.onnx_export import export_onnx
from lungct_hf.slices.preprocess import Preprocessing

SIZE = 64


def write_model(folder: Path, *, size: int = SIZE) -> Path:
    """Answers on drawn discs with varying confidence; abstains on noise and where it is unsure."""
    torch.manual_seed(3)
    preprocessing = Preprocessing(size=size)
    network = wake_up(build_network("mobilenetv2_035"), size)
    torch.nn.init.normal_(network.classifier.weight, std=0.4)
    rng = np.random.default_rng(5)
    pictures = [Image.fromarray(draw_slice(number % 3, rng, 96)).convert("RGB") for number in range(30)]
    squares = preprocessing.squares(pictures)
    with torch.inference_mode():
        logits, features = (
            values.numpy().astype(np.float64)
            for values in logits_and_features(network, torch.from_numpy(preprocessing.normalise(squares)))
        )
    distance = FeatureDistance(np.stack([features[k::3].mean(axis=0) for k in range(3)]), features.std(axis=0) + 1e-3)
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
    contract = Contract("mobilenetv2_035", preprocessing, calibration=calibration, onnx=record)
    LungCTClassifier(network, contract).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("repo") / "model")


@pytest.fixture(scope="session")
def torch_only(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights without an ONNX file."""
    classifier = LungCTClassifier.from_pretrained(model_dir)
    plain = LungCTClassifier(classifier.network, replace(classifier.contract, onnx=None))
    return plain.save_pretrained(tmp_path_factory.mktemp("torch") / "model")


@pytest.fixture(scope="session")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of several kinds: square and not, tiny, long, grey of 8 and 16 bits, palette, alpha, EXIF, noise."""
    folder, rng = tmp_path_factory.mktemp("slices"), np.random.default_rng(0)
    pictures = {f"disc{number}.png": Image.fromarray(draw_slice(number % 3, rng, 96)) for number in range(6)}
    pictures |= {
        "wide.jpg": Image.fromarray(draw_slice(2, rng, 200)).crop((0, 30, 200, 131)),
        "tall.png": Image.fromarray(draw_slice(2, rng, 131)).crop((10, 0, 70, 131)).convert("RGB"),
        "ribbon.png": Image.fromarray(draw_slice(1, rng, 900)).crop((0, 440, 900, 460)),
        "tiny.png": Image.fromarray(draw_slice(0, rng, 20)),
        "palette.png": Image.fromarray(draw_slice(1, rng, 64)).convert("P"),
        "alpha.png": Image.fromarray(draw_slice(1, rng, 64)).convert("RGBA"),
        "grey.webp": Image.fromarray(draw_slice(2, rng, 77)),
        "deep.png": Image.fromarray(draw_slice(2, rng, 77).astype(np.uint16) * 257),
        "noise.png": Image.effect_noise((80, 80), 120),
        "grey.tif": Image.fromarray(draw_slice(1, rng, 100)),
    }
    for name, picture in pictures.items():
        picture.save(folder / name)
    turned = Image.fromarray(draw_slice(2, rng, 90)).crop((0, 0, 90, 50))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "turned.jpg", exif=exif)
    return sorted(folder.iterdir())
