"""The quick ways through preprocessing give the very numbers of the plain ones."""

import io

import numpy as np
import pytest
from PIL import Image

from lungct_hf.slices.preprocess import Preprocessing
from lungct_hf.slices.source import Frame, open_slices


def plain(preprocessing: Preprocessing, picture: Image.Image) -> np.ndarray:
    """The documented steps with nothing left out."""
    size, (width, height) = preprocessing.size, picture.size
    ratio = max(height / size, width / size)
    shape = (max(1, round(width / ratio)), max(1, round(height / ratio)))
    scaled = picture.convert("RGB").resize(shape, Image.Resampling[preprocessing.interpolation.upper()])
    square = Image.new("RGB", (size, size), preprocessing.fill)
    square.paste(scaled, ((size - shape[0]) // 2, (size - shape[1]) // 2))
    unit = np.asarray(square).astype(np.float32) / np.float32(255)
    return np.moveaxis((unit - np.float32(preprocessing.mean)) / np.float32(preprocessing.std), -1, 0)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(512, 512), (801, 512), (33, 700), (224, 224), (20, 17), (3000, 16)])
def test_every_bit_is_that_of_the_plain_steps(shape: tuple[int, int], interpolation: str) -> None:
    preprocessing = Preprocessing(size=224, interpolation=interpolation)
    grey = Image.effect_noise(shape, 90)
    tinted = Image.merge("RGB", (grey, grey, grey.point(lambda value: min(255, value + 1))))
    for picture in (grey, grey.convert("RGB"), tinted):  # one channel, three equal ones, three that are not
        assert np.array_equal(preprocessing(picture), plain(preprocessing, picture))


def test_a_batch_is_its_slices() -> None:
    preprocessing = Preprocessing(size=64)
    pictures = [Image.effect_noise((80 + i, 90), 60).convert("RGB") for i in range(3)]
    squares = preprocessing.squares(pictures)
    assert squares.shape == (3, 64, 64, 3) and squares.dtype == np.uint8
    batch = preprocessing.normalise(squares)
    assert batch.shape == (3, 3, 64, 64) and batch.dtype == np.float32 and batch.flags.c_contiguous
    for row, picture in zip(batch, pictures, strict=True):
        assert np.array_equal(row, preprocessing(picture))
    assert preprocessing.squares([]).shape == (0, 64, 64, 3)


def test_every_grey_level_is_normalised_by_the_formula() -> None:
    preprocessing = Preprocessing(size=16)
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    found = preprocessing.normalise(np.stack([levels] * 3, axis=-1))
    expected = (levels[None] / 255 - np.reshape(preprocessing.mean, (3, 1, 1))) / np.reshape(
        preprocessing.std, (3, 1, 1)
    )
    assert np.abs(found - expected).max() < 1e-6


def test_a_transparent_colour_of_a_png_changes_nothing() -> None:
    """Pillow keeps it beside the pixels, in a form that fits the mode the file was stored in."""
    grey = Image.effect_noise((90, 80), 60)
    for picture, transparent in ((grey, 5), (grey.convert("RGB"), (5, 5, 5))):
        file = io.BytesIO()
        picture.save(file, "PNG", transparency=transparent)
        (frame,) = open_slices(file.getvalue())
        assert isinstance(frame, Frame) and "transparency" in Image.open(file).info
        assert np.array_equal(np.asarray(frame.image), np.asarray(picture.convert("RGB")))
        assert np.array_equal(Preprocessing()(frame.pixels), plain(Preprocessing(), picture))
