"""Figures against scikit-learn and against cases worked out by hand; weights against rows written several times."""

import numpy as np
import pytest
from simulated import SETS, THREE, TWO_UNMARKED, clustered
from simulated import sample as sample_of
from sklearn import metrics as reference

from lungct_hf.classes import Classes
from lungct_hf.errors import LungCTError
from lungct_hf.evaluation import Sample, ring, score
from lungct_hf.evaluation.bootstrap import draw_groups
from lungct_hf.evaluation.figures import figures, reliability, weighted_figures


@pytest.fixture
def sample() -> Sample:
    labels, logits, groups = clustered(np.random.default_rng(3))
    return Sample.of(labels, np.round(logits, 1), groups, classes=THREE)  # rounded, so that some scores are tied


def test_agrees_with_scikit_learn(sample: Sample) -> None:
    found, truth, scores = figures(sample), sample.labels, sample.probabilities
    assert scores is not None
    one_hot = np.eye(3)[truth]
    assert found["kappa"] == pytest.approx(reference.cohen_kappa_score(truth, sample.named))
    assert found["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(truth, sample.named))
    assert found["macro_auroc"] == pytest.approx(reference.roc_auc_score(truth, scores, multi_class="ovr"))
    assert found["average_precision"] == pytest.approx(reference.average_precision_score(one_hot, scores))
    assert found["log_loss"] == pytest.approx(reference.log_loss(truth, scores))
    assert found["brier"] == pytest.approx(reference.brier_score_loss(truth, scores, scale_by_half=False))
    for c, label in enumerate(THREE):
        row, true, named = found["per_class"][label], truth == c, sample.named == c
        assert row["sensitivity"] == pytest.approx(reference.recall_score(true, named))
        assert row["specificity"] == pytest.approx(reference.recall_score(~true, ~named))
        assert row["ppv"] == pytest.approx(reference.precision_score(true, named))
        assert row["npv"] == pytest.approx(reference.precision_score(~true, ~named))
        assert row["auroc"] == pytest.approx(reference.roc_auc_score(true, scores[:, c]))
        assert row["average_precision"] == pytest.approx(reference.average_precision_score(true, scores[:, c]))


@pytest.mark.parametrize("count", [5, 20])
def test_agrees_with_scikit_learn_on_more_classes(count: int) -> None:
    classes = Classes(tuple(f"class {c}" for c in range(count)))
    labels, logits, groups = clustered(np.random.default_rng(3), groups=3 * count, classes=count)
    one = Sample.of(labels, np.round(logits, 1), groups, classes=classes)
    found, scores = figures(one), one.probabilities
    assert found["kappa"] == pytest.approx(reference.cohen_kappa_score(labels, one.named))
    assert found["macro_auroc"] == pytest.approx(reference.roc_auc_score(labels, scores, multi_class="ovr"))
    assert found["average_precision"] == pytest.approx(
        reference.average_precision_score(np.eye(count)[labels], scores)
    )
    assert found["confusion_matrix"] == reference.confusion_matrix(labels, one.named).tolist()
    assert list(found["per_class"]) == list(classes) and "auroc" not in found


@pytest.mark.parametrize("classes", [SETS[2], TWO_UNMARKED])
def test_two_classes_have_one_ranking_and_no_macro_figure(classes: Classes) -> None:
    one = sample_of(np.random.default_rng(3), classes)
    found, truth, scores = figures(one), one.labels, one.probabilities
    assert scores is not None and not [name for name in found if name.startswith("macro")]
    assert found["auroc"] == pytest.approx(reference.roc_auc_score(truth, scores[:, 1]))
    assert found["auroc"] == pytest.approx(reference.roc_auc_score(truth == 0, scores[:, 0]))
    assert found["brier"] == pytest.approx(reference.brier_score_loss(truth, scores, scale_by_half=False))
    if classes.positive:
        assert found["average_precision"] == pytest.approx(reference.average_precision_score(truth, scores[:, 1]))
    else:
        assert "average_precision" not in found
    first, second = found["per_class"].values()
    assert "auroc" not in first and first["sensitivity"] == pytest.approx(second["specificity"])
    assert "auroc" not in figures(Sample.of(truth, named=one.named, classes=classes))


def test_a_hundred_classes_take_seconds() -> None:
    """Not timed: the work of one AUROC grows with the slices of its class, not with all of them."""
    classes = Classes(tuple(f"c{c}" for c in range(100)))
    one = sample_of(np.random.default_rng(0), classes, groups=200, slices=4)
    found = weighted_figures(one, draw_groups(one.group_labels, 50, seed=0))
    assert np.isfinite(found["macro_auroc"]).all() and found["auroc/c7"].shape == (50,)


@pytest.mark.parametrize("count", SETS)
def test_says_what_the_metric_classes_say(count: int) -> None:
    """Readers of the older block find the same keys with the same values."""
    labels, logits, groups = clustered(np.random.default_rng(3), classes=count)
    classes = SETS[count]
    old, new = score(labels, logits, classes), figures(Sample.of(labels, logits, groups, classes=classes))
    assert new["confusion_matrix"] == old["confusion_matrix"]
    for name in ("n", "accuracy", "balanced_accuracy", "macro_auroc" if count > 2 else "auroc"):
        assert new[name] == pytest.approx(old[name], abs=1e-12)
    for label in classes:
        for name, value in old["per_class"][label].items():
            assert new["per_class"][label][name] == pytest.approx(value, abs=1e-12)


def test_worked_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.1, 0.2, 0.7], [0.0, 0.6, 0.4]])
    found = figures(Sample.of(np.array([0, 0, 2, 2]), probabilities=probabilities, classes=THREE))
    assert found["accuracy"] == 0.5 and found["balanced_accuracy"] == 0.5  # over the two classes that occur
    assert found["brier"] == pytest.approx((0.02 + 1.28 + 0.14 + 0.72) / 4)
    # each answer is alone in its bin: |0.9 - 1|, |0.8 - 0|, |0.7 - 1|, |0.6 - 0|
    assert found["ece"] == pytest.approx((0.1 + 0.8 + 0.3 + 0.6) / 4)
    # by confidence: right, wrong, right, wrong; errors among the first n: 0, 1/2, 1/3, 2/4
    assert found["aurc"] == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert found["kappa"] == pytest.approx((0.5 - 0.25) / 0.75)
    assert found["macro_auroc"] is None and found["per_class"]["benign"]["sensitivity"] is None
    assert found["per_class"]["normal"]["ppv"] == 1.0 and found["per_class"]["benign"]["ppv"] == 0.0
    assert found["per_class"]["malignant"]["npv"] == pytest.approx(2 / 3)


def test_never_naming_a_class_leaves_its_ppv_undefined() -> None:
    found = figures(Sample.of(np.array([0, 1, 2]), named=np.array([0, 0, 0]), classes=THREE))
    assert found["per_class"]["benign"]["ppv"] is None and found["per_class"]["normal"]["npv"] is None
    assert "macro_auroc" not in found and "ece" not in found  # a baseline that only names has no ranking


def test_a_weight_is_as_good_as_repeated_rows(sample: Sample) -> None:
    weights = np.random.default_rng(0).integers(0, 4, (5, len(sample.group_names)))
    found = weighted_figures(sample, weights)
    for r, row in enumerate(weights):
        repeated = np.repeat(np.arange(len(sample)), row[sample.group_of])
        written_out = sample.take(repeated)
        wanted = weighted_figures(written_out, np.ones((1, len(written_out.group_names))))
        for name in wanted:
            assert found[name][r] == pytest.approx(wanted[name][0]), name


def test_a_replicate_without_a_class_is_undefined_not_easier(sample: Sample) -> None:
    weights = (sample.group_labels != 1)[None].astype(float)
    found = weighted_figures(sample, weights)
    assert np.isnan(found["balanced_accuracy"][0]) and np.isnan(found["macro_auroc"][0])
    assert np.isfinite(found["accuracy"][0])


def test_blocks_of_replicates_change_nothing(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    from lungct_hf.evaluation import figures as module

    weights = np.random.default_rng(0).integers(0, 3, (9, len(sample.group_names)))
    whole = weighted_figures(sample, weights)
    monkeypatch.setattr(module, "_BLOCK_CELLS", 2 * len(sample))
    for name, values in weighted_figures(sample, weights).items():
        assert values == pytest.approx(whole[name], abs=1e-12, nan_ok=True)


def test_cases_pool_probabilities_and_take_the_majority_class() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0], [0.3, 0.7, 0.0], [0.0, 0.4, 0.6], [0.1, 0.2, 0.7], [0.0, 0.9, 0.1]])
    labels, groups = np.array([0, 0, 2, 2, 1]), np.array(["b", "b", "a", "a", "a"])
    sample = Sample.of(labels, probabilities=probabilities, groups=groups, classes=THREE)
    cases = sample.cases()
    assert cases.groups.tolist() == ["a", "b"] and cases.labels.tolist() == [2, 0]
    assert cases.probabilities == pytest.approx(np.array([[0.1 / 3, 0.5, 1.4 / 3], [0.6, 0.4, 0.0]]))
    assert sample.mixed_groups == ["a"] and cases.mixed_groups == []
    tied = Sample.of(np.array([0, 2]), named=np.array([0, 1]), groups=np.array(["a", "a"]), classes=THREE).cases()
    assert tied.labels.tolist() == [2] and tied.named.tolist() == [1]  # ties: the positive one, else the later


def test_a_tie_goes_to_a_positive_class_wherever_it_stands() -> None:
    for positive, wanted in (((), 2), (("a",), 0), (("a", "b"), 1)):
        classes, groups = Classes(("a", "b", "c"), positive), np.array(["g", "g", "g"])
        case = Sample.of(np.arange(3), named=np.arange(3), groups=groups, classes=classes).cases()
        assert case.labels.tolist() == case.named.tolist() == [wanted]


def test_seeds_of_a_case_are_not_averaged_into_one_model() -> None:
    probabilities, labels = np.array([[0.9, 0.1, 0], [0.2, 0.8, 0]]), np.array([0, 0])
    sample = Sample.of(
        labels, probabilities=probabilities, groups=np.array(["a", "a"]), runs=np.array(["0", "1"]), classes=THREE
    )
    assert len(sample.cases()) == 2 and figures(sample.cases())["accuracy"] == 0.5


def test_reliability_counts_every_slice(sample: Sample) -> None:
    found = reliability(sample)
    assert found["count"].sum() == len(sample)
    some = found["count"] > 0
    ece = np.sum(found["count"][some] * np.abs(found["accuracy"] - found["confidence"])[some]) / len(sample)
    assert ece == pytest.approx(figures(sample)["ece"])


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(LungCTError, match="not finite"):
        Sample.of(np.array([0]), np.array([[np.nan, 0, 0]]), classes=THREE)


def test_the_ring_has_no_pixel_from_inside() -> None:
    thumbnails = np.zeros((2, 64, 64), np.uint8)
    thumbnails[:, 10:54, 10:54] = 200
    edge = ring(thumbnails)
    assert edge.shape == (2, 64 * 64 - 44 * 44) and not edge.any()
