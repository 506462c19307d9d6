"""What learns nothing: each view sees what its name says and nothing else."""

import numpy as np
import pytest

from lungct_hf.evaluation import VIEWS, nearest_neighbour, only_ring


@pytest.fixture(scope="module")
def thumbnails() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 64, 64)).astype(np.uint8)


def test_the_histogram_knows_no_place(thumbnails: np.ndarray) -> None:
    shuffled = np.random.default_rng(1).permuted(thumbnails.reshape(12, -1), axis=1).reshape(thumbnails.shape)
    view = VIEWS["histogram_nearest_neighbour"]
    assert view(thumbnails).shape == (12, 256) and np.allclose((view(thumbnails) ** 2).sum(axis=1), 1, atol=1e-6)
    assert np.array_equal(view(shuffled), view(thumbnails))
    assert not np.array_equal(VIEWS["nearest_neighbour"](shuffled), thumbnails)


@pytest.mark.parametrize("name", VIEWS)
def test_every_view_finds_a_copy(thumbnails: np.ndarray, name: str) -> None:
    view, classes = VIEWS[name](thumbnails), np.arange(12) % 3
    assert np.array_equal(nearest_neighbour(view, classes, view[[7, 2]]), classes[[7, 2]])


def test_the_ring_of_the_model_is_the_ring_of_the_thumbnails(thumbnails: np.ndarray) -> None:
    square = np.repeat(thumbnails[0].repeat(2, 0).repeat(2, 1)[..., None], 3, axis=2)
    shown = only_ring(square, (1, 2, 3))
    assert (shown[20:-20, 20:-20] == (1, 2, 3)).all()
    assert np.array_equal(shown[:20], square[:20]) and np.array_equal(shown[:, -20:], square[:, -20:])
