"""Each augmentation against shortcuts does what its name says, alone, and leaves the others' draws where they were."""

import numpy as np
import pytest

from lungct_hf.errors import UsageError
from lungct_hf.fit.augment import (
    Augmentation,
    blurred,
    body,
    grey_curve,
    recompressed,
    with_border,
    with_levels_of,
)
from lungct_hf.fit.batches import other_row, random_stream
from lungct_hf.fit.recipe import BEST_JPEG, Recipe

FILL = (124, 116, 104)
STILL = {"shift": 0.0, "scale": 0.0, "rotate": 0.0, "brightness": 0.0, "contrast": 0.0}
NEW = {"border_fill": 1.0, "body_mask": 1.0, "window_jitter": 0.1, "gamma": 0.4, "blur": 1.5, "noise": 0.05}
NEW |= {"sharpen": 1.5, "jpeg": 20, "reframe": 0.2}


@pytest.fixture(scope="module")
def square() -> np.ndarray:
    """A wide picture, letterboxed: 12 border rows above and below, grey noise between."""
    made = np.empty((64, 64, 3), np.uint8)
    made[:] = FILL
    made[12:52] = np.random.default_rng(1).integers(0, 256, (40, 64, 1))
    made[16:48, 10:54] = np.random.default_rng(2).integers(180, 256, (32, 44, 1))  # bright enough to be a body
    return made


def augmented(square: np.ndarray, number: int, **changes: float) -> np.ndarray:
    return Augmentation(Recipe(**(STILL | changes)), FILL)(square, random_stream(number))  # type: ignore[arg-type]


def test_the_defaults_are_neutral(square: np.ndarray) -> None:
    assert all(getattr(Recipe(), name) == 0 for name in NEW)
    assert np.array_equal(augmented(square, 0), square)


@pytest.mark.parametrize("name", NEW)
def test_each_changes_the_picture_by_the_rng_alone(square: np.ndarray, name: str) -> None:
    once, again, other = (augmented(square, number, **{name: NEW[name]}) for number in (3, 3, 4))
    assert once.dtype == np.uint8 and once.shape == square.shape
    assert np.array_equal(once, again) and not np.array_equal(once, square) and not np.array_equal(once, other)


@pytest.mark.parametrize("name", NEW)
def test_each_draws_the_same_numbers_whether_on_or_off(square: np.ndarray, name: str) -> None:
    streams = [random_stream(8), random_stream(8)]
    for stream, value in zip(streams, (0.0, NEW[name]), strict=True):
        Augmentation(Recipe(**{name: value}), FILL)(square, stream)  # type: ignore[arg-type]
    assert streams[0].integers(2**62) == streams[1].integers(2**62)


def test_border_fill_recolours_the_border_alone_and_what_the_affine_uncovers(square: np.ndarray) -> None:
    shades = set()
    for number in range(8):
        made = augmented(square, number, border_fill=1.0)
        assert np.array_equal(made[12:52], square[12:52])
        (shade,) = np.unique(np.concatenate([made[:12], made[52:]]))
        shades.add(int(shade))
    assert len(shades) > 4 and max(shades) - min(shades) > 80
    half = [np.array_equal(augmented(square, number, border_fill=0.5), square) for number in range(40)]
    assert 8 < sum(half) < 32
    moved = augmented(square, 5, border_fill=1.0, shift=0.3)
    assert not (moved == np.array(FILL)).all(axis=2).any(), "the fixed colour must not come back through the affine"


def test_a_picture_without_border_or_of_border_alone_is_safe() -> None:
    picture = np.random.default_rng(0).integers(0, 100, (64, 64, 3), dtype=np.uint8)
    picture[30, 30] = FILL
    assert np.array_equal(with_border(picture, FILL, (9, 9, 9)), picture)
    empty = np.empty((64, 64, 3), np.uint8)
    empty[:] = FILL
    assert np.array_equal(with_border(empty, FILL, (9, 9, 9)), empty)
    tall = picture.copy()
    tall[:, :7] = tall[:, 60:] = FILL
    made = with_border(tall, FILL, (9, 9, 9))
    assert (made[:, :7] == 9).all() and (made[:, 60:] == 9).all() and np.array_equal(made[:, 7:60], picture[:, 7:60])


def test_window_jitter_is_a_rising_curve_through_its_knots() -> None:
    assert np.array_equal(grey_curve(np.zeros(5)), np.arange(256))
    for number in range(20):
        curve = grey_curve(random_stream(number).uniform(-0.3, 0.3, 5))
        assert (np.diff(curve) >= 0).all() and curve.min() >= 0 and curve.max() <= 255
    assert grey_curve(np.array([0.1, 0.0, 0.0, 0.0, -0.2]))[[0, 255]] == pytest.approx([25.5, 204])


def test_gamma_keeps_black_white_and_the_order(square: np.ndarray) -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:64, None, None] * 4, 64, axis=1).repeat(3, axis=2)
    ramp[-1] = 255
    for number in range(6):
        made = augmented(ramp, number, gamma=0.5)[:, 0, 0].astype(int)
        assert made[0] == 0 and made[-1] == 255 and (np.diff(made) >= 0).all()
        middle = 255 * (128 / 255) ** np.exp([0.5, -0.5])
        assert middle[0] - 1 <= made[32] <= middle[1] + 1


def test_blur_is_a_gaussian_of_that_width() -> None:
    point = np.zeros((41, 41, 3), np.float32)
    point[20, 20] = 1000
    made = blurred(point, 1.5)[..., 0]
    assert made.sum() == pytest.approx(1000, rel=1e-4)
    offsets = np.arange(41) - 20
    assert np.sqrt((made.sum(axis=0) * offsets**2).sum() / 1000) == pytest.approx(1.5, rel=0.03)
    flat = np.full((8, 8, 3), 77, np.float32)
    assert blurred(flat, 2.0) == pytest.approx(flat)


def test_noise_is_grey_centred_and_no_stronger_than_declared() -> None:
    flat = np.full((64, 64, 3), 128, np.uint8)
    widths = []
    for number in range(12):
        change = augmented(flat, number, noise=0.05).astype(int) - 128
        assert (change[..., 0] == change[..., 2]).all() and abs(change.mean()) < 1
        widths.append(change.std())
    assert max(widths) < 255 * 0.05 * 1.05 and min(widths) < 255 * 0.02 and max(widths) > 255 * 0.03


def drawn_chest() -> np.ndarray:
    """A body with two dark lungs in air, a bright table below it."""
    rows, columns = np.mgrid[:128, :128]
    chest = np.full((128, 128), 41)
    chest[((rows - 60) / 40) ** 2 + ((columns - 64) / 55) ** 2 < 1] = 215
    for centre in (42, 86):
        chest[((rows - 60) / 25) ** 2 + ((columns - centre) / 15) ** 2 < 1] = 60
    chest[112:116, 20:108] = 230
    return np.repeat(chest[..., None], 3, axis=2).astype(np.uint8)


def test_the_body_is_its_lungs_as_well_and_not_the_table() -> None:
    chest = drawn_chest()
    found = body(chest)
    assert found[60, 42] and found[60, 86] and found[60, 64] and found[25, 64]
    assert not found[113, 64] and not found[5, 5] and not found[60, 2]
    assert 0.3 < found.mean() < 0.5


def test_body_mask_recolours_all_but_the_body_and_nothing_where_there_is_none() -> None:
    chest = drawn_chest()
    inside, shades = body(chest), set()
    for number in range(8):
        made = augmented(chest, number, body_mask=1.0)
        assert np.array_equal(made[inside], chest[inside])
        (shade,) = np.unique(made[~inside])
        shades.add(int(shade))
    assert len(shades) > 4
    empty = np.full((64, 64, 3), 41, np.uint8)
    assert body(empty).all() and np.array_equal(augmented(empty, 1, body_mask=1.0), empty)


def test_sharpening_steepens_an_edge_and_leaves_flat_parts() -> None:
    edge = np.full((64, 64, 3), 80, np.uint8)
    edge[:, 32:] = 170
    made = augmented(edge, 3, sharpen=2.0)[32, :, 0].astype(int)
    assert made[31] < 80 - 3 and made[32] > 170 + 3
    assert (made[:24] == 80).all() and (made[40:] == 170).all()


def test_recompression_makes_the_marks_of_jpeg_within_its_qualities(square: np.ndarray) -> None:
    errors = [np.abs(augmented(square, number, jpeg=10).astype(int) - square).mean() for number in range(12)]
    best, worst = (np.abs(recompressed(square, quality).astype(int) - square).mean() for quality in (BEST_JPEG, 10))
    assert best <= min(errors) < max(errors) <= worst and max(errors) > 2 * min(errors)
    grey = np.repeat(square[..., :1], 3, axis=2)
    made = augmented(grey, 2, jpeg=10)
    assert (made[..., 0] == made[..., 1]).all() and (made[..., 0] == made[..., 2]).all()


def reframed(square: np.ndarray, *edges: float) -> np.ndarray:
    return Augmentation(Recipe(), FILL)._reframed(square, np.array(edges), FILL)


def test_reframing_pads_and_cuts_edges_as_a_letterbox_would() -> None:
    """A full picture padded by a quarter of its side left and right becomes smaller, with borders all around."""
    full = np.repeat(np.add.outer(np.arange(96), np.arange(96))[..., None], 3, axis=2).astype(np.uint8)
    padded = reframed(full, 0.25, 0.25, 0.0, 0.0)
    inside = (padded != np.array(FILL, np.uint8)).any(axis=2)
    assert 62 <= inside.any(axis=0).sum() <= 66 and 62 <= inside.any(axis=1).sum() <= 66
    assert abs(int(padded[48, 48, 0]) - int(full[48, 48, 0])) <= 2
    cut = reframed(full, -0.25, -0.25, 0.0, 0.0)  # a tall picture: all rows, borders left and right
    kept = np.flatnonzero((cut != np.array(FILL, np.uint8)).any(axis=2).any(axis=0))
    assert (kept[0], kept[-1]) == (24, 71) and np.abs(cut[2:-2, 26:70].astype(int) - full[2:-2, 26:70]).max() <= 2
    assert np.array_equal(reframed(full, 0.0, 0.0, 0.0, 0.0), full)


def test_a_slice_takes_the_levels_of_another_and_keeps_its_border_and_order(square: np.ndarray) -> None:
    other = np.full((64, 64, 3), FILL, np.uint8)
    other[4:60] = np.random.default_rng(3).integers(90, 110, (56, 64, 1))
    made = with_levels_of(square, other, FILL)
    assert np.array_equal(made[:12], square[:12]) and np.array_equal(made[52:], square[52:])
    inside, before = made[12:52, :, 0], square[12:52, :, 0]
    found, wanted = (np.bincount(one.ravel(), minlength=256) / one.size for one in (inside, other[4:60, :, 0]))
    assert np.abs(found - wanted).sum() < 0.02
    order = np.argsort(before.ravel(), kind="stable")
    low, high = order[: len(order) // 4], order[-(len(order) // 4) :]
    assert inside.ravel()[low].max() <= inside.ravel()[high].min()


def test_lenders_are_rows_of_the_fold_drawn_by_the_numbers_alone() -> None:
    rows = np.array([3, 5, 8, 13])
    drawn = [other_row(rows, 0.5, 7, 1, 0, number) for number in range(200)]
    assert {row for row in drawn if row is not None} == set(rows.tolist()) and 70 < drawn.count(None) < 130
    assert drawn == [other_row(rows, 0.5, 7, 1, 0, number) for number in range(200)]
    assert all(other_row(rows, 0.0, 7, 1, 0, number) is None for number in range(50))


@pytest.mark.parametrize(
    ("name", "value"), [("jpeg", 9), ("jpeg", 96), ("reframe", 0.4), ("other_histogram", 1.5), ("sharpen", -1.0)]
)
def test_values_out_of_range_are_refused_with_what_is_needed(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} {value} is out of range; needed: 0"):
        Recipe(**{name: value})  # type: ignore[arg-type]
