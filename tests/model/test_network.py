"""Architectures: what is tested works in every loader, everything else is refused with its reason."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from helpers import TINY, chances, draw_slice, train, wake_up, write_cohort
from lungct_hf import LungCT, LungCTClassifier
from lungct_hf.classes import Classes
from lungct_hf.contract import Contract
from lungct_hf.errors import UsageError
from lungct_hf.model import network as module
from lungct_hf.model.network import build_network, check_architecture, network_outputs
from lungct_hf.model.onnx_export import export_onnx
from lungct_hf.slices.preprocess import Preprocessing

CLASSES = Classes(("a", "b", "c", "d"), ("d",))


@pytest.mark.parametrize("architecture", module.tested_architectures())
def test_the_head_is_a_mean_over_places_and_one_linear_layer(architecture: str) -> None:
    network = wake_up(build_network(architecture, len(CLASSES)), 64)
    torch.nn.init.normal_(network.get_classifier().weight, std=0.05)
    maps, inputs = torch.randn(2, network.num_features, 3, 5), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(network.forward_head(maps, pre_logits=True), maps.mean((2, 3)), atol=1e-6)
        logits, cam, pooled, _ = network_outputs(network, inputs)
        assert logits.std() > 0.01 and torch.allclose(logits, network(inputs), atol=1e-4)
        assert torch.allclose(pooled, network.forward_features(inputs).mean((2, 3)), atol=1e-5)
        assert cam.shape == (2, 4, 2, 2) and torch.allclose(cam.mean((2, 3)), logits, atol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        ("vit_tiny_patch16_224", "its features are 197 tokens"),
        ("swin_tiny_patch4_window7_224", "its maps, channels first, have 7"),
        ("convnext_tiny", "a LayerNorm2d stands between"),
        ("mobilenetv3_large_100", "a Conv2d stands between"),
        ("dla34", "its last layer is a Conv2d"),
        ("resnet18", "nobody has tested it"),
        ("regnety_002", "nobody has tested it"),
        ("mobilenet_v2", "knows no architecture"),
        ("", "knows no architecture"),
    ],
)
def test_other_heads_are_refused_with_the_reason(architecture: str, reason: str) -> None:
    for ask in (check_architecture, lambda name: build_network(name, 3)):
        with pytest.raises(UsageError) as caught:
            ask(architecture)
        said = str(caught.value)
        assert reason in said and "\n" not in said
        assert "efficientnet_b0" in said.partition("Fix: ")[2] and "mobilenetv2_100" in said.partition("Fix: ")[2]


def test_a_network_that_is_refused_takes_no_memory() -> None:
    with pytest.raises(UsageError, match="tokens"):  # two billion weights
        check_architecture("vit_giant_patch14_224")


@pytest.mark.parametrize("architecture", ["efficientnet_b0", "mobilenetv2_140"])
def test_five_loaders_agree_on_every_family(architecture: str, tmp_path: Path) -> None:
    """LungCT on ONNX Runtime and on torch, LungCTClassifier, transformers and timm."""
    from transformers import pipeline

    torch.manual_seed(0)
    preprocessing, folder = Preprocessing(size=64), tmp_path / "model"
    network = wake_up(build_network(architecture, len(CLASSES), drop_rate=0.3), 64)
    torch.nn.init.normal_(network.get_classifier().weight, std=0.05)
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(draw_slice(number % 3, rng, 90)).convert("RGB") for number in range(6)]
    folder.mkdir()
    record = export_onnx(network, preprocessing, preprocessing.squares(pictures), folder)
    assert record["parity"]["largest_difference"]["logits"] <= 1e-4
    contract = dataclasses.replace(Contract(architecture, CLASSES, preprocessing), onnx=record)
    LungCTClassifier(network, contract).save_pretrained(folder)

    models = [LungCT.from_pretrained(folder, backend=backend) for backend in ("onnx", "torch")]
    models.append(LungCTClassifier.from_pretrained(folder))
    found = {}
    for model in models:
        rows = model.predict(pictures, force=True, cam=True)
        found[f"{type(model).__name__} {model.backend}"] = [list(row.probabilities.values()) for row in rows]
        assert all(row.cam.max() == 1 for row in rows)
    pipe = pipeline("image-classification", model=str(folder), top_k=None)
    scores = [{row["label"]: row["score"] for row in pipe(picture)} for picture in pictures]
    found["transformers"] = [[row[name] for name in CLASSES] for row in scores]
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    steps = timm.data.create_transform(**timm.data.resolve_model_data_config(theirs), is_training=False)
    with torch.inference_mode():
        found["timm"] = theirs(torch.stack([steps(picture) for picture in pictures])).softmax(1).tolist()
    expected = np.array(found.pop("LungCT onnx"))
    assert np.ptp(expected, axis=0).max() > 0.02, "the slices get different answers"
    for name, values in found.items():
        assert np.abs(np.array(values) - expected).max() < 1e-4, name


def test_training_refuses_before_it_reads_anything(tmp_path: Path) -> None:
    done = train("--data", tmp_path, "--output-dir", tmp_path / "run", "--architecture", "vit_tiny_patch16_224")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "its features are 197 tokens" in done.stderr.splitlines()[-1]  # and not that there are no slices
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.slow
@pytest.mark.parametrize("stages", ["0", "3"])
def test_efficientnet_is_trained_to_a_whole_model(tmp_path: Path, stages: str) -> None:
    data = write_cohort(tmp_path / "data", patients=6)
    flags = [*TINY, "--architecture", "efficientnet_b0", "--epochs", "2", "--freeze-stages", stages]
    done = train("--data", data, "--output-dir", tmp_path / "run", *flags)
    assert done.returncode == 0, done.stderr
    paths = sorted(data.glob("*/*.png"))
    by_onnx, by_torch = (
        LungCT.from_pretrained(tmp_path / "run" / "model", backend=name) for name in ("onnx", "torch")
    )
    assert by_onnx.contract.architecture == "efficientnet_b0" and by_onnx.contract.calibration is not None
    ours, theirs = (chances(loaded.predict(paths, force=True)) for loaded in (by_onnx, by_torch))
    assert np.abs(ours - theirs).max() < 1e-4
