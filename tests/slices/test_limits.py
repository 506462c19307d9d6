"""Limits: a model accepts slices made like those that it learned from, in any window, and refuses the others."""

import io
import json
import pickle
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from made_slices import ct_dataset, dicom_bytes, only
from PIL import Image, ImageOps

from lungct_hf.contract import Contract
from lungct_hf.errors import LungCTError, UsageError
from lungct_hf.hub import ModelRepo
from lungct_hf.known_sets import phantoms, schema_1_classes
from lungct_hf.slices.checks import check_picture
from lungct_hf.slices.limits import SCHEMA_1_LIMITS, InputLimits, fit_limits
from lungct_hf.slices.phantom import draw_phantom
from lungct_hf.slices.report import COMPARED, SENTENCES, InputReport
from lungct_hf.slices.source import Frame, open_slices
from lungct_hf.slices.window import LUNG_WINDOW, Window

CLASSES = phantoms().classes
WIDE = Window(center=200.0, width=2600.0)


def phantom(seed: int, window: Window, size: int = 128) -> Image.Image:
    return Image.fromarray(window.apply(draw_phantom(CLASSES[seed % len(CLASSES)], seed, 0.0, size=size)))


def reports(window: Window, seeds: range) -> list[InputReport]:
    return [only(phantom(seed, window)).report for seed in seeds]


def reason(picture: Image.Image, limits: InputLimits | None) -> str | None:
    return only(picture, limits=limits).report.reason


@pytest.fixture(scope="module")
def of_lung() -> InputLimits:
    return fit_limits(reports(LUNG_WINDOW, range(40)))


@pytest.fixture(scope="module")
def of_wide() -> InputLimits:
    return fit_limits(reports(WIDE, range(40)))


def test_without_a_model_a_chest_passes_in_any_window() -> None:
    windows = [LUNG_WINDOW, WIDE, Window(40, 400), Window(400, 1800), Window(-600, 1200), Window(1024, 4096)]
    for window in windows:
        for seed in range(4):
            assert reason(phantom(seed, window), None) is None, window


def test_each_model_takes_its_own_window_and_refuses_the_other(of_lung: InputLimits, of_wide: InputLimits) -> None:
    for seed in range(100, 130):
        lung, wide = phantom(seed, LUNG_WINDOW), phantom(seed, WIDE)
        assert reason(lung, of_lung) is None and reason(wide, of_lung) == "wrong-window"
        assert reason(wide, of_wide) is None and reason(lung, of_wide) == "wrong-window"


def test_a_model_of_both_windows_takes_both() -> None:
    both = fit_limits(reports(LUNG_WINDOW, range(20)) + reports(WIDE, range(20)))
    for seed in range(100, 110):
        assert reason(phantom(seed, LUNG_WINDOW), both) is None and reason(phantom(seed, WIDE), both) is None


def test_another_framing_has_its_own_code(of_lung: InputLimits) -> None:
    squashed = phantom(100, LUNG_WINDOW).resize((256, 80))
    frame = only(squashed, limits=of_lung)
    assert frame.report.codes == ("unlike-training-view",)
    assert only(squashed).report.codes == ()
    assert frame.report.sentence is not None and "3.20" in frame.report.sentence


def test_what_is_no_chest_ct_keeps_its_reason_whatever_the_model_learned(of_lung: InputLimits) -> None:
    slice_of_a_chest = phantom(100, LUNG_WINDOW)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128), dtype=np.uint8))
    for picture, code in (
        (ImageOps.invert(slice_of_a_chest), "inverted"),
        (slice_of_a_chest.resize((32, 32)), "too-small"),
        (noise, "not-ct"),
        (Image.new("L", (128, 128)), "no-lung"),
    ):
        assert reason(picture, of_lung) == code == reason(picture, None)


@pytest.mark.parametrize("window", [LUNG_WINDOW, WIDE, Window(40, 400), Window(-600, 1200)])
def test_inverted_slices_are_told_in_any_window_and_close_crop(window: Window) -> None:
    for seed in range(8):
        picture = phantom(seed, window, 192)
        crop = picture.crop((12, 30, 180, 166))  # down to the chest wall
        assert reason(ImageOps.invert(picture), None) == "inverted"
        assert reason(ImageOps.invert(crop), None) == "inverted"
        assert reason(crop, None) != "inverted"


def test_the_sentence_names_the_models_own_range_and_no_window(of_wide: InputLimits) -> None:
    frame = only(phantom(100, LUNG_WINDOW), limits=of_wide)
    low, high = frame.report.facts["model_range"]["tissue_grey"]
    assert frame.report.sentence is not None
    for value in (low, high, frame.report.facts["tissue_grey"]):
        assert f"{value:.0f}" in frame.report.sentence
    assert not any(character.isdigit() for text in SENTENCES.values() for character in text)
    assert set(COMPARED) <= set(SENTENCES)


def test_fewer_slices_set_wider_limits() -> None:
    widths = []
    for count in (2, 8, 32):
        ranges = {name: high - low for name, low, high in fit_limits(reports(LUNG_WINDOW, range(count))).ranges}
        widths.append(ranges["lung_grey"])
    assert widths[0] > widths[1] > widths[2]


def test_one_odd_slice_of_many_does_not_open_the_limits() -> None:
    many = reports(LUNG_WINDOW, range(40)) * 15
    odd = [only(phantom(0, WIDE)).report]
    assert reason(phantom(100, WIDE), fit_limits(many + odd)) == "wrong-window"


def test_refused_slices_set_no_limits_and_none_at_all_is_an_error() -> None:
    good = reports(LUNG_WINDOW, range(12))
    bad = [InputReport(("not-ct",), (), {"tissue_grey": 3.0}), InputReport(("too-small",))]
    assert fit_limits(good + bad) == fit_limits(good)
    with pytest.raises(UsageError, match="None of the 2 training slices.*lungct audit"):
        fit_limits(bad)


def test_limits_survive_json_and_processes(of_lung: InputLimits) -> None:
    again = InputLimits.from_json(json.loads(json.dumps(of_lung.to_json())))
    assert again == of_lung == pickle.loads(pickle.dumps(of_lung)) and hash(again) == hash(of_lung)
    for record in ({"slices": 3}, {"slices": 3, "ranges": {"age": [1, 2]}}, {"slices": 3, "ranges": {"haze": [2, 1]}}):
        with pytest.raises((KeyError, ValueError)):
            InputLimits.from_json(record)


def test_every_kind_of_source_is_held_to_them(of_wide: InputLimits, tmp_path: Path) -> None:
    hu, picture = draw_phantom(CLASSES[0], 100, 0.0, size=128), phantom(100, LUNG_WINDOW)
    encoded, packed = io.BytesIO(), io.BytesIO()
    picture.save(encoded, "PNG")
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("slice.png", encoded.getvalue())
    (tmp_path / "slice.png").write_bytes(encoded.getvalue())
    volume = nibabel.Nifti1Image(np.flip(hu.T, (0, 1))[..., None].astype(np.int16), np.eye(4)).to_bytes()
    dataset = ct_dataset(hu)
    sources = [picture, np.asarray(picture), hu, encoded.getvalue(), packed.getvalue(), tmp_path, [hu, picture]]
    for source in [*sources, str(tmp_path / "slice.png"), dataset, dicom_bytes(dataset), volume]:
        frames = list(open_slices(source, limits=of_wide))
        assert frames and all(isinstance(one, Frame) and one.report.codes == ("wrong-window",) for one in frames)


def test_a_header_does_not_excuse_values_the_model_never_saw(of_lung: InputLimits, of_wide: InputLimits) -> None:
    dataset = ct_dataset(draw_phantom(CLASSES[0], 100, 0.0, size=128))
    assert only(dataset, limits=of_lung).report.codes == ()
    assert only(dataset, limits=of_wide).report.codes == ("wrong-window",)
    assert only(dataset, window=WIDE, limits=of_wide).report.codes == ()


def write(folder: Path, contract: Contract, **changes: object) -> Path:
    (folder / "config.json").write_text(json.dumps(contract.config()))
    (folder / "lungct.json").write_text(json.dumps(contract.lungct() | changes))
    return folder


def test_the_contract_keeps_them(tmp_path: Path, of_lung: InputLimits) -> None:
    classes = schema_1_classes()
    contract = Contract("mobilenetv2_100", classes, limits=of_lung)
    assert ModelRepo(write(tmp_path, contract)).contract.limits == of_lung
    assert ModelRepo(write(tmp_path, Contract("mobilenetv2_100", classes))).contract.limits is None
    for broken in ({"slices": 1}, {"slices": 1, "ranges": {"age": [0, 1]}}, {"slices": 1, "ranges": 7}):
        with pytest.raises(LungCTError, match="incomplete"):
            assert ModelRepo(write(tmp_path, contract, input_limits=broken)).contract


def test_models_of_schema_1_check_as_they_always_did(tmp_path: Path) -> None:
    contract = Contract("mobilenetv2_100", schema_1_classes())
    limits = ModelRepo(write(tmp_path, contract, schema_version=1)).contract.limits
    assert limits == SCHEMA_1_LIMITS
    for seed in range(6):
        assert check_picture(phantom(seed, LUNG_WINDOW), limits=limits).codes == set()
        for window in (Window(400, 1800), Window(40, 400), Window(60, 500), Window(1024, 4096)):
            assert check_picture(phantom(seed, window), limits=limits).codes == {"wrong-window"}
    # Saved anew it stays the model that it was.
    rewritten = Contract("mobilenetv2_100", schema_1_classes(), limits=limits)
    assert ModelRepo(write(tmp_path, rewritten)).contract.limits == SCHEMA_1_LIMITS
