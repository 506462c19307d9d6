"""The shipped metrics against scikit-learn and against cases worked out by hand."""

import numpy as np
import pytest
from simulated import SETS, THREE, clustered
from sklearn import metrics as reference

from lungct_hf.errors import LungCTError, UsageError
from lungct_hf.evaluation import METRICS, nearest_neighbour, read_predictions, score, write_predictions
from lungct_hf.evaluation.metrics import softmax


@pytest.fixture
def sample() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    return labels, rng.normal(size=(200, 3)).astype(np.float32) + 1.2 * np.eye(3, dtype=np.float32)[labels]


def test_agrees_with_scikit_learn(sample: tuple[np.ndarray, np.ndarray]) -> None:
    labels, logits = sample
    named, values = logits.argmax(axis=1), score(labels, logits, classes=THREE)
    assert values["accuracy"] == pytest.approx(reference.accuracy_score(labels, named))
    assert values["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(labels, named))
    assert values["macro_auroc"] == pytest.approx(
        reference.roc_auc_score(labels, softmax(logits), multi_class="ovr", average="macro")
    )
    assert values["confusion_matrix"] == reference.confusion_matrix(labels, named).tolist()
    recall = reference.recall_score(labels, named, average=None)
    assert [row["sensitivity"] for row in values["per_class"].values()] == pytest.approx(recall.tolist())
    for number, row in enumerate(values["per_class"].values()):
        assert row["specificity"] == pytest.approx(reference.recall_score(labels != number, named != number))


@pytest.mark.parametrize("count", SETS)
def test_each_metric_works_through_evaluates_own_interface(count: int) -> None:
    labels, logits, _ = clustered(np.random.default_rng(0), classes=count)
    for name, metric_class in METRICS.items():
        if name == ("auroc" if count > 2 else "macro_auroc"):
            with pytest.raises(UsageError, match=f"not for {count}"):
                metric_class(count)
            continue
        metric = metric_class(num_classes=count)
        for start in range(0, len(labels), 64):  # in batches, as evaluate's users do
            piece = slice(start, start + 64)
            scores = {"prediction_scores": softmax(logits[piece])} if name.endswith("auroc") else {}
            metric.add_batch(references=labels[piece], **(scores or {"predictions": logits[piece].argmax(axis=1)}))
        values = metric.compute()
        assert set(values) == {name}


def test_worked_by_hand_with_a_missing_class() -> None:
    values = score(np.array([0, 0, 1]), np.eye(3)[[0, 1, 2]], classes=THREE)
    assert values["confusion_matrix"] == [[1, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert values["balanced_accuracy"] == pytest.approx(0.25)  # over the two classes that occur
    assert values["macro_auroc"] is None
    assert values["per_class"]["malignant"] == {"sensitivity": None, "specificity": pytest.approx(2 / 3), "n": 0}


def test_metrics_are_recomputed_from_the_stored_predictions(tmp_path, sample: tuple[np.ndarray, np.ndarray]) -> None:  # type: ignore[no-untyped-def]
    labels, logits = sample
    names = ("normal", "benign", "malignant")
    rows = [
        {"id": f"{i:03d}", "sha256": "0", "group": "g", "split": "test", "fold": 0, "label": names[y], "logits": z}
        for i, (y, z) in enumerate(zip(labels, logits.tolist(), strict=True))
    ]
    write_predictions(tmp_path / "predictions.parquet", rows[::-1], THREE)
    table, stored_labels, stored_logits = read_predictions(tmp_path / "predictions.parquet")
    assert table["id"].to_pylist() == [row["id"] for row in rows]
    assert score(stored_labels, stored_logits, classes=THREE) == score(labels, logits, classes=THREE)


def test_a_file_that_is_no_predictions_is_one_sentence(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "predictions.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(LungCTError, match="cannot be read"):
        read_predictions(tmp_path / "predictions.parquet")


def test_nearest_neighbour_finds_the_copy_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    from lungct_hf.evaluation import baselines

    rng = np.random.default_rng(1)
    train, labels = rng.integers(0, 255, (50, 8, 8), dtype=np.uint8), rng.integers(0, 3, 50)
    order = rng.permutation(50)
    monkeypatch.setattr(baselines, "_BLOCK", 7)
    assert nearest_neighbour(train, labels, train[order]).tolist() == labels[order].tolist()
    assert nearest_neighbour(train, labels, train[:0]).shape == (0,)
