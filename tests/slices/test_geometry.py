"""The same anatomy however it is stored: turned, mirrored, in pixels that are not square, as DICOM or as NIfTI."""

import itertools

import nibabel
import numpy as np
import pytest
from made_slices import ct_dataset, dicom_bytes, grey, only, phantom_hu, reason
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from lungct_hf.slices import volume
from lungct_hf.slices.phantom import draw_phantom
from lungct_hf.slices.preprocess import Preprocessing
from lungct_hf.slices.source import Frame, open_slices

# In each of the eight ways: whether rows and columns are swapped, then whether rows and columns run backwards.
WAYS = list(itertools.product((False, True), repeat=3))
LABELS = ("normal", "benign", "malignant")
MM = 1.2


def stored(hu: np.ndarray, way: tuple[bool, bool, bool]) -> tuple[np.ndarray, list[float]]:
    """A slice (back, left) stored another way, and the ImageOrientationPatient that says so."""
    is_swapped, rows_back, columns_back = way
    along_columns, along_rows = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
    if is_swapped:
        hu, along_columns, along_rows = hu.T, along_rows, along_columns
    if rows_back:
        hu, along_rows = hu[::-1], -along_rows
    if columns_back:
        hu, along_columns = hu[:, ::-1], -along_columns
    return np.ascontiguousarray(hu), [*along_columns.tolist(), *along_rows.tolist()]


def as_nifti(hu: np.ndarray, orientation: list[float], pixel_mm: tuple[float, float], axis: int) -> bytes:
    """One slice (and a copy 2 mm above) as a volume whose slices lie along voxel axis `axis`."""
    affine = np.zeros((4, 4))
    others = [other for other in range(3) if other != axis]
    to_ras = np.array([-1.0, -1.0, 1.0])
    affine[:3, others[0]] = to_ras * orientation[3:] * pixel_mm[0]
    affine[:3, others[1]] = to_ras * orientation[:3] * pixel_mm[1]
    affine[:3, axis], affine[3, 3] = (0, 0, 2.0), 1
    image = nibabel.Nifti1Image(np.stack([hu, hu], axis=axis).astype(np.int16), affine)
    image.header.set_sform(affine, 1)
    return image.to_bytes()


def squares(rows: list[Frame]) -> np.ndarray:
    return Preprocessing().squares([row.image for row in rows])


@pytest.mark.parametrize("seed", range(3))
def test_eight_ways_and_two_formats_give_equal_squares_and_reports(seed: int) -> None:
    hu = draw_phantom(LABELS[seed], seed, 0.0, size=144)[10:, 4:]  # taller is not as wide: a swap shows
    upright = only(dicom_bytes(ct_dataset(hu, PixelSpacing=[MM, MM])))
    expected = squares([upright])
    for number, way in enumerate(WAYS):
        values, orientation = stored(hu, way)
        frame = only(dicom_bytes(ct_dataset(values, ImageOrientationPatient=orientation, PixelSpacing=[MM, MM])))
        assert np.array_equal(squares([frame]), expected), way
        assert frame.report.codes == () and frame.report.facts["width"] == hu.shape[1]
        assert ("unusual-orientation" in frame.report.warnings) is any(way)
        found = list(open_slices(as_nifti(values, orientation, (MM, MM), axis=number % 3)))
        assert all(isinstance(row, Frame) and row.report.codes == () for row in found)
        assert np.array_equal(squares(found), np.concatenate([expected, expected])), way  # type: ignore[arg-type]


@pytest.mark.parametrize("way", WAYS)
def test_pixels_that_are_not_square_are_shown_in_millimetres(way: tuple[bool, bool, bool]) -> None:
    hu = phantom_hu(size=256)
    expected = squares([only(ct_dataset(hu, PixelSpacing=[MM, MM]))]).astype(int)
    halves = {(MM, 2 * MM): (hu[:, ::2].astype(int) + hu[:, 1::2]) // 2}  # half as many columns
    halves[2 * MM, MM] = (hu[::2].astype(int) + hu[1::2]) // 2
    for pixel_mm, half in halves.items():
        values, orientation = stored(half, way)
        spacing = pixel_mm[::-1] if way[0] else pixel_mm
        frame = only(ct_dataset(values, ImageOrientationPatient=orientation, PixelSpacing=list(spacing)))
        assert "pixels-not-square" in frame.report.warnings and frame.pixels.size == (256, 256)
        assert np.abs(squares([frame]) - expected).mean() < 4
        volumes = list(open_slices(as_nifti(values, orientation, spacing, axis=2)))
        assert isinstance(volumes[0], Frame) and "pixels-not-square" in volumes[0].report.warnings
        assert np.array_equal(squares(volumes[:1]), squares([frame]))  # type: ignore[arg-type]


def test_the_shape_of_pixels_is_found_wherever_it_is_said() -> None:
    half = phantom_hu(size=256)[:, ::2]
    assert only(ct_dataset(half, PixelAspectRatio=[1, 2])).pixels.size == (256, 256)
    measures, shared = Dataset(), Dataset()
    measures.PixelSpacing = [0.7, 1.4]
    shared.PixelMeasuresSequence = Sequence([measures])
    assert only(ct_dataset(half, SharedFunctionalGroupsSequence=Sequence([shared]))).pixels.size == (256, 256)
    for nonsense in ([0, 0], [-1, 1], [1]):
        assert only(ct_dataset(half, PixelSpacing=nonsense)).pixels.size == (128, 256)
    assert only(ct_dataset(half, PixelSpacing=[0.7, 0.7001])).pixels.size == (128, 256)
    assert reason(ct_dataset(half, PixelSpacing=[0.7, 70])) == "damaged"


def test_an_orientation_in_letters_counts_where_there_are_no_cosines() -> None:
    hu = phantom_hu()
    expected = grey(only(ct_dataset(hu)))
    frame = only(ct_dataset(hu[:, ::-1], ImageOrientationPatient=None, PatientOrientation=["R", "P"]))
    assert np.array_equal(grey(frame), expected) and "orientation-unknown" not in frame.report.warnings
    turned = only(ct_dataset(hu.T, ImageOrientationPatient=None, PatientOrientation=["PR", "L"]))
    assert np.array_equal(grey(turned), expected)
    coronal = only(ct_dataset(hu, ImageOrientationPatient=None, PatientOrientation=["L", "F"]))
    assert coronal.report.codes == ("not-axial",)
    unknown = only(ct_dataset(hu, ImageOrientationPatient=[0] * 6, PatientOrientation=["?", ""]))
    assert "orientation-unknown" in unknown.report.warnings and np.array_equal(grey(unknown), expected)


def test_the_order_in_a_series_does_not_depend_on_how_slices_are_turned() -> None:
    hu, tilt = phantom_hu(), np.deg2rad(20)
    for way in WAYS:
        values, orientation = stored(hu, way)
        positions = [
            only(ct_dataset(values, ImageOrientationPatient=orientation, ImagePositionPatient=[5, -9, z])).position
            for z in (-100.0, -95.0)
        ]
        assert positions == [-100.0, -95.0], way
    oblique = [1, 0, 0, 0, np.cos(tilt), np.sin(tilt)]
    low, high = (
        only(ct_dataset(hu, ImageOrientationPatient=oblique, ImagePositionPatient=[0, 0, z])).position
        for z in (0.0, 5.0)
    )
    assert low is not None and high is not None and high - low == pytest.approx(5 * np.cos(tilt), abs=1e-3)


def test_a_volume_read_in_passes_gives_the_slices_of_one_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.stack([phantom_hu(seed, size=64) for seed in range(7)])
    for axis in (0, 1, 2):
        affine = np.zeros((4, 4))
        others = [other for other in range(3) if other != axis]
        affine[1, others[0]], affine[0, others[1]], affine[2, axis], affine[3, 3] = -MM, -MM, -2.0, 1
        image = nibabel.Nifti1Image(np.ascontiguousarray(np.moveaxis(values, 0, axis)), affine)
        image.header.set_sform(affine, 1)
        whole = list(open_slices(image.to_bytes()))
        with monkeypatch.context() as small:
            small.setattr(volume, "_HELD", 3 * values[0].size * 4)
            small.setattr(volume, "_READ", 1)
            parts = list(open_slices(image.to_bytes()))
        assert len(whole) == len(parts) == 7
        for number, (one, other) in enumerate(zip(whole, parts, strict=True)):
            assert isinstance(one, Frame) and isinstance(other, Frame) and one.position == other.position
            assert np.array_equal(grey(one), grey(other))
            assert np.array_equal(grey(one), grey(only(values[6 - number])))
