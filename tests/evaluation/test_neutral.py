"""Neutral views: what they make equal is equal, and the shapes stay."""

import numpy as np
import pytest
from PIL import Image

from lungct_hf.evaluation.neutral import (
    content_box,
    equal_histogram,
    equal_texture,
    pooled_histogram,
    pooled_spectrum,
)
from lungct_hf.slices.phantom import draw_phantom
from lungct_hf.slices.preprocess import Preprocessing
from lungct_hf.slices.window import Window

PREPROCESSING = Preprocessing(size=96)
FILL = PREPROCESSING.fill


def square(patient: int, *, width: float = 1500.0, blur: int = 0, shape: tuple[int, int] = (160, 160)) -> np.ndarray:
    grey = Window(-485.0, width).apply(draw_phantom("normal", patient, 0.0, size=160))[: shape[0], : shape[1]]
    picture = Image.fromarray(grey)
    if blur:
        picture = picture.resize((shape[1] // blur, shape[0] // blur)).resize(picture.size)
    return np.asarray(PREPROCESSING.letterbox(picture))


def levels(made: np.ndarray) -> np.ndarray:
    box = content_box(made, FILL)
    return np.bincount(made[box][..., 0].ravel(), minlength=256) / made[box][..., 0].size


def test_every_slice_has_the_pooled_levels_and_keeps_its_border() -> None:
    squares = [square(0), square(1, width=800.0), square(2, shape=(120, 160))]
    pooled = pooled_histogram(squares, FILL)
    made = [equal_histogram(one, FILL, pooled) for one in squares]
    for one, before in zip(made, squares, strict=True):
        assert np.abs(np.cumsum(levels(one)) - np.cumsum(pooled)).max() < 2e-4
        outside = np.ones(one.shape[:2], bool)
        outside[content_box(before, FILL)] = False
        assert (one[outside] == FILL).all() and (one[..., 0] == one[..., 2])[~outside].all()
    same = [np.abs(levels(one) - levels(made[0])).sum() for one in made]
    assert max(same) < 0.02 < np.abs(levels(squares[0]) - levels(squares[1])).sum()


def test_the_order_of_greys_stays() -> None:
    """A monotone change of tone, such as another window, gives nearly the same neutral slice."""
    pooled = pooled_histogram([square(0), square(1)], FILL)
    narrow, wide = (equal_histogram(square(0, width=width), FILL, pooled) for width in (1400.0, 1700.0))
    untouched = np.abs(square(0, width=1400.0).astype(int) - square(0, width=1700.0)).mean()
    assert np.abs(narrow.astype(int) - wide).mean() < 0.5 * untouched


def test_texture_is_brought_to_a_common_level() -> None:
    sharp, soft = square(3), square(3, blur=4)
    spectrum = pooled_spectrum([sharp, soft], FILL)
    made = [equal_texture(one, FILL, spectrum) for one in (sharp, soft)]

    def fine(one: np.ndarray) -> float:
        """How much there is at the fine end of the spectrum."""
        return float(pooled_spectrum([one], FILL)[30:48].mean())

    assert fine(sharp) > 1.5 * fine(soft)
    assert fine(made[0]) == pytest.approx(fine(made[1]), rel=0.1)
    assert np.corrcoef(sharp[..., 0].ravel(), made[0][..., 0].ravel())[0, 1] > 0.95


@pytest.mark.parametrize("grey", [0, 255])
def test_a_flat_slice_does_no_harm(grey: int) -> None:
    flat = np.asarray(PREPROCESSING.letterbox(Image.new("L", (90, 60), grey)))
    pooled, spectrum = pooled_histogram([flat, square(0)], FILL), pooled_spectrum([flat, square(0)], FILL)
    assert equal_texture(flat, FILL, spectrum).shape == equal_histogram(flat, FILL, pooled).shape == flat.shape
