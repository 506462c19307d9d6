"""Neutral views: what they make equal is equal, and the shapes stay."""

import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from lungct_hf.classes import Classes
from lungct_hf.evaluation import evaluate_predictions, tables
from lungct_hf.evaluation.neutral import (
    content_box,
    equal_histogram,
    equal_texture,
    pooled_histogram,
    pooled_spectrum,
)
from lungct_hf.evaluation.predictions import CLASSES_KEY, OPTIONAL, SCHEMA
from lungct_hf.hub.results import neutral_sentences
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


def predictions(**columns: list[object]) -> pa.Table:
    classes = Classes(("calm", "ill"))
    rows = [
        {"id": f"{i}", "sha256": f"{i}", "group": f"g{i // 2}", "split": "test", "fold": 0, "label": classes[i % 2]}
        | {"logits": [0.0, 4.0 if i % 2 else -4.0], "equal_texture_logits": [0.0, 4.0 if i % 2 else -4.0]}
        | {name: values[i] for name, values in columns.items()}
        for i in range(40)
    ]
    return pa.Table.from_pylist(
        rows, schema=pa.schema([*SCHEMA, *OPTIONAL], metadata={CLASSES_KEY: json.dumps(classes.to_json())})
    )


def test_what_grey_levels_gave_is_lost_in_figures_and_in_words() -> None:
    """A model that named one class wherever grey levels are equal, and a neighbour that still knows them all."""
    table = predictions(
        equal_histogram_logits=[[1.0, 0.0]] * 40,
        equal_histogram_nearest_neighbour=["ill" if i % 2 else "calm" for i in range(40)],
    )
    metrics = evaluate_predictions(table, replicates=200).metrics
    levels, texture = (metrics["neutral"][name] for name in ("equal_histogram", "equal_texture"))
    assert metrics["test"]["balanced_accuracy"] == 1 and levels["balanced_accuracy"] == 0.5
    assert levels["minus_untouched"]["balanced_accuracy"]["value"] == -0.5
    assert texture["minus_untouched"]["balanced_accuracy"]["value"] == 0
    assert levels["histogram"]["model_minus"]["balanced_accuracy"]["value"] == -0.5
    lost, kept = neutral_sentences(metrics)
    assert "50.0 points" in lost and "less than as they are" in lost and "the model is not shown to beat it" in lost
    assert "100.0 %" in kept and "0.0 points" in kept
    assert lost in tables.notes(metrics)


def test_predictions_without_neutral_views_say_nothing_of_them() -> None:
    metrics = evaluate_predictions(predictions().drop_columns(["equal_texture_logits"]), replicates=200).metrics
    assert "neutral" not in metrics and neutral_sentences(metrics) == []
