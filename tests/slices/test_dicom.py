"""DICOM: HU, windows, geometry, header facts; every syntax; nothing about a patient; damage as a reason."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from made_slices import PATIENT, ct_dataset, dicom_bytes, grey, only, phantom_hu, reason
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from lungct_hf.slices.dicom_file import codestream_size
from lungct_hf.slices.report import UNREADABLE
from lungct_hf.slices.source import Frame, Unreadable, open_slices
from lungct_hf.slices.window import LUNG_WINDOW, Window

HU = phantom_hu()
EXPECTED = LUNG_WINDOW.apply(HU)


def test_hu_come_from_the_rescale_and_the_window_from_the_contract() -> None:
    frame = only(dicom_bytes(ct_dataset(HU)))
    assert np.array_equal(grey(frame), EXPECTED)
    assert frame.report.codes == () and frame.report.facts["modality"] == "CT"
    other = Window(-500.0, 1400.0)
    assert np.array_equal(grey(only(dicom_bytes(ct_dataset(HU)), window=other)), other.apply(HU))
    half = ct_dataset(HU, RescaleSlope=2, RescaleIntercept=-2048)
    assert np.array_equal(grey(only(half)), LUNG_WINDOW.apply(2 * (HU.clip(-1024, 3071) + 1024.0) - 2048))


@pytest.mark.parametrize("stored", ["uint16", "int16"])
def test_a_data_set_that_was_read_already(stored: str) -> None:
    assert np.array_equal(grey(only(ct_dataset(HU, stored=stored))), EXPECTED)


def test_a_data_set_that_was_made_in_memory() -> None:
    bare = Dataset()
    for element in ct_dataset(HU):
        bare.add(element)
    frame = only(bare)
    assert np.array_equal(grey(frame), EXPECTED)
    assert frame.report.facts["transfer_syntax"] == "Explicit VR Little Endian"


def test_monochrome1_of_either_kind_ends_up_with_dark_air() -> None:
    kept = ct_dataset(HU, PhotometricInterpretation="MONOCHROME1")
    turned = ct_dataset(HU, PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11)
    values = 4095 - np.frombuffer(turned.PixelData, np.uint16)
    turned.PixelData = values.tobytes()
    for dataset in (kept, turned):
        frame = only(dataset)
        assert np.array_equal(grey(frame), EXPECTED)
        assert frame.report.codes == () and "photometric" in frame.report.warnings


@pytest.mark.parametrize(("padding", "black"), [(4000, True), (0, True)])
def test_padding_is_never_bright(padding: int, black: bool) -> None:
    dataset = ct_dataset(HU)
    values = np.frombuffer(dataset.PixelData, np.uint16).reshape(HU.shape).copy()
    values[:20, :20] = padding
    dataset.PixelData, dataset.PixelPaddingValue = values.tobytes(), padding
    assert (grey(only(dataset))[:20, :20] <= LUNG_WINDOW.apply(np.array(-1000.0))).all() is np.bool_(black)


def test_padding_of_the_other_sign_is_understood() -> None:
    values = (HU.astype(np.int32) + 1024).clip(0, 4095).astype(np.uint16)
    values[:20, :20] = 65536 - 2000
    dataset = ct_dataset(HU, PixelData=values.tobytes())
    dataset.add_new("PixelPaddingValue", "SS", -2000)
    assert (grey(only(dataset))[:20, :20] <= LUNG_WINDOW.apply(np.array(-1000.0))).all()


@pytest.mark.filterwarnings("error")
def test_pixels_that_are_no_number_are_black() -> None:
    values = HU.astype(np.float32)
    values[:20, :20] = np.nan
    dataset = ct_dataset(HU, BitsAllocated=32, BitsStored=32, HighBit=31, RescaleIntercept=0)
    del dataset.PixelData
    dataset.FloatPixelData = values.tobytes()
    found = grey(only(dataset))
    assert not found[:20, :20].any() and np.array_equal(found[20:], EXPECTED[20:])


def test_frames_of_an_enhanced_file_have_their_own_rescale_and_place() -> None:
    dataset = ct_dataset(np.stack([HU, HU]))
    del dataset.RescaleSlope, dataset.RescaleIntercept, dataset.ImageOrientationPatient, dataset.ImagePositionPatient
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.EnhancedCTImageStorage
    orientation, shared = Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PlaneOrientationSequence = Sequence([orientation])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for z, intercept in ((5.0, -1024), (7.5, -924)):
        rescale, plane, group = Dataset(), Dataset(), Dataset()
        rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 1, intercept, "HU"
        plane.ImagePositionPatient = [0, 0, z]
        group.PixelValueTransformationSequence, group.PlanePositionSequence = Sequence([rescale]), Sequence([plane])
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)
    first, second = list(open_slices(dicom_bytes(dataset)))
    assert isinstance(first, Frame) and isinstance(second, Frame)
    assert (first.frame, first.position, second.frame, second.position) == (0, 5.0, 1, 7.5)
    assert np.array_equal(grey(first), EXPECTED)
    assert np.array_equal(grey(second), LUNG_WINDOW.apply(HU.clip(-1024, 3071) + 100.0))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_uncompressed_syntaxes(syntax: str) -> None:
    dataset = ct_dataset(HU)
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    assert np.array_equal(grey(only(dicom_bytes(dataset))), EXPECTED)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_lossless_compressed_syntaxes(syntax: str) -> None:
    dataset = ct_dataset(HU)
    try:
        dataset.compress(syntax)
    except RuntimeError as error:
        pytest.skip(f"no encoder here: {error}")
    assert np.array_equal(grey(only(dicom_bytes(dataset))), EXPECTED)


def test_a_missing_decoder_is_one_sentence_with_the_pip_line() -> None:
    dataset = ct_dataset(HU)
    dataset.compress(RLELossless)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1
    code = (
        "import sys\n"
        "for name in ('pylibjpeg', 'libjpeg', 'openjpeg', 'gdcm', 'jpeg_ls'): sys.modules[name] = None\n"
        "from lungct_hf.slices.source import open_slices\n"
        "print(*open_slices(sys.stdin.buffer.read()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=dicom_bytes(dataset), capture_output=True)
    assert b"unsupported" in done.stdout and b"pip install 'lungct-hf[dicom]'" in done.stdout, done.stderr


def test_jpeg_of_12_bits_is_read_or_names_what_brings_its_decoder() -> None:
    spec = importlib.util.find_spec("pydicom")
    assert spec is not None and spec.origin is not None
    path = Path(spec.origin).parent / "data" / "test_files" / "JPEG-lossy.dcm"
    if not path.is_file():
        pytest.skip("this pydicom came without its test files")
    content = pydicom.dcmread(path)
    assert content.file_meta.TransferSyntaxUID == pydicom.uid.JPEGExtended12Bit and content.BitsStored == 12
    content.Modality, content.SOPClassUID = "CT", pydicom.uid.CTImageStorage
    stream = next(pydicom.encaps.generate_frames(content.PixelData, number_of_frames=1))
    scan = stream.index(b"\xff\xda")
    last = scan + 2 + int.from_bytes(stream[scan + 2 : scan + 4], "big") - 2
    stream = stream[:last] + b"\x3f" + stream[last + 1 :]  # this one leaves out which coefficients the scan has: all
    content.PixelData = pydicom.encaps.encapsulate([stream])
    assert only(dicom_bytes(content)).report.facts["width"] == content.Columns
    code = (
        "import sys\n"
        "for name in ('pylibjpeg', 'libjpeg'): sys.modules[name] = None\n"
        "from lungct_hf.slices.source import open_slices\n"
        "print(*open_slices(sys.stdin.buffer.read()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=dicom_bytes(content), capture_output=True)
    assert b"unsupported" in done.stdout and b"pylibjpeg-libjpeg" in done.stdout, done.stderr


@pytest.mark.parametrize("keyword", ["PhotometricInterpretation", "TransferSyntaxUID", "RescaleType", "Modality"])
def test_what_a_header_says_cannot_steer_a_terminal(keyword: str) -> None:
    evil = b"1.2.\x1b[2J\r\nok" + b"9" * 400
    place = b"1.2.840.10008.1.2.1\0" if keyword == "TransferSyntaxUID" else b"MARKED-HERE-THAT-IS-REPLACED"
    dataset = ct_dataset(HU)
    if keyword != "TransferSyntaxUID":
        dataset.add_new(keyword, "LO", place.decode())
    whole = dicom_bytes(dataset)
    at = whole.index(place)
    assert whole[at - 2 : at] == len(place).to_bytes(2, "little")
    group = whole[140:144]
    size = len(evil) + len(evil) % 2
    content = whole[: at - 2] + size.to_bytes(2, "little") + evil.ljust(size, b" ") + whole[at + len(place) :]
    if keyword == "TransferSyntaxUID":
        longer = int.from_bytes(group, "little") + size - len(place)
        content = content[:140] + longer.to_bytes(4, "little") + content[144:]
    for row in open_slices(content):
        said = [row.detail] if isinstance(row, Unreadable) else [str(value) for value in row.report.facts.values()]
        assert all(text.isprintable() and len(text) < 300 for text in said), said


def test_no_preamble_no_meta_and_a_wrong_name(tmp_path: Path) -> None:
    whole = dicom_bytes(ct_dataset(HU))
    assert np.array_equal(grey(only(whole[132:])), EXPECTED)
    dataset = ct_dataset(HU)
    bare = tmp_path / "slice.jpg"
    del dataset.file_meta
    dataset.save_as(bare, implicit_vr=True, little_endian=True)
    assert bare.read_bytes()[:4] == b"\x08\0\x08\0"  # ImageType, the first element
    assert np.array_equal(grey(only(bare)), EXPECTED)


def test_elements_with_one_choice_may_be_missing() -> None:
    dataset = ct_dataset(HU)
    del dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation, dataset.BitsStored
    frame = only(dicom_bytes(dataset))
    assert np.array_equal(grey(frame), EXPECTED)
    assert "SamplesPerPixel" in frame.report.facts["assumed"]


@pytest.mark.filterwarnings("error")
def test_a_file_that_says_it_has_no_frames_has_one() -> None:
    assert np.array_equal(grey(only(dicom_bytes(ct_dataset(HU, NumberOfFrames=0)))), EXPECTED)


@pytest.mark.parametrize("keyword", ["Rows", "Columns", "BitsAllocated"])
def test_elements_without_a_choice_are_needed(keyword: str) -> None:
    dataset = ct_dataset(HU)
    delattr(dataset, keyword)
    assert reason(dataset) == "damaged"


def test_header_facts_refuse() -> None:
    def codes(**elements: object) -> tuple[str, ...]:
        return only(ct_dataset(HU, **elements)).report.codes

    assert codes(Modality="MR") == ("not-ct",)
    assert codes(SOPClassUID=pydicom.uid.MRImageStorage) == ("not-ct",)
    assert codes(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]) == ("not-axial",)
    assert codes(ImageOrientationPatient=[1, 0, 0, 0, 0, -1]) == ("not-axial",)
    assert codes(BurnedInAnnotation="YES") == ("burned-in-text",)
    tilt = np.deg2rad(30)  # a gantry's
    assert codes(ImageOrientationPatient=[1, 0, 0, 0, float(np.cos(tilt)), float(np.sin(tilt))]) == ()


def test_header_facts_warn() -> None:
    def warnings(**elements: object) -> tuple[str, ...]:
        return only(ct_dataset(HU, **elements)).report.warnings

    assert "body-part" in warnings(BodyPartExamined="KNEE") and "body-part" not in warnings(BodyPartExamined="CHEST")
    assert "unusual-orientation" in warnings(ImageOrientationPatient=[-1, 0, 0, 0, -1, 0])
    assert "modality-unknown" in warnings(Modality="")
    assert "orientation-unknown" in warnings(ImageOrientationPatient=None)


def test_a_ct_file_without_rescale_is_not_guessed_at() -> None:
    dataset = ct_dataset(HU)
    del dataset.RescaleSlope, dataset.RescaleIntercept
    report = only(dataset).report
    assert report.codes == ("not-hu",) and "no-rescale" in report.warnings


def test_nothing_about_the_patient_comes_out() -> None:
    frame = only(dicom_bytes(ct_dataset(HU, BodyPartExamined=PATIENT, Modality="CT")))
    text = repr(frame)
    assert "Secret" not in text and "4711" not in text and "1.2.3.4" not in text
    assert frame.series is not None and len(frame.series) == 16


def test_files_without_a_picture_say_so() -> None:
    dataset = ct_dataset(HU)
    del dataset.PixelData
    assert reason(dicom_bytes(dataset)) == "not-an-image"


def test_a_file_cut_anywhere_is_a_row() -> None:
    for syntax in (None, RLELossless):
        dataset = ct_dataset(np.stack([HU, HU]))
        if syntax:
            dataset.compress(syntax)
        whole = dicom_bytes(dataset)
        for end in [*range(0, 1200, 31), *range(1200, len(whole), len(whole) // 15)]:
            rows = list(open_slices(whole[:end]))
            assert rows and isinstance(rows[-1], Unreadable), end
            assert rows[-1].reason in UNREADABLE
        assert isinstance(rows[-1], Unreadable) and rows[-1].reason == "truncated"


def test_garbage_in_the_header_never_raises() -> None:
    whole, rng = dicom_bytes(ct_dataset(phantom_hu(size=64))), np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(whole)
        for at in rng.integers(0, 1000, 5):
            damaged[at] = rng.integers(256)
        assert list(open_slices(bytes(damaged)))


def test_claims_of_size_are_refused_before_anything_is_allocated() -> None:
    assert reason(ct_dataset(HU, Rows=65535, Columns=65535)) == "too-large"
    assert reason(ct_dataset(HU, NumberOfFrames=2_000_000_000)) == "too-large"
    dataset = ct_dataset(HU)
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    claims = b"\xff\x4f\xff\x51\0\x29\0\0" + (60_000).to_bytes(4, "big") * 2 + b"\0" * 40
    dataset.PixelData = pydicom.encaps.encapsulate([claims])
    dataset["PixelData"].VR = "OB"
    assert reason(dicom_bytes(dataset)) == "damaged"


def test_a_deflated_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = ct_dataset(HU)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    whole = dicom_bytes(dataset)
    monkeypatch.setattr("lungct_hf.slices.dicom_file._MAX_INFLATED", 1000)
    assert reason(whole) == "too-large"
    monkeypatch.undo()
    assert reason(whole[:-200]) == "truncated"
    blank = ct_dataset(np.zeros((512, 512)), ImageType=["ORIGINAL"])
    blank.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    monkeypatch.setattr("lungct_hf.slices.dicom_file._FREE_INFLATED", 1000)
    assert reason(dicom_bytes(blank)) == "too-large"


def test_a_deflated_file_is_noticed_however_its_header_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = ct_dataset(HU)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    whole = dicom_bytes(dataset)
    assert whole[132:136] == b"\x02\0\0\0"  # the length of the group
    shapes = (whole, whole[:140] + b"\x08\0\0\0" + whole[144:], whole[:132] + whole[144:], whole[132:])
    for shape in shapes:
        assert np.array_equal(grey(only(shape)), EXPECTED)
    monkeypatch.setattr("lungct_hf.slices.dicom_file._MAX_INFLATED", 1000)
    assert {reason(shape) for shape in shapes} == {"too-large"}


def test_sizes_inside_jpeg_streams() -> None:
    jpeg = (
        b"\xff\xd8\xff\xe0\0\x04ab\xff\xc0\0\x0b\x08" + (300).to_bytes(2, "big") + (500).to_bytes(2, "big") + b"\x01"
    )
    assert codestream_size(jpeg) == (500, 300)
    assert codestream_size(b"") is None and codestream_size(b"\xff\xd8" + b"\xff" * 50) is None


def test_a_header_that_says_no_ct_is_the_reason_also_where_pixels_cannot_be_decoded() -> None:
    dataset = ct_dataset(phantom_hu(), Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    dataset.PixelData = dataset.PixelData[:1000]
    assert reason(dicom_bytes(dataset)) == "not-ct"
    dataset.Modality, dataset.SOPClassUID = "CT", "1.2.840.10008.5.1.4.1.1.2"
    assert reason(dicom_bytes(dataset)) == "truncated"


@pytest.mark.parametrize("unit", ["ED", "EDW", "Z_EFF", "MGML"])
def test_values_in_another_unit_than_hu_are_refused(unit: str) -> None:
    assert only(ct_dataset(phantom_hu(), RescaleType=unit)).report.codes == ("not-hu",)


def test_an_unspecified_unit_is_a_warning() -> None:
    report = only(ct_dataset(phantom_hu(), RescaleType="US")).report
    assert report.codes == () and "unit-unknown" in report.warnings
    assert "unit-unknown" not in only(ct_dataset(phantom_hu(), RescaleType="HU")).report.warnings


def test_packed_pixels_are_of_a_kind_that_is_not_read() -> None:
    assert reason(dicom_bytes(ct_dataset(phantom_hu(), BitsAllocated=12, BitsStored=12, HighBit=11))) == "unsupported"


def test_pydicoms_own_files_never_raise() -> None:
    spec = importlib.util.find_spec("pydicom")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "data" / "test_files"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        pytest.skip("this pydicom came without its test files")
    for path in files:
        rows = list(open_slices(path))
        assert rows, path.name
        for row in rows:
            assert isinstance(row, Frame) or row.reason in (*UNREADABLE, "not-ct")
    small = only(folder / "CT_small.dcm")
    values = pydicom.dcmread(folder / "CT_small.dcm")
    expected = LUNG_WINDOW.apply(values.pixel_array * float(values.RescaleSlope) + float(values.RescaleIntercept))
    assert np.array_equal(grey(small), expected)


def test_real_ct_slices_pass_and_agree_with_pydicom() -> None:
    shared = os.environ.get("LUNGCT_SHARED_DATA")
    if not shared or not (Path(shared) / "dicom-ct").is_dir():
        pytest.skip("real DICOM is not here: set LUNGCT_SHARED_DATA to a folder that holds dicom-ct")
    for path in sorted((Path(shared) / "dicom-ct").rglob("*.dcm")):
        frame, values = only(path), pydicom.dcmread(path)
        assert frame.report.codes == (), path.name
        hu = values.pixel_array.astype(np.float32) * float(values.RescaleSlope) + float(values.RescaleIntercept)
        assert np.array_equal(grey(frame), LUNG_WINDOW.apply(hu)), path.name
