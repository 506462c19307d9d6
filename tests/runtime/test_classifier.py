"""One model directory, four ways to load it, one answer; and nothing but whole, fitting weights is loaded."""

import json
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image

from helpers import chances, draw_slice, wake_up, write_pictures
from lungct_hf import LungCTClassifier
from lungct_hf.decision import AbstainRule, Calibration, FeatureDistance
from lungct_hf.errors import LungCTError
from lungct_hf.known_sets import schema_1_classes
from lungct_hf.model.network import logits_and_features
from lungct_hf.slices.preprocess import Preprocessing


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    classifier = LungCTClassifier.create(schema_1_classes(), "mobilenetv2_035", Preprocessing(size=64))
    wake_up(classifier.network, 64)
    torch.nn.init.normal_(classifier.network.classifier.weight, std=0.05)
    return classifier.save_pretrained(tmp_path_factory.mktemp("repo") / "model")


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of several kinds: square and not, tiny and large, grey, RGB, palette, with alpha, turned by EXIF."""
    folder, rng = tmp_path_factory.mktemp("slices"), np.random.default_rng(0)
    return write_pictures(folder, rng, {"square.png": Image.fromarray(draw_slice(1, rng, 96))})


def test_four_loaders_agree(model_dir: Path, slices: list[Path]) -> None:
    from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

    ours = chances(LungCTClassifier.from_pretrained(model_dir).predict(slices, force=True))
    assert np.ptp(ours, axis=0).max() > 0.05  # the slices get different answers

    pipe = pipeline("image-classification", model=str(model_dir))
    piped = [{row["label"]: row["score"] for row in pipe(str(path))} for path in slices]
    by_label = np.array([[row[label] for label in ("normal", "benign", "malignant")] for row in piped])
    assert dict(
        zip([path.name for path in slices], np.abs(by_label - ours).max(axis=1), strict=True)
    ) == pytest.approx(dict.fromkeys([path.name for path in slices], 0), abs=1e-5)

    processor, model = (
        AutoImageProcessor.from_pretrained(model_dir),
        AutoModelForImageClassification.from_pretrained(model_dir),
    )
    assert model.config.id2label == {0: "normal", 1: "benign", 2: "malignant"}
    assert model.config.label2id == {"normal": 0, "benign": 1, "malignant": 2}
    network = timm.create_model(f"local-dir:{model_dir}", pretrained=True).eval()
    steps = timm.data.create_transform(**timm.data.resolve_model_data_config(network), is_training=False)
    assert network.pretrained_cfg["label_names"] == ["normal", "benign", "malignant"]
    for path, expected in zip(slices, ours, strict=True):
        picture = Image.open(path)
        if path.name == "turned.jpg":
            continue  # turning by EXIF is the pipeline's work, not the bare processor's
        inputs = processor(picture.convert("RGB"), return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            assert model(inputs).logits.softmax(1)[0].numpy() == pytest.approx(expected, abs=1e-5)
            assert network(steps(picture.convert("RGB"))[None]).softmax(1)[0].numpy() == pytest.approx(
                expected, abs=1e-5
            )


def test_the_input_tensor_is_timms(slices: list[Path]) -> None:
    from lungct_hf.slices.read import read_slice

    preprocessing = Preprocessing(size=96)
    steps = timm.data.create_transform(
        **timm.data.resolve_data_config(pretrained_cfg=preprocessing.to_pretrained_cfg()), is_training=False
    )
    randomly = random.Random(0)
    pictures = [read_slice(path) for path in slices]
    for _ in range(20):
        size = (randomly.randint(20, 700), randomly.randint(20, 700))
        pictures.append(Image.effect_noise(size, 60).convert("RGB"))
    for picture in pictures:
        assert np.abs(steps(picture).numpy() - preprocessing(picture)).max() < 1e-6, picture.size


def test_letterbox_keeps_the_whole_slice_and_its_shape() -> None:
    square = np.asarray(Preprocessing(size=64).letterbox(Image.new("RGB", (200, 100), (200, 200, 200))))
    inside = (square == 200).all(axis=2)
    assert inside.sum() == 64 * 32 and inside[16:48].all()
    assert (square[~inside] == Preprocessing().fill).all()


def test_only_what_a_model_repo_may_hold(model_dir: Path) -> None:
    assert sorted(path.name for path in model_dir.iterdir()) == [
        "README.md",
        "config.json",
        "lungct.json",
        "model.safetensors",
    ]
    config = json.loads((model_dir / "config.json").read_text())
    assert config["architectures"] == ["TimmWrapperForImageClassification"] and config["model_args"] == {}
    assert not any(
        name.startswith("timm_model.") for name in safetensors.torch.load_file(model_dir / "model.safetensors")
    )


def test_saved_and_loaded_again_is_the_same(model_dir: Path, tmp_path: Path, slices: list[Path]) -> None:
    first = LungCTClassifier.from_pretrained(model_dir)
    again = LungCTClassifier.from_pretrained(first.save_pretrained(tmp_path / "copy"))
    assert np.array_equal(*(chances(one.predict(slices, force=True)) for one in (first, again)))
    assert (tmp_path / "copy" / "lungct.json").read_text() == (model_dir / "lungct.json").read_text()


def test_evidence_goes_along_only_with_the_weights_it_is_about(model_dir: Path, tmp_path: Path) -> None:
    folder = LungCTClassifier.from_pretrained(model_dir).save_pretrained(tmp_path / "evaluated")
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "note.txt").write_text("evidence")
    classifier = LungCTClassifier.from_pretrained(folder)
    assert (classifier.save_pretrained(tmp_path / "same") / "evaluation" / "note.txt").exists()
    with torch.no_grad():
        classifier.network.classifier.bias += 0.1
    changed = classifier.save_pretrained(tmp_path / "changed")
    assert not (changed / "evaluation").exists()
    assert json.loads((changed / "lungct.json").read_text())["provenance"]["modified"] is True


def _calibrated(folder: Path) -> LungCTClassifier:
    """A classifier whose rule, of the kind that models of schema 1 have, refuses whatever is unlike a grey square."""
    classifier = LungCTClassifier.create(schema_1_classes(), "mobilenetv2_035", Preprocessing(size=64))
    wake_up(classifier.network, 64)
    inputs = torch.from_numpy(classifier.preprocessing(Image.new("RGB", (64, 64), (90, 90, 90)))[None])
    with torch.inference_mode():
        features = logits_and_features(classifier.network, inputs, "features")[1].numpy().astype(np.float64)
    distance = FeatureDistance(np.repeat(features, 3, axis=0).astype(np.float32).astype(np.float64), np.ones(1280))
    rule = AbstainRule(min_confidence=0.0, max_distance=1e-3, distance=distance)
    calibration = Calibration(temperature=2.0, folded=True, abstain=rule, fitted_on={"slices": 9, "groups": 3})
    classifier.contract = replace(classifier.contract, calibration=calibration)
    return LungCTClassifier.from_pretrained(classifier.save_pretrained(folder))


def test_the_stored_rule_decides(tmp_path: Path) -> None:
    classifier = _calibrated(tmp_path / "m")
    grey, noise = Image.new("RGB", (64, 64), (90, 90, 90)), Image.effect_noise((64, 64), 90).convert("RGB")
    like, unlike = classifier.predict([grey, noise], batch_size=1, force=True)
    assert like.label in classifier.labels and unlike.decision == "abstain" and unlike.distance > 1e-3
    logits, features, _ = classifier.predict_images(classifier.preprocessing.squares([grey, noise]))
    first, second = classifier.decide(logits, features)
    assert (first.label, first.reason) == (like.label, None)
    assert (second.label, second.reason) == (None, "unlike-training-data")
    for decision, row in zip((first, second), (like, unlike), strict=True):
        assert decision.probabilities == pytest.approx(row.probabilities, abs=1e-5)
    inputs = torch.from_numpy(np.stack([classifier.preprocessing(one) for one in (grey, noise)]))
    with torch.inference_mode():
        assert classifier(inputs).softmax(dim=1).numpy() == pytest.approx(chances([like, unlike]), abs=1e-5)
    assert classifier.predict([]) == [] and len(classifier.predict(grey)) == 1


def test_without_a_stored_rule_every_slice_is_answered(model_dir: Path, slices: list[Path]) -> None:
    classifier = LungCTClassifier.from_pretrained(model_dir)
    assert classifier.contract.calibration is None
    assert "calibration" not in json.loads((model_dir / "lungct.json").read_text())
    rows = classifier.predict(slices, force=True)
    assert [row.label for row in rows] == [classifier.labels[i] for i in chances(rows).argmax(axis=1)]


def test_a_calibration_stays_with_its_weights(tmp_path: Path) -> None:
    classifier = _calibrated(tmp_path / "m")
    first = json.loads((tmp_path / "m" / "lungct.json").read_text())
    assert json.loads((classifier.save_pretrained(tmp_path / "same") / "lungct.json").read_text()) == first
    with torch.no_grad():
        classifier.network.classifier.bias += 0.1
    changed = LungCTClassifier.from_pretrained(classifier.save_pretrained(tmp_path / "changed"))
    assert changed.contract.calibration is None and changed.contract.provenance["modified"] is True


def test_a_damaged_calibration_is_named(tmp_path: Path) -> None:
    _calibrated(tmp_path / "m")
    record = json.loads((tmp_path / "m" / "lungct.json").read_text())
    record["calibration"]["temperature"] = -1
    (tmp_path / "m" / "lungct.json").write_text(json.dumps(record))
    with pytest.raises(LungCTError, match="calibration in lungct.json"):
        LungCTClassifier.from_pretrained(tmp_path / "m")


def _rewrite(folder: Path, **changes: torch.Tensor | None) -> None:
    state = safetensors.torch.load_file(folder / "model.safetensors")
    state |= {name: value for name, value in changes.items() if value is not None}
    for name in [name for name, value in changes.items() if value is None]:
        del state[name]
    safetensors.torch.save_file(state, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"bn2.weight": None}, "1 missing (bn2.weight)"),
        ({"extra.weight": torch.zeros(2)}, "1 not known (extra.weight)"),
        ({"classifier.bias": torch.zeros(1000)}, "classifier.bias is (1000,), needed (3,)"),
        ({"classifier.bias": torch.full((3,), float("nan"))}, "not finite, e.g. in classifier.bias"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    model_dir: Path, tmp_path: Path, changes: dict[str, torch.Tensor | None], sentence: str
) -> None:
    folder = LungCTClassifier.from_pretrained(model_dir).save_pretrained(tmp_path / "m")
    _rewrite(folder, **changes)
    with pytest.raises(LungCTError, match=re.escape(sentence)):
        LungCTClassifier.from_pretrained(folder)


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("config.json", None, "no config.json"),
        ("lungct.json", "{", "lungct.json cannot be read"),
        ("lungct.json", "{}", "incomplete"),
        ("model.safetensors", None, "no model.safetensors"),
        ("model.safetensors", "short", "damaged"),
    ],
)
def test_a_repo_with_a_file_missing_or_damaged(
    model_dir: Path, tmp_path: Path, file: str, content: str | None, sentence: str
) -> None:
    folder = LungCTClassifier.from_pretrained(model_dir).save_pretrained(tmp_path / "m")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(LungCTError, match=sentence):
        LungCTClassifier.from_pretrained(folder)


def test_a_repo_whose_preprocessing_or_labels_were_changed_is_refused(model_dir: Path, tmp_path: Path) -> None:
    for change, sentence in (
        (lambda config: config["pretrained_cfg"].update(crop_pct=0.875), "crop_pct"),
        (lambda config: config["pretrained_cfg"].update(mean=[0.5, 0.5, 0.5]), "different preprocessing"),
        (lambda config: config.update(label_names=["benign", "normal", "malignant"]), "labels"),
        (lambda config: config.update(architecture="resnet18"), "resnet18' cannot be used"),
    ):
        folder = LungCTClassifier.from_pretrained(model_dir).save_pretrained(tmp_path / "m")
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(LungCTError, match=sentence):
            LungCTClassifier.from_pretrained(folder)


def test_predict_takes_pictures_paths_and_bytes_alike(model_dir: Path, slices: list[Path]) -> None:
    classifier = LungCTClassifier.from_pretrained(model_dir)
    path = slices[0]
    (by_path,) = classifier.predict(path, force=True)
    assert sum(by_path.probabilities.values()) == pytest.approx(1, abs=1e-6)
    assert by_path.probabilities == classifier.predict(path.read_bytes(), force=True)[0].probabilities
    (text,) = classifier.predict(b"hello")
    assert (text.decision, text.reason) == ("error", "not-an-image")


@pytest.mark.real_data
def test_four_loaders_agree_on_real_slices(model_dir: Path, real_data: Path) -> None:
    paths = sorted(real_data.glob("*/*.jpg"))[::40]
    test_the_input_tensor_is_timms(paths)
    test_four_loaders_agree(model_dir, paths)
