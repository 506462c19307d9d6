"""Five ways to load one model, one answer: LungCT (ONNX Runtime, torch), LungCTClassifier, transformers, timm."""

import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from transformers import AutoImageProcessor, pipeline

from lungct_hf import LungCT, LungCTClassifier
from lungct_hf.slices.read import read_slice
from lungct_hf.slices.source import open_slices
from small_model import write_model

TENSOR, PROBABILITY = 1e-6, 1e-4


def largest(differences: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(np.abs(values).max()) for name, values in differences.items()}


def compare(model_dir: Path, paths: list[Path]) -> tuple[dict[str, float], list[LungCT | LungCTClassifier]]:
    """The largest difference of each loader's input tensors and probabilities from LungCT's on ONNX Runtime."""
    ours, by_torch = (LungCT.from_pretrained(model_dir, backend=backend) for backend in ("onnx", "torch"))
    assert (ours.backend, by_torch.backend) == ("onnx", "torch")
    classifier = LungCTClassifier.from_pretrained(model_dir)
    pipe = pipeline("image-classification", model=str(model_dir), top_k=None)
    processor = AutoImageProcessor.from_pretrained(model_dir)
    network = timm.create_model(f"local-dir:{model_dir}", pretrained=True).eval()
    steps = timm.data.create_transform(**timm.data.resolve_model_data_config(network), is_training=False)

    frames = [next(iter(open_slices(path))) for path in paths]
    pictures = [read_slice(path) for path in paths]
    # Pillow, which transformers reads with, cuts 16 bits off at 255; so these are given to it as they are read here.
    given = [pictures[i] if paths[i].stem == "deep" else str(path) for i, path in enumerate(paths)]
    preprocessing = ours.contract.preprocessing
    tensors = preprocessing.normalise(preprocessing.squares([frame.image for frame in frames]))
    expected = ours.predict(paths, force=True)
    probabilities = np.array([[row.probabilities[label] for label in ours.labels] for row in expected])

    def by_label(rows: list[dict[str, object]]) -> list[float]:
        scores = {row["label"]: row["score"] for row in rows}
        return [float(scores[label]) for label in ours.labels]

    def by_processor(picture: Image.Image) -> np.ndarray:
        return processor(picture, return_tensors="pt")["pixel_values"].numpy()

    timms = torch.stack([steps(picture) for picture in pictures])
    with torch.inference_mode():
        answers = network(timms).softmax(dim=1).numpy()
    torchs, classified = by_torch.predict(paths, force=True), classifier.predict(paths, force=True)
    differences = {
        "tensor: classifier": np.stack([classifier.preprocessing(picture) for picture in pictures]) - tensors,
        "tensor: transformers": np.concatenate([by_processor(picture) for picture in pictures]) - tensors,
        "tensor: timm": timms.numpy() - tensors,
        "probability: LungCT torch": np.array([list(row.probabilities.values()) for row in torchs]) - probabilities,
        "probability: classifier": np.array([list(row.probabilities.values()) for row in classified]) - probabilities,
        "probability: transformers": np.array([by_label(pipe(one)) for one in given]) - probabilities,
        "probability: timm": answers - probabilities,
    }
    for found in (torchs, classified):
        assert [(row.decision, row.reason) for row in found] == [(row.decision, row.reason) for row in expected]
    return largest(differences), expected


def check(found: dict[str, float]) -> None:
    too_large = {
        name: value for name, value in found.items() if value > (TENSOR if name.startswith("tensor") else PROBABILITY)
    }
    assert len(found) == 7 and not too_large, too_large


def test_five_loaders_agree_on_edge_cases(model_dir: Path, slices: list[Path]) -> None:
    found, rows = compare(model_dir, slices)
    check(found)
    decided = {row.decision for row in rows}
    assert "abstain" in decided and len(decided) > 1  # both ends of the rule were reached
    assert np.ptp([row.confidence for row in rows]) > 0.1  # and the slices got different answers


@pytest.mark.slow
def test_five_loaders_agree_at_full_size(slices: list[Path], tmp_path: Path) -> None:
    found, _ = compare(write_model(tmp_path / "model", size=224), slices)
    check(found)


@pytest.mark.real_data
def test_five_loaders_agree_on_real_slices(model_dir: Path, real_data: Path) -> None:
    """With LUNGCT_PARITY_MODEL, a model directory, that model is compared instead of a small random one."""
    model = Path(os.environ.get("LUNGCT_PARITY_MODEL") or model_dir)
    paths = sorted(real_data.glob("*/*.jpg"))[::20]
    found, rows = compare(model, paths)
    print({name: f"{value:.1e}" for name, value in found.items()}, f"{len(paths)} slices")
    print({name: sum(row.decision == name for row in rows) for name in sorted({row.decision for row in rows})})
    check(found)
