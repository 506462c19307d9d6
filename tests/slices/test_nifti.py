"""NIfTI: axial slices come out as DICOM shows them, however the volume lies in memory; damage is a reason."""

import gzip
import itertools
import subprocess
import sys

import nibabel
import numpy as np
import pytest
from made_slices import grey, phantom_hu

from lungct_hf.slices.report import UNREADABLE
from lungct_hf.slices.source import Frame, Unreadable, open_slices
from lungct_hf.slices.window import LUNG_WINDOW

HU = phantom_hu(size=96)
# Axes: patient's left, back, head; DICOM's picture is [back, left].
VOLUME = np.stack([HU, HU - 20, HU - 40]).transpose(2, 1, 0)
TO_WORLD = np.diag([-3.0, -3.0, 2.5, 1.0])  # NIfTI's axes point right, front, head


def stored(order: tuple[int, ...] = (0, 1, 2), flips: tuple[int, ...] = (1, 1, 1)) -> nibabel.Nifti1Image:
    """The volume with its axes in another order and some of them reversed, and the affine that says so."""
    values, affine = VOLUME.transpose(order), np.eye(4)
    affine[:3, :3] = TO_WORLD[:3, :3][:, order]
    for axis, flip in enumerate(flips):
        if flip < 0:
            affine[:3, 3] += affine[:3, axis] * (values.shape[axis] - 1)
            affine[:3, axis] *= -1
            values = np.flip(values, axis)
    image = nibabel.Nifti1Image(np.ascontiguousarray(values), affine)
    image.header.set_qform(affine, 1)
    return image


def frames(data: bytes) -> list[Frame]:
    rows = list(open_slices(data, file="scan.nii"))
    assert all(isinstance(row, Frame) for row in rows), rows
    return rows  # type: ignore[return-value]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_every_orientation_gives_the_same_slices(order: tuple[int, ...]) -> None:
    for flips in itertools.product((1, -1), repeat=3):
        found = frames(stored(order, flips).to_bytes())
        assert [(frame.frame, frame.position) for frame in found] == [(0, 0.0), (1, 2.5), (2, 5.0)]
        for number, frame in enumerate(found):
            assert np.array_equal(grey(frame), LUNG_WINDOW.apply(HU - 20 * number)), flips
        assert len({frame.series for frame in found}) == 1


def test_gzip_scaling_one_slice_and_the_second_version() -> None:
    assert len(frames(gzip.compress(stored().to_bytes()))) == 3
    whole = stored().to_bytes()
    parts = b"".join(gzip.compress(whole[at : at + 20_000]) for at in range(0, len(whole), 20_000))  # as bgzip does
    assert len(frames(parts)) == 3 and len(frames(parts + b"\0" * 512)) == 3
    image = stored()
    scaled = nibabel.Nifti1Image((VOLUME + 1024).astype(np.uint16), TO_WORLD)
    scaled.header.set_slope_inter(1, -1024)
    scaled.header.set_sform(TO_WORLD, 1)
    assert np.array_equal(grey(frames(scaled.to_bytes())[0]), LUNG_WINDOW.apply(HU.clip(-1024, None)))
    assert len(frames(nibabel.Nifti2Image(np.asarray(image.dataobj), image.affine).to_bytes())) == 3
    assert len(frames(nibabel.Nifti1Image(VOLUME[:, :, :1], TO_WORLD).to_bytes())) == 1
    assert len(frames(nibabel.Nifti1Image(VOLUME[..., None], TO_WORLD).to_bytes())) == 3
    assert np.array_equal(
        grey(frames(nibabel.Nifti1Image(VOLUME[:, :, 0], TO_WORLD).to_bytes())[0]), LUNG_WINDOW.apply(HU)
    )


def test_a_volume_without_orientation_says_so() -> None:
    data = bytearray(stored().to_bytes())
    data[252:256] = b"\0" * 4  # qform_code and sform_code
    assert "orientation-unknown" in frames(bytes(data))[0].report.warnings


def test_values_that_are_no_hu_are_refused() -> None:
    mri = nibabel.Nifti1Image(np.random.default_rng(0).integers(0, 900, (96, 96, 2)).astype(np.int16), TO_WORLD)
    assert all(frame.report.reason == "not-hu" for frame in frames(mri.to_bytes()))


def test_damage_is_a_row() -> None:
    whole = stored().to_bytes()
    for end in [*range(0, 600, 37), 5000, len(whole) - 1]:
        rows = list(open_slices(whole[:end]))
        assert len(rows) == 1 and isinstance(rows[0], Unreadable) and rows[0].reason in UNREADABLE, end
    packed = gzip.compress(whole)
    for end in range(20, len(packed) - 1, len(packed) // 10):
        rows = list(open_slices(packed[:end]))
        assert isinstance(rows[0], Unreadable) and rows[0].reason == "truncated"
    rng = np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(whole)
        for at in rng.integers(0, 344, 4):
            damaged[at] = rng.integers(256)
        assert list(open_slices(bytes(damaged)))


def test_claims_are_checked_against_the_file() -> None:
    header = stored().header.copy()
    for shape, expected in (((30_000, 9, 9), "too-large"), ((4000, 4000, 4000), "truncated")):
        header.set_data_shape(shape)
        header["vox_offset"], header["magic"] = 352, b"n+1"
        row = next(open_slices(header.binaryblock + b"\0" * 5000))
        assert isinstance(row, Unreadable) and row.reason == expected


def test_half_of_a_pair_is_named() -> None:
    header = stored().header.copy()
    header["magic"] = b"ni1"
    row = next(open_slices(header.binaryblock))
    assert isinstance(row, Unreadable) and row.reason == "unsupported" and "pair" in row.detail


def test_a_gzip_bomb_stops_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lungct_hf.slices.unpack.MAX_UNPACKED", 10 * 2**20)
    row = next(open_slices(gzip.compress(b"\0" * 20 * 2**20)))
    assert isinstance(row, Unreadable) and row.reason == "too-large"
    row = next(open_slices(gzip.compress(gzip.compress(b"x" * 1000))))
    assert isinstance(row, Unreadable) and row.reason == "unsupported"


def test_without_nibabel_the_pip_line_is_named() -> None:
    code = (
        "import sys, importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'nibabel' else find(name, *rest)\n"
        "from lungct_hf.slices.source import open_slices\n"
        "print(*open_slices(sys.stdin.buffer.read()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=stored().to_bytes(), capture_output=True)
    assert b"pip install 'lungct-hf[nifti]'" in done.stdout and b"Unreadable" in done.stdout, done.stderr
