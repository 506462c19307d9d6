"""LungCT answers from anything that is a slice, keeps to the stored rule, and says what it cannot do."""

import io
import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

import lungct_hf
from helpers import draw_slice
from lungct_hf import LungCT, LungCTClassifier, LungCTError, Prediction
from lungct_hf.classes import Classes
from lungct_hf.errors import UsageError
from lungct_hf.evaluation import Sample
from lungct_hf.guard import UNLIKE_SOURCE
from lungct_hf.known_sets import schema_1_classes
from lungct_hf.runtime import lungct as module
from lungct_hf.runtime.prediction import activation_map, columns
from lungct_hf.slices.frame import Frame
from lungct_hf.slices.phantom import draw_phantom
from lungct_hf.slices.report import InputReport
from lungct_hf.slices.window import LUNG_WINDOW, Window
from small_model import TWENTY, TWO, WIDE, drawn_slices, write_model, write_model_for


@pytest.fixture(scope="module")
def model(model_dir: Path) -> LungCT:
    return LungCT.from_pretrained(model_dir)


@pytest.fixture
def disc() -> Image.Image:
    return Image.fromarray(draw_slice(2, np.random.default_rng(1), 90)).convert("RGB")


def bytes_of(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    return buffer.getvalue()


def ct(instance: int = 1, position: float = 0.0, series: str = "1.2.3") -> pydicom.Dataset:
    """An axial CT slice of air with a body of water in it."""
    hu = np.full((96, 96), -1000, np.int16)
    rows, columns = np.ogrid[:96, :96]
    hu[(rows - 48) ** 2 + (columns - 48) ** 2 < 40**2] = 40
    hu[(rows - 48) ** 2 + (np.abs(columns - 48) - 18) ** 2 < 13**2] = -850
    slice_ = pydicom.Dataset()
    slice_.file_meta = FileMetaDataset()
    slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slice_.file_meta.MediaStorageSOPClassUID = slice_.SOPClassUID = CTImageStorage
    slice_.file_meta.MediaStorageSOPInstanceUID = slice_.SOPInstanceUID = generate_uid()
    slice_.Modality, slice_.SeriesInstanceUID, slice_.InstanceNumber = "CT", series, instance
    slice_.ImageOrientationPatient, slice_.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, position]
    slice_.PixelSpacing, slice_.RescaleSlope, slice_.RescaleIntercept = [3, 3], 1, 0
    slice_.Rows = slice_.Columns = 96
    slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
    slice_.BitsAllocated = slice_.BitsStored = 16
    slice_.HighBit, slice_.PixelRepresentation, slice_.PixelData = 15, 1, hu.tobytes()
    return slice_


def test_every_way_to_give_a_slice_gives_the_same_answer(model: LungCT, disc: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "disc.png"
    disc.save(path)
    given = [path, str(path), path.read_bytes(), disc, np.asarray(disc), np.asarray(disc)[..., 0]]
    alone = [model.predict(one, force=True)[0].probabilities for one in given]
    together = [row.probabilities for row in model.predict(given, force=True)]
    for found in (*alone, *together):
        assert list(found.values()) == pytest.approx(list(alone[0].values()), abs=1e-6)
    assert [row.file for row in model.predict(given[:2], force=True)] == [str(path)] * 2
    assert model.predict([]) == []


def test_a_data_set_is_windowed_as_the_contract_says(model: LungCT) -> None:
    slice_ = ct()
    hu = np.frombuffer(slice_.PixelData, np.int16).reshape(96, 96)
    grey = Image.fromarray(model.contract.window.apply(hu)).convert("RGB")
    by_set, by_array, by_grey = model.predict([slice_, hu, grey], force=True)
    assert by_set.probabilities == by_array.probabilities == by_grey.probabilities
    assert by_set.report is not None and by_set.report.facts["kind"] == "dicom"
    with pytest.raises(UsageError, match="dict is no source"):
        model.predict({"a": 1})


def test_no_door_is_less_safe(model: LungCT, model_dir: Path, slices: list[Path], tmp_path: Path) -> None:
    """LungCTClassifier answers, abstains and refuses as LungCT does, in every word and within rounding."""
    ct().save_as(tmp_path / "slice.dcm", enforce_file_format=True)
    given = [*slices, tmp_path / "slice.dcm", ct(), b"text", tmp_path / "absent.png", Image.effect_noise((90, 90), 9)]
    classifier = LungCTClassifier.from_pretrained(model_dir)
    assert (classifier.labels, classifier.name, classifier.revision) == (model.labels, model.name, model.revision)
    for force in (False, True):
        options = {"cam": True, "force": force, "batch_size": 3}
        theirs, ours = classifier.predict(given, **options), model.predict(given, **options)
        assert [same_words(row) for row in theirs] == [same_words(row) for row in ours]
        for row, other in zip(theirs, ours, strict=True):
            assert (row.cam is None) == (other.cam is None)
            if other.probabilities is not None:
                assert row.probabilities == pytest.approx(other.probabilities, abs=1e-4)
                assert row.distance == pytest.approx(other.distance, rel=1e-4)
                assert row.cam == pytest.approx(other.cam, abs=1e-2)
        study, case = classifier.predict_study(given, force=force), model.predict_study(given, force=force)
        assert (study.decision, study.reason, study.used) == (case.decision, case.reason, case.used)
    assert {row.decision for row in ours} >= {"abstain", "malignant", "error"}
    assert "refused" in {row.decision for row in model.predict(given)}
    squares = model.contract.preprocessing.squares([Image.open(path).convert("RGB") for path in slices])
    logits, features, _ = model.predict_images(squares)
    assert classifier.decide(logits, features) == model.decide(logits, features)
    assert classifier.predict_images(squares)[0] == pytest.approx(logits, abs=1e-4)
    for name in ("predict", "predict_study", "predict_images", "decide", "judge", "study", "labels", "name"):
        assert getattr(LungCTClassifier, name) is getattr(LungCT, name), "one code, not two"


@pytest.mark.parametrize(("own", "other"), [(LUNG_WINDOW, WIDE), (WIDE, LUNG_WINDOW)], ids=["usual", "wide"])
def test_slices_unlike_those_a_model_learned_from_are_refused_at_every_door(
    own: Window, other: Window, tmp_path: Path
) -> None:
    folder = write_model_for(tmp_path / "model", own)
    doors = [LungCT.from_pretrained(folder), LungCT.from_pretrained(folder, backend="torch")]
    doors.append(LungCTClassifier.from_pretrained(folder))
    for model in doors:
        assert model.contract.limits is not None
        kept = model.predict(drawn_slices(own, 12))
        assert not any(row.decision == "refused" for row in kept)
        refused = model.predict(drawn_slices(other, 12))
        assert {(row.decision, row.reason) for row in refused} == {("refused", "wrong-window")}
        assert json.dumps([row.to_json() for row in refused], allow_nan=False), "what was found and wanted is a fact"
        assert model.predict_study(drawn_slices(other, 3)).decision == "refused"


def same_words(row: Prediction) -> dict[str, object]:
    """All of a row but its figures."""
    return {key: value for key, value in row.to_json().items() if not isinstance(value, float)}


def test_a_classifier_in_training_mode_answers_as_in_evaluation_and_goes_on_training(
    model_dir: Path, slices: list[Path]
) -> None:
    classifier = LungCTClassifier.from_pretrained(model_dir)
    expected = [row.probabilities for row in classifier.predict(slices, force=True)]
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    classifier.train()
    assert [row.probabilities for row in classifier.predict(slices, force=True)] == expected
    assert classifier.training and classifier.network.training
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())


def test_a_bad_file_is_a_row_with_its_reason(model: LungCT, disc: Image.Image, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(bytes_of(disc)[:200])
    rows = model.predict([disc, broken, tmp_path / "absent.png", b"text"], force=True)
    assert [row.decision for row in rows[1:]] == ["error"] * 3 and rows[0].decision != "error"
    assert [row.reason for row in rows[1:]] == ["truncated", "not-found", "not-an-image"]
    for row in rows[1:]:
        assert row.probabilities is row.label is row.confidence is row.cam is None
        assert row.to_json()["detail"].endswith(".")


def refused(image: Image.Image) -> Frame:
    return Frame("photo.jpg", 0, image, InputReport(("colour-photograph", "not-ct"), (), {"kind": "jpeg"}))


def test_refused_slices_are_not_shown_to_the_network(
    model: LungCT, disc: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = Frame("slice.png", 0, disc, InputReport((), (), {"kind": "png"}))
    rows = model.judge([refused(disc), fine, refused(disc)])
    assert [(row.decision, row.reason) for row in rows][::2] == [("refused", "colour-photograph")] * 2
    assert rows[0].probabilities is None and rows[1].probabilities is not None and not rows[1].forced
    shown: list[int] = []
    run = model._session.run
    monkeypatch.setattr(model._session, "run", lambda squares: (shown.append(len(squares)), run(squares))[1])
    assert model.judge([refused(disc), fine, refused(disc)])[2].decision == "refused"
    assert model.judge([refused(disc)])[0].decision == "refused" and shown == [1, 0]


def test_force_answers_and_marks(model: LungCT, disc: Image.Image) -> None:
    forced = model.judge([refused(disc)], force=True)[0]
    plain = model.predict(disc, force=True)[0]
    assert forced.forced and forced.reason == "colour-photograph" and forced.decision == plain.decision
    assert forced.probabilities == pytest.approx(plain.probabilities, abs=1e-6)
    assert forced.row()["forced"] is True


def test_rows_are_one_contract(model: LungCT, disc: Image.Image) -> None:
    for row in [*model.predict([disc, b"text"], force=True), *model.judge([refused(disc)])]:
        assert isinstance(row, Prediction) and tuple(row.row()) == columns(model.labels)
        again = json.loads(json.dumps(row.to_json(), allow_nan=False))
        assert again["decision"] == row.decision and again["model"] == model.name
        assert Prediction.from_json(again, model.labels).to_json() == again
    assert (
        " ".join(columns(model.labels)) == "file frame decision reason p_normal p_benign p_malignant revision forced "
        "series position warnings detail note"
    )


@pytest.mark.parametrize("classes", [TWO, TWENTY], ids=["two", "twenty"])
def test_any_number_of_classes(classes: Classes, slices: list[Path], disc: Image.Image, tmp_path: Path) -> None:
    model = LungCT.from_pretrained(write_model(tmp_path / "model", classes=classes))
    assert model.labels == classes.names
    rows = [*model.predict(slices, cam=True, force=True), *model.predict(b"text"), *model.judge([refused(disc)])]
    for row in rows:
        assert tuple(row.row()) == columns(classes) and row.classes == classes.names
        assert Prediction.from_json(row.to_json(), classes.names).row() == row.row()
        if row.probabilities is None:
            assert row.label is None and [row.row()[f"p_{name}"] for name in classes] == [None] * len(classes)
        else:
            assert list(row.probabilities) == list(classes) and sum(row.probabilities.values()) == pytest.approx(1)
            assert row.label in (*classes, None) and row.cam is not None and row.cam.shape == (2, 2)
    assert {row.decision for row in rows} >= {"error", "refused"}
    study = model.predict_study(slices, force=True)
    assert study.classes == classes.names and list(study.probabilities) == list(classes)
    empty = model.predict_study([]).to_json()
    assert [empty[f"p_{name}"] for name in classes] == [None] * len(classes)


def test_the_map_shows_what_spoke_for_the_class(model: LungCT, slices: list[Path]) -> None:
    rows = model.predict(slices, cam=True, force=True)
    squares = model.contract.preprocessing.squares([Image.open(path).convert("RGB") for path in slices[:1]])
    _, _, cam = model.predict_images(squares)
    assert all(row.cam.dtype == np.float32 and row.cam.shape == cam.shape[2:] for row in rows)
    assert all(row.cam.min() >= 0 and row.cam.max() == 1 for row in rows)
    assert all(row.cam is None for row in model.predict(slices[:2], force=True))
    maps = np.zeros((3, 2, 2), np.float32)
    maps[1, 0, 0], maps[2, 1, 1], maps[:, 0, 1] = 2, 5, 100  # what all classes share is evidence for none
    assert activation_map(maps, np.array([0.1, 0.7, 0.2])).tolist() == [[1, 0], [0, 0]]
    assert not activation_map(np.ones((3, 2, 2), np.float32), np.full(3, 1 / 3)).any()


def test_a_batch_changes_nothing(model: LungCT, slices: list[Path]) -> None:
    one_by_one = [row.probabilities for row in model.predict(slices, force=True, batch_size=1)]
    for row, expected in zip(model.predict(slices * 3, force=True), one_by_one * 3, strict=True):
        assert row.probabilities == pytest.approx(expected, abs=1e-5)
    with pytest.raises(UsageError, match="batch_size"):
        model.predict(slices, batch_size=0)


def test_no_squares_and_squares_of_another_shape(model: LungCT, model_dir: Path) -> None:
    for found in (model, LungCT.from_pretrained(model_dir, backend="torch")):
        logits, features, cam = found.predict_images(np.zeros((0, 64, 64, 3), np.uint8))
        assert (logits.shape, features.shape, cam.shape) == ((0, 3), (0, 32), (0, 3, 2, 2))
        assert found.decide(logits, features) == []
    for wrong in (np.zeros((2, 32, 32, 3), np.uint8), np.zeros((2, 64, 64, 3), np.float32), np.zeros((64, 64, 3))):
        with pytest.raises(UsageError, match="64, 64, 3"):
            model.predict_images(wrong)


def test_several_callers_share_one_object(model: LungCT, slices: list[Path]) -> None:
    expected = [row.probabilities for row in model.predict(slices, force=True)]
    found: dict[int, list] = {}

    def call(number: int) -> None:
        found[number] = [row.probabilities for row in model.predict(slices, force=True)]

    callers = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert [found[number] for number in range(4)] == [expected] * 4


def test_a_study_is_ordered_and_pooled(model: LungCT, tmp_path: Path) -> None:
    for place, (name, position) in enumerate({"a.dcm": 30.0, "b.dcm": -10.0, "c.dcm": 10.0}.items()):
        slice_ = ct(place, position)
        values = np.frombuffer(slice_.PixelData, np.int16).copy()
        slice_.PixelData = (values + np.int16(20 * place)).tobytes()
        slice_.save_as(tmp_path / name, enforce_file_format=True)
    study = model.predict_study(tmp_path, force=True)
    assert [row.position for row in study.slices] == [-10.0, 10.0, 30.0]
    assert [Path(row.file).name for row in study.slices] == ["b.dcm", "c.dcm", "a.dcm"]
    mean = np.mean([list(row.probabilities.values()) for row in study.slices], axis=0)
    assert list(study.probabilities.values()) == pytest.approx(mean.tolist())
    given = np.array([list(r.probabilities.values()) for r in study.slices])
    case = Sample.of(np.zeros(3, int), probabilities=given, classes=schema_1_classes())
    pooled = replace(case, groups=np.array(["one case"] * 3)).cases().probabilities
    assert list(study.probabilities.values()) == pytest.approx(pooled[0].tolist())  # as the figures pool
    assert study.used == 3 and study.series == 1 and study.confidence == pytest.approx(mean.max())
    # phantoms are no drawn discs, which is what the model learned from: it answers because it must
    assert study.label in model.labels and study.reason == UNLIKE_SOURCE and all(row.forced for row in study.slices)
    assert len(json.loads(json.dumps(study.to_json(), allow_nan=False))["slices"]) == 3


def test_a_study_from_elsewhere_is_not_answered_and_copies_do_not_vote(
    model: LungCT, slices: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = model.predict(slices, force=True)
    near = [row for row in rows if row.reason != UNLIKE_SOURCE][:3]
    far = [replace(row, decision="abstain", reason=UNLIKE_SOURCE, forced=False) for row in near]
    far = [replace(row, pixels=f"{number:016x}") for number, row in enumerate(far)]
    alone, mostly, few = model.study(near), model.study([*near, *far[:2]]), model.study([near[0], *far])
    assert mostly.used == alone.used == len(near) and mostly.probabilities == alone.probabilities
    assert (few.decision, few.reason) == ("abstain", UNLIKE_SOURCE) and few.label is None
    copied = model.study([*near, *[near[0]] * 19])
    assert (copied.decision, copied.probabilities, copied.used) == (alone.decision, alone.probabilities, alone.used)


def test_a_slice_from_elsewhere_is_answered_only_by_force(model: LungCT) -> None:
    phantom = draw_phantom("normal", 0, 0.0)
    (plain,), (forced,) = model.predict(phantom), model.predict(phantom, force=True)
    if plain.decision != "refused":  # the input check may know it as well
        assert (plain.decision, plain.reason, plain.forced) == ("abstain", UNLIKE_SOURCE, False)
    assert forced.label in model.labels and forced.forced and forced.reason == UNLIKE_SOURCE
    assert forced.label == max(forced.probabilities, key=forced.probabilities.get)


def test_a_study_without_a_slice_says_so(model: LungCT, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    study = model.predict_study(tmp_path)
    assert study.decision == "error" and study.probabilities is None and study.used == 0
    assert model.predict_study([]).decision == "error"


def test_what_is_not_finite_is_no_answer(model: LungCT, disc: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    run = model._session.run

    def broken(squares: np.ndarray):
        outputs = run(squares)
        outputs.logits[0] = np.nan
        return outputs

    monkeypatch.setattr(model._session, "run", broken)
    bad, good = model.predict([disc, disc], force=True)
    assert (bad.decision, bad.label) == ("abstain", None) and bad.confidence == 0
    study = model.predict_study([disc, disc], force=True)
    assert study.used == 1 and study.probabilities == pytest.approx(good.probabilities)
    assert model.predict_study(disc, force=True).decision == "abstain"


def test_names_and_lazy_exports(model: LungCT, model_dir: Path, tmp_path: Path) -> None:
    assert (model.repo_id, model.revision, model.backend) == (None, None, "onnx")
    assert model.labels == ("normal", "benign", "malignant")
    assert model.name == f"{model_dir.parent.name}/model" == LungCTClassifier.from_pretrained(model_dir).name
    assert lungct_hf.LungCT is module.LungCT and lungct_hf.Prediction is Prediction
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        lungct_hf.Nothing  # noqa: B018


def test_backends(model_dir: Path, torch_only: Path, disc: Image.Image, slices: list[Path]) -> None:
    by_torch = LungCT.from_pretrained(model_dir, backend="torch")
    assert by_torch.backend == "torch" and LungCT.from_pretrained(torch_only).backend == "torch"
    by_onnx = LungCT.from_pretrained(model_dir, backend="onnx", threads=1)
    for ours, theirs in zip(by_onnx.predict(slices, force=True), by_torch.predict(slices, force=True), strict=True):
        assert ours.probabilities == pytest.approx(theirs.probabilities, abs=1e-4)
        assert ours.decision == theirs.decision
    with pytest.raises(LungCTError, match="vouches for.*lungct export"):
        LungCT.from_pretrained(torch_only, backend="onnx")
    for wrong in ({"backend": "tensorflow"}, {"threads": 0}, {"revision": "v1"}):
        with pytest.raises(UsageError):
            LungCT.from_pretrained(model_dir, **wrong)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_many_slices_at_once_are_answered_in_order_as_one_by_one(model: LungCT, model_dir: Path, threads: int) -> None:
    size = model.contract.preprocessing.size
    squares = np.random.default_rng(1).integers(0, 256, (37, size, size, 3), np.uint8)
    at_once = LungCT.from_pretrained(model_dir, threads=threads).predict_images(squares)
    singly = [model.predict_images(square[None]) for square in squares]
    for found, expected in zip(at_once, zip(*singly, strict=True), strict=True):
        np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-4, atol=1e-5)
    assert len(np.unique(at_once[0], axis=0)) == len(squares), "slices that differ, so their order shows"


def test_a_damaged_or_missing_onnx_file_is_named(model_dir: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model_dir, tmp_path / "m"))
    file = folder / "onnx" / "model.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(LungCTError, match="sha256 is not the one in lungct.json"):
        LungCT.from_pretrained(folder)
    file.unlink()
    with pytest.raises(LungCTError, match="missing, though lungct.json names it"):
        LungCT.from_pretrained(folder)
    with pytest.raises(LungCTError, match="no config.json"):
        LungCT.from_pretrained(tmp_path)


def test_an_export_that_failed_is_told(model_dir: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model_dir, tmp_path / "m"))
    record = json.loads((folder / "lungct.json").read_text())
    record["onnx"] = {"sentence": "It differed."}
    (folder / "lungct.json").write_text(json.dumps(record))
    assert LungCT.from_pretrained(folder).backend == "torch"
    with pytest.raises(LungCTError, match="It differed"):
        LungCT.from_pretrained(folder, backend="onnx")
