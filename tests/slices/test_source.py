"""Image files, bytes, pictures and arrays: the right pixels, one row for each, bad ones with their reason."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_slices import grey, only, phantom_hu, reason
from PIL import Image

from lungct_hf.errors import UsageError
from lungct_hf.slices.read import read_slice
from lungct_hf.slices.report import CODES, SENTENCES, STUDY, UNREADABLE
from lungct_hf.slices.source import Frame, Unreadable, open_slices
from lungct_hf.slices.window import LUNG_WINDOW, Window


@pytest.fixture(scope="module")
def slice_grey() -> np.ndarray:
    return LUNG_WINDOW.apply(phantom_hu())


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "WEBP"])
@pytest.mark.parametrize("mode", ["L", "RGB", "P", "RGBA", "LA"])
def test_every_mode_gives_the_same_slice(slice_grey: np.ndarray, kind: str, mode: str) -> None:
    if (kind, mode) in {("BMP", "LA"), ("WEBP", "LA")}:
        pytest.skip(f"Pillow writes no {mode} {kind}")
    data = encoded(Image.fromarray(slice_grey).convert(mode), kind, **({"lossless": True} if kind == "WEBP" else {}))
    frame = only(data)
    assert np.array_equal(np.asarray(frame.image), np.repeat(slice_grey[..., None], 3, 2))
    assert frame.report.codes == () and frame.report.facts["kind"] == kind.lower()
    assert np.array_equal(np.asarray(read_slice(data)), np.asarray(frame.image))


def test_jpeg_pixels_are_those_of_transformers_loader(slice_grey: np.ndarray, tmp_path: Path) -> None:
    from transformers.image_utils import load_image

    path = tmp_path / "slice.jpg"
    path.write_bytes(encoded(Image.fromarray(slice_grey), "JPEG", quality=90))
    assert np.array_equal(np.asarray(only(path).image), np.asarray(load_image(str(path))))


def test_16_bit_grey_is_scaled_by_its_full_range(slice_grey: np.ndarray) -> None:
    deep = Image.fromarray(slice_grey.astype(np.uint16) * 257)
    assert np.array_equal(grey(only(encoded(deep, "PNG"))), slice_grey)
    assert np.array_equal(grey(only(encoded(deep, "TIFF"))), slice_grey)


def test_exif_orientation_is_applied(slice_grey: np.ndarray) -> None:
    picture = Image.fromarray(slice_grey)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it turned by 90 degrees
    turned = encoded(picture.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    assert np.array_equal(grey(only(turned)), slice_grey)


def test_every_page_of_a_tiff_is_a_frame(slice_grey: np.ndarray) -> None:
    pages = [Image.fromarray(slice_grey), Image.fromarray(np.flipud(slice_grey).copy())]
    frames = list(open_slices(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])))
    assert [frame.frame for frame in frames if isinstance(frame, Frame)] == [0, 1]


def test_arrays_of_hu_and_of_grey_agree(slice_grey: np.ndarray) -> None:
    hu = phantom_hu()
    for array in (hu, hu.astype(np.float64), hu.astype(np.int32), slice_grey, np.repeat(slice_grey[..., None], 3, 2)):
        assert np.array_equal(grey(only(array)), slice_grey), array.dtype
    stack = list(open_slices(np.stack([hu, hu]), file="volume"))
    assert [(frame.file, frame.frame) for frame in stack if isinstance(frame, Frame)] == [("volume", 0), ("volume", 1)]


def test_nan_and_infinity_in_hu_are_black_and_white() -> None:
    hu = phantom_hu().astype(np.float32)
    hu[0, 0], hu[0, 1], hu[0, 2] = np.nan, np.inf, -np.inf
    assert grey(only(hu))[0, :3].tolist() == [0, 255, 0]


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4, 4, 4), np.int16), np.zeros((8, 8), np.uint16), np.zeros((8, 8), complex), np.zeros((0, 8))],
)
def test_arrays_that_are_no_slice_are_rows_with_a_reason(array: np.ndarray) -> None:
    assert reason(array) == "unsupported"


def test_the_window_is_an_argument_and_changes_only_hu(slice_grey: np.ndarray) -> None:
    narrow = Window(-600.0, 1000.0)
    assert np.array_equal(grey(only(phantom_hu(), window=narrow)), narrow.apply(phantom_hu()))
    assert np.array_equal(grey(only(slice_grey, window=narrow)), slice_grey)


def test_names_of_rows(tmp_path: Path, slice_grey: np.ndarray) -> None:
    data = encoded(Image.fromarray(slice_grey), "PNG")
    path = tmp_path / "a b.png"
    path.write_bytes(data)
    with path.open("rb") as handle:
        assert only(handle).file == str(path)
    assert only(path).file == str(path) and only(str(path)).file == str(path)
    assert only(data).file == "<bytes>" and only(data, file="upload.png").file == "upload.png"
    assert [row.file for row in open_slices([path, data, slice_grey])] == [str(path), "<bytes>", "<array>"]
    assert only(Image.open(path)).file == str(path)


def test_a_picture_is_only_closed_by_its_owner(slice_grey: np.ndarray) -> None:
    picture = Image.fromarray(slice_grey)
    handle = io.BytesIO(encoded(picture, "PNG"))
    only(handle)
    assert not handle.closed
    only(picture)
    picture.load()


def test_what_is_no_file_is_a_row(tmp_path: Path) -> None:
    assert reason(tmp_path / "none.png") == "not-found"
    assert reason("no\0name") == "not-found"
    assert reason("x" * 5000) == "not-found"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert reason(pipe) == "unsupported"  # opening it would wait for ever
    assert reason(tmp_path) in {"unsupported", "not-an-image"}


def test_other_types_are_a_usage_error() -> None:
    for source in (None, 7, {"a": 1}):
        with pytest.raises(UsageError, match="is no source of slices"):
            list(open_slices(source))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "truncated"),
        (b"x", "not-an-image"),
        (b"hello world" * 100, "not-an-image"),
        (b"%PDF-1.7" + b" " * 600, "unsupported"),
        (b"GIF89a" + b"\0" * 600, "unsupported"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 600, "damaged"),
        (b"\0" * 5000, "not-an-image"),
    ],
)
def test_reasons_of_bytes(data: bytes, expected: str) -> None:
    assert reason(data) == expected


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_a_picture_cut_anywhere_is_one_row(slice_grey: np.ndarray, kind: str) -> None:
    whole = encoded(Image.fromarray(slice_grey), kind)
    for end in sorted({*range(0, min(len(whole), 200), 7), *range(200, len(whole), max(len(whole) // 20, 1))}):
        rows = list(open_slices(whole[:end]))
        assert len(rows) == 1, end
        if isinstance(rows[0], Unreadable):
            assert rows[0].reason in UNREADABLE
    assert reason(whole[: len(whole) // 2]) in {"truncated", "damaged", "not-an-image"}


def test_garbage_inside_a_picture_never_raises(slice_grey: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "TIFF", "WEBP", "BMP"):
        whole = bytearray(encoded(Image.fromarray(slice_grey).convert("RGB"), kind))
        for _ in range(25):
            damaged = bytearray(whole)
            for at in rng.integers(0, len(whole), 8):
                damaged[at] = rng.integers(256)
            assert len(list(open_slices(bytes(damaged)))) >= 1


def test_pixel_bombs_are_refused_before_they_unpack() -> None:
    bomb = encoded(Image.new("1", (30_000, 30_000)), "PNG")
    assert len(bomb) < 1_000_000
    assert reason(bomb) == "too-large"


def test_every_code_has_its_sentence() -> None:
    assert set(SENTENCES) == {*CODES, *UNREADABLE, *STUDY}
    assert all(text.endswith(".") for text in SENTENCES.values())


def test_import_loads_no_heavy_library() -> None:
    code = (
        "import lungct_hf.slices.source, sys;"
        "print([n for n in ('torch', 'transformers', 'pydicom', 'nibabel', 'scipy', 'pandas') if n in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
