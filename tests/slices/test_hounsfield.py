"""Values that are no HU: mended where they can be HU in one way only, else refused; whatever the file's format."""

from collections.abc import Callable

import nibabel
import numpy as np
import pytest
from made_slices import ct_dataset, dicom_bytes, grey, only, phantom_hu, reason
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import JPEG2000Lossless, RLELossless

from lungct_hf.slices.hounsfield import find_fault
from lungct_hf.slices.phantom import draw_phantom
from lungct_hf.slices.report import InputReport
from lungct_hf.slices.source import Frame, open_slices
from lungct_hf.slices.window import LUNG_WINDOW

HU = phantom_hu(size=192)
EXPECTED = LUNG_WINDOW.apply(HU)
CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "shifted by 1024": lambda hu: hu + 1024,
    "shifted down": lambda hu: hu - 1024,
    "shifted a little": lambda hu: hu + 300,
    "a tenth": lambda hu: hu / 10,
    "three times": lambda hu: hu * 3,
    "electron density": lambda hu: (hu / 1000 + 1).clip(0) * 3.34,
    "atomic number": lambda hu: 7.4 + hu / 400,
    "eight bits": lambda hu: LUNG_WINDOW.apply(hu).astype(np.float32),
    "zero to one": lambda hu: (hu + 1024) / 3000,
    "negative": lambda hu: -hu,
    "no sign": lambda hu: np.where(hu < 0, hu + 65536, hu),
    "no sign in 12 bits": lambda hu: np.where(hu < 0, hu + 4096, hu),
}


def samples(values: np.ndarray, **elements: object) -> Dataset:
    """A CT data set of 16-bit samples as they are, HU without a rescale to speak of."""
    content = {"PixelData": values.astype(np.int64).astype(np.uint16).tobytes()}
    return ct_dataset(HU, **({"RescaleIntercept": 0} | content | elements))


def agrees(dataset: Dataset, *, warned: bool) -> InputReport:
    frame = only(dicom_bytes(dataset))
    assert np.array_equal(grey(frame), EXPECTED), np.abs(grey(frame).astype(int) - EXPECTED).max()
    assert frame.report.codes == () and ("header-overruled" in frame.report.warnings) is warned
    return frame.report


@pytest.mark.parametrize("change", CHANGES)
def test_values_that_no_ct_has_are_refused_in_every_format(change: str) -> None:
    values = CHANGES[change](HU.astype(np.float32))
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    volume = nibabel.Nifti1Image(np.ascontiguousarray(values.T[..., None]), affine)
    volume.header.set_sform(affine, 1)
    scaled = ct_dataset(HU, BitsAllocated=32, BitsStored=32, HighBit=31, RescaleIntercept=0)
    del scaled.PixelData
    scaled.FloatPixelData = values.astype(np.float32).tobytes()
    for source in (values, volume.to_bytes(), scaled):
        report = only(source).report
        # A tenth of HU, or density from 0 to 500, could be HU from within a body; without a lung all the same.
        may_be_within = change in ("a tenth", "electron density", "eight bits")
        assert report.reason == "not-hu" or (may_be_within and report.reason == "no-lung"), change


@pytest.mark.parametrize("seed", range(12))
def test_real_kinds_of_hu_are_no_fault(seed: int) -> None:
    hu = draw_phantom(("normal", "benign", "malignant")[seed % 3], seed, 0.0, size=192).astype(np.float32)
    assert find_fault(hu) is None
    rows, columns = np.indices(hu.shape) - 96
    outside = np.hypot(rows, columns) > 92
    for padding in (-1024.0, -2000.0, -3024.0, -32768.0, -np.inf):
        assert find_fault(np.where(outside, padding, hu)) is None
    metal = hu.copy()
    metal[90:100, 90:100] = 30_000
    assert find_fault(metal) is None
    noisy = hu + np.random.default_rng(seed).normal(0, 90, hu.shape)
    assert find_fault(noisy) is None and find_fault(hu[30:-30, 30:-30]) is None
    for even in (-1024.0, 0.0, 40.0):
        assert find_fault(np.full_like(hu, even)) is None  # no lung, but HU
    assert find_fault(np.random.default_rng(seed).normal(-1000, 20, hu.shape)) is None


def test_signed_values_marked_unsigned_are_mended() -> None:
    agrees(samples(HU), warned=True)  # 16 bits
    agrees(samples(HU & 0x0FFF, BitsStored=12, HighBit=11), warned=True)
    agrees(samples(HU & 0x0FFF), warned=True)  # 12 bits in what is said to be 16


def test_unsigned_values_marked_signed_are_mended() -> None:
    hu = HU.copy()
    hu[80:90, 80:90] = np.arange(1500, 2500, 10).reshape(10, 10)  # as 12 bits with a sign: black holes
    dataset = ct_dataset(hu, BitsStored=12, HighBit=11, PixelRepresentation=1)
    frame = only(dicom_bytes(dataset))
    assert np.array_equal(grey(frame), LUNG_WINDOW.apply(hu)) and "header-overruled" in frame.report.warnings


def test_samples_in_the_upper_bits_are_mended() -> None:
    upper = (HU.astype(int) + 1024) << 4
    agrees(samples(upper, BitsStored=12, HighBit=15, RescaleIntercept=-1024), warned=True)
    agrees(samples(HU.astype(int) + 1024, BitsStored=12, HighBit=15, RescaleIntercept=-1024), warned=False)
    agrees(samples(HU.astype(int) + 1024, BitsStored=16, HighBit=11, RescaleIntercept=-1024), warned=False)


@pytest.mark.parametrize("syntax", [None, RLELossless])
@pytest.mark.parametrize("is_signed", [False, True])
def test_overlays_in_the_samples_are_cut_off(syntax: str | None, is_signed: bool) -> None:
    values = HU.astype(int) if is_signed else HU.astype(int) + 1024
    values &= 0x0FFF
    values[20:60, 20:24] |= 0x1000
    values[100:120, 40:90] |= 0x4000
    intercept = 0 if is_signed else -1024
    dataset = samples(
        values, BitsStored=12, HighBit=11, PixelRepresentation=int(is_signed), RescaleIntercept=intercept
    )
    if syntax:
        dataset.compress(syntax)
    agrees(dataset, warned=False)


@pytest.mark.parametrize("is_signed", [False, True])
def test_padding_beyond_the_stored_bits_stays_dark(is_signed: bool) -> None:
    values = HU.astype(int) if is_signed else HU.astype(int) + 1024
    values[:20, :20] = -3024
    dataset = samples(values, PixelRepresentation=int(is_signed), RescaleIntercept=0 if is_signed else -1024)
    dataset.BitsStored, dataset.HighBit = 12, 11
    for padding in (None, -3024):
        if padding is not None:
            dataset.add_new("PixelPaddingValue", "SS", padding)
        found = grey(only(dicom_bytes(dataset)))
        assert (found[:20, :20] <= LUNG_WINDOW.apply(np.array(-1000.0))).all()
        assert np.array_equal(found[20:], EXPECTED[20:]) and np.array_equal(found[:, 20:], EXPECTED[:, 20:])


@pytest.mark.parametrize("stream_is_signed", [False, True])
def test_a_jpeg_2000_stream_of_the_other_sign(stream_is_signed: bool) -> None:
    values = HU.astype(np.int16) if stream_is_signed else (HU.astype(int) + 1024).astype(np.uint16)
    right = ct_dataset(HU, stored="int16" if stream_is_signed else "uint16", PixelData=values.tobytes())
    right.BitsStored, right.HighBit = 13, 12
    right.RescaleIntercept = 0 if stream_is_signed else -1024
    right.compress(JPEG2000Lossless)
    agrees(right, warned=False)
    right.PixelRepresentation = int(not stream_is_signed)
    agrees(right, warned=stream_is_signed)


@pytest.mark.parametrize("unit", ["ED", "Z_EFF", "10^23/ml", "mg/ml", "%", "mgml"])
def test_units_in_any_spelling_are_refused(unit: str) -> None:
    dataset = ct_dataset(HU)
    dataset.add_new("RescaleType", "LO", unit)
    assert only(dataset).report.codes == ("not-hu",)


def test_a_table_that_leads_to_another_unit_is_refused() -> None:
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [4096, 0, 16], "OD"
    table.add_new("LUTData", "OW", np.arange(4096, dtype=np.uint16).tobytes())
    assert "not-hu" in only(ct_dataset(HU, ModalityLUTSequence=Sequence([table]))).report.codes


def test_unspecified_values_pass_only_where_they_can_be_hu() -> None:
    assert only(ct_dataset(HU, RescaleType="US")).report.codes == ()
    report = only(ct_dataset(HU, RescaleType="US", RescaleIntercept=0)).report
    assert report.codes == ("not-hu",) and "unit-unknown" in report.warnings


def test_frames_of_one_file_are_judged_one_by_one() -> None:
    values = np.stack([HU, HU + 1024])
    rows = list(open_slices(ct_dataset(values, RescaleIntercept=-1024)))
    assert [isinstance(row, Frame) and row.report.reason for row in rows] == [None, "not-hu"]


@pytest.mark.parametrize("rows", [191, 96])
def test_rows_that_leave_pixels_over_are_damage(rows: int) -> None:
    assert reason(dicom_bytes(ct_dataset(HU, Rows=rows))) == "damaged"
    assert reason(dicom_bytes(ct_dataset(HU, Rows=192 + rows))) == "truncated"


@pytest.mark.parametrize("shape", [(192, 96), (192, 160), (100, 150)])
def test_swapped_rows_and_columns_are_damage(shape: tuple[int, int]) -> None:
    rows, columns = shape
    hu = np.ascontiguousarray(HU[:rows, :columns])
    assert only(ct_dataset(hu)).pixels.size == (columns, rows)
    assert only(ct_dataset(np.ascontiguousarray(hu.T))).pixels.size == (rows, columns)
    assert reason(ct_dataset(hu, Rows=columns, Columns=rows)) == "damaged"
    assert reason(ct_dataset(hu, Rows=2 * rows, Columns=columns // 2)) == "damaged"
    assert reason(ct_dataset(hu, Rows=rows // 2, Columns=2 * columns)) == "damaged"


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_a_compressed_frame_of_another_size_is_damage(syntax: str) -> None:
    for rows, columns in ((192, 191), (96, 192), (96, 384)):
        dataset = ct_dataset(HU)
        dataset.compress(syntax)
        dataset.Rows, dataset.Columns = rows, columns
        assert reason(dicom_bytes(dataset)) in ("damaged", "truncated"), (rows, columns)
