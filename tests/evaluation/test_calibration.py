"""Temperature, abstention and the distance: what is promised on groups that were not used to choose the thresholds."""

import json
import subprocess
import sys

import numpy as np
import pytest
from simulated import SETS, THREE, calibrated, clustered
from sklearn.metrics import log_loss

from lungct_hf.classes import Classes
from lungct_hf.decision import Blocks, tempering
from lungct_hf.errors import LungCTError, UsageError
from lungct_hf.evaluation import (
    Calibration,
    Sample,
    decide,
    fit_abstain,
    fit_calibration,
    fit_temperatures,
    fold_calibration,
    risk_coverage,
)
from lungct_hf.evaluation.calibration import TEMPERATURES
from lungct_hf.evaluation.figures import figures
from lungct_hf.evaluation.sample import softmax
from lungct_hf.evaluation.source_guard import fit_sources

BLOCKS = ((0, 1), (2,))


@pytest.mark.parametrize("true", [(0.4, 0.4), (1.0, 1.0), (3.0, 0.5), (0.5, 3.0)])
def test_known_temperatures_are_found(true: tuple[float, float]) -> None:
    labels, logits, groups = calibrated(np.random.default_rng(0), groups=1500)
    raw = logits @ np.linalg.inv(tempering(3, *true, BLOCKS))
    fitted = fit_temperatures(raw, labels, groups, classes=THREE)
    assert fitted[:2] == pytest.approx(true, rel=0.06)
    assert fitted.blocks == (BLOCKS if true[0] != true[1] else ())  # what needs no second temperature gets none
    found = log_loss(labels, softmax(raw @ fit_temperatures(raw, labels, classes=THREE).matrix(3)))
    others = [(true[0] * a, true[1] * b) for a in (0.8, 1, 1.25) for b in (0.8, 1, 1.25)]
    assert all(found <= log_loss(labels, softmax(raw @ tempering(3, *other, BLOCKS))) + 1e-4 for other in others)


@pytest.mark.parametrize("blocks", [((0, 3), (1, 2, 4)), ((0,), (1, 2, 3, 4)), ((0, 1), (2, 4), (3,)), ()])
@pytest.mark.parametrize("positive", [(), ("a", "d")])
def test_the_classes_that_are_hard_to_tell_apart_are_found(blocks: Blocks, positive: tuple[str, ...]) -> None:
    """They are also those that are taken for each other; whichever are positive, in whatever order the slices come."""
    rng = np.random.default_rng(4)
    classes = Classes(("a", "b", "c", "d", "e"), positive)
    apart = tempering(5, 1 / 4, 1.0, blocks) if blocks else None
    labels, logits, groups = calibrated(rng, groups=600, classes=5, apart=apart)
    raw = logits @ np.linalg.inv(tempering(5, 1.2, 4.0 if blocks else 1.2, blocks))
    fitted = fit_temperatures(raw, labels, groups, classes=classes)
    assert fitted.blocks == blocks and fitted.temperature == pytest.approx(1.2, rel=0.08)
    order = rng.permutation(len(labels))
    again = fit_temperatures(raw[order], labels[order], groups[order], classes=classes)
    assert again.blocks == blocks and again[:2] == pytest.approx(fitted[:2])


def test_too_little_to_choose_from_gives_one_temperature() -> None:
    labels, logits, groups = calibrated(np.random.default_rng(0), groups=200)
    raw = logits @ np.linalg.inv(tempering(3, 0.5, 3.0, BLOCKS))
    assert fit_temperatures(raw, labels, groups, classes=THREE).blocks == BLOCKS
    few = np.isin(groups, np.unique(groups)[:9])
    assert fit_temperatures(raw[few], labels[few], groups[few], classes=THREE).blocks == ()
    lacking = labels != 1  # nobody knows how far that class is from the others
    assert fit_temperatures(raw[lacking], labels[lacking], groups[lacking], classes=THREE).blocks == ()
    two = fit_temperatures(raw[lacking][:, [0, 2]], labels[lacking] // 2, groups[lacking], classes=SETS[2])
    assert two.blocks == () and two.temperature == two.within


def test_a_calibration_of_other_classes_is_one_sentence() -> None:
    with pytest.raises(LungCTError, match="speaks of class 2 and there are 2"):
        Calibration(1.0, 2.0, BLOCKS).probabilities(np.zeros((1, 2)))


def test_tempering_changes_each_contrast_by_its_own() -> None:
    logits = np.random.default_rng(0).normal(size=(20, 3))
    normal, benign, malignant = (logits @ tempering(3, 2.0, 5.0, BLOCKS)).T
    assert benign - normal == pytest.approx((logits[:, 1] - logits[:, 0]) / 5)
    assert malignant - (normal + benign) / 2 == pytest.approx((logits[:, 2] - logits[:, :2].mean(axis=1)) / 2)
    assert np.array_equal(benign > normal, logits[:, 1] > logits[:, 0])
    assert logits @ tempering(3, 3.0, 3.0, BLOCKS) == pytest.approx(logits / 3)
    assert logits @ tempering(3, 2.0, 5.0, BLOCKS) @ tempering(3, 1 / 2, 1 / 5, BLOCKS) == pytest.approx(logits)


@pytest.mark.parametrize("count", SETS)
def test_calibration_error_falls_on_other_groups(count: int) -> None:
    rng, classes = np.random.default_rng(1), SETS[count]
    labels, logits, groups = calibrated(rng, groups=80, classes=count)
    matrix = fit_temperatures(3 * logits, labels, groups, classes=classes).matrix(count)
    labels, logits, groups = calibrated(rng, groups=300, classes=count)
    plain = np.eye(count)
    before, after = (figures(Sample.of(labels, 3 * logits @ m, groups, classes=classes)) for m in (plain, matrix))
    assert after["ece"] < 0.05 < before["ece"] and after["log_loss"] < before["log_loss"]
    assert after["accuracy"] == pytest.approx(before["accuracy"], abs=0.01)


def test_a_hard_question_does_not_take_the_confidence_of_an_easy_one() -> None:
    """Malignant is always told apart; benign and normal are guessed, as surely."""
    rng = np.random.default_rng(2)
    labels, groups = rng.integers(3, size=900), np.arange(900) // 3
    guessed = np.where(labels == 2, 2, rng.integers(2, size=900))
    logits = 4.0 * np.eye(3)[guessed]
    probabilities = softmax(logits @ fit_temperatures(logits, labels, groups, classes=THREE).matrix(3))
    assert probabilities[labels == 2, 2].min() > 0.99
    assert probabilities[labels != 2].max() < 0.56


def test_no_error_does_not_make_a_model_certain() -> None:
    labels = np.arange(40) % 3
    logits = 5.0 * np.eye(3)[labels]
    few = fit_temperatures(logits, labels, np.repeat(np.arange(4), 10), classes=THREE)
    many = fit_temperatures(logits, labels, np.arange(40), classes=THREE)
    confidence = [softmax(logits @ fitted.matrix(3)).max(axis=1).mean() for fitted in (few, many)]
    assert TEMPERATURES[0] < many.temperature < few.temperature and not few.blocks and not many.blocks
    assert confidence == pytest.approx([1 - 0.5 / 5, 1 - 0.5 / 41], abs=1e-3)


def test_degenerate_logits() -> None:
    assert fit_temperatures(np.zeros((6, 3)), np.arange(6) % 3, classes=THREE) == (1.0, 1.0, ())
    assert fit_temperatures(np.full((3, 3), 7.0), np.zeros(3, int), classes=THREE) == (1.0, 1.0, ())
    always_wrong = fit_temperatures(9.0 * np.eye(3)[[1, 2, 0] * 5], np.array([0, 1, 2] * 5), classes=THREE)
    assert max(always_wrong[:2]) == pytest.approx(TEMPERATURES[1], rel=1e-3)
    with pytest.raises(UsageError, match="at least one slice"):
        fit_temperatures(np.empty((0, 3)), np.empty(0, int), classes=THREE)
    with pytest.raises(UsageError, match="finite"):
        fit_temperatures(np.array([[np.inf, 0, 0]]), np.array([0]), classes=THREE)


@pytest.mark.parametrize("benign", [None, 0.6])
def test_folded_temperatures_give_the_same_probabilities(benign: float | None) -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(3, 20)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    features = rng.normal(size=(50, 20)).astype(np.float32)
    folded_weight, folded_bias = fold_calibration(weight, bias, Calibration(1.7, benign, BLOCKS))
    assert folded_weight.dtype == np.float32 and folded_bias.shape == (3,)
    apart = Calibration(1.7, benign, BLOCKS).probabilities(features @ weight.T + bias)
    folded = Calibration(1.7, benign, BLOCKS, folded=True).probabilities(features @ folded_weight.T + folded_bias)
    assert folded == pytest.approx(apart, abs=1e-6)


def test_the_target_error_holds_on_new_groups() -> None:
    """Thresholds from 60 groups, judged on others: on average at most the target, though cut as close as it goes."""
    rng = np.random.default_rng(0)
    errors, coverage, kept = [], [], 0
    for _ in range(40):
        labels, logits, groups = clustered(rng, groups=60, signal=3.0, shared=1.0)
        rule = fit_abstain(softmax(logits), labels, groups, target_error=0.05)
        if not rule.target_met:
            continue
        kept += 1
        labels, logits, _ = clustered(rng, groups=300, signal=3.0, shared=1.0)
        probabilities = softmax(logits)
        answered = probabilities.max(axis=1) >= rule.min_confidence
        errors.append(np.mean((probabilities.argmax(axis=1) != labels)[answered]))
        coverage.append(answered.mean())
    assert kept > 30
    assert 0.015 < np.mean(errors) <= 0.05 and np.mean(coverage) > 0.5


def test_a_target_that_cannot_be_met_is_said() -> None:
    labels, logits, groups = clustered(np.random.default_rng(0), groups=12, signal=9.0, shared=0.1)
    rule = fit_abstain(softmax(logits), labels, groups, target_error=0.05)
    assert not rule.target_met and rule.expected_error == 0 and rule.expected_coverage == 1  # too few groups
    labels, logits, groups = clustered(np.random.default_rng(0), groups=60, signal=0.0)
    hopeless = fit_abstain(softmax(logits), labels, groups, target_error=0.05)
    assert not hopeless.target_met and hopeless.expected_error > 0.05 and hopeless.expected_coverage > 0


def test_what_chose_the_threshold_passes_it() -> None:
    labels, logits, groups = clustered(np.random.default_rng(0), signal=3.0)
    probabilities = softmax(logits)
    rule = fit_abstain(probabilities, labels, groups)
    answered = probabilities.max(axis=1) >= rule.min_confidence
    assert answered.mean() == pytest.approx(rule.expected_coverage)
    assert np.mean((probabilities.argmax(axis=1) != labels)[answered]) == pytest.approx(rule.expected_error)


def features_of(rng: np.random.Generator, labels: np.ndarray, shift: float = 0.0) -> np.ndarray:
    """Non-negative features with a pattern per class and one dead unit, as pooled ReLU6 features have."""
    pattern = np.random.default_rng(99).uniform(0, 2, (3, 64))
    found = np.maximum(0, pattern[labels] + 0.4 * rng.normal(size=(len(labels), 64)) + shift)
    found[:, 0] = 0
    return found


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    rng = np.random.default_rng(0)
    labels, logits, groups = clustered(rng, signal=4.0, shared=1.0)
    training = np.arange(300) % 3
    return fit_calibration(
        logits,
        labels,
        groups,
        features=features_of(rng, labels),
        training=(features_of(rng, training), ["one"] * len(training)),
        classes=THREE,
    )


def test_features_unlike_training_are_refused_whatever_the_confidence(calibration: Calibration) -> None:
    rng = np.random.default_rng(5)
    labels = np.arange(90) % 3
    sure = 20.0 * np.eye(3)[labels]
    known = decide(calibration, THREE, sure, features_of(rng, labels))
    strange = decide(calibration, THREE, sure, features_of(rng, labels, shift=3.0))
    assert np.mean([row.reason == "unlike-training-source" for row in known]) < 0.1
    assert all(row.label is None and row.reason == "unlike-training-source" for row in strange)
    assert min(row.distance for row in strange) > 1.5 * np.median([row.distance for row in known])


def test_decisions_in_order_of_their_reasons(calibration: Calibration) -> None:
    rng = np.random.default_rng(5)
    features = features_of(rng, np.array([1, 1, 1, 1]))
    features[2] += 9
    features[3] = np.nan
    logits = np.array([[0, 9.0, 0], [0.1, 0.2, 0.1], [0, 9, 0], [0, 9, 0]])
    rows = decide(calibration, THREE, logits, features)
    reasons = [row.reason for row in rows]
    assert reasons == [None, "low-confidence", "unlike-training-source", "unlike-training-source"]
    assert rows[0].label == "benign" and sum(rows[0].probabilities.values()) == pytest.approx(1)
    broken = decide(calibration, THREE, np.array([[np.nan, 0, 0]]), features[:1])[0]
    assert broken.label is None and broken.reason == "not-finite" and broken.confidence == 0


def test_a_rule_that_looks_at_features_is_not_applied_without_them(calibration: Calibration) -> None:
    with pytest.raises(UsageError, match="looks at features"):
        decide(calibration, THREE, np.zeros((1, 3)))
    with pytest.raises(UsageError, match="needed: \\(N, 64\\)"):
        decide(calibration, THREE, np.zeros((1, 3)), np.zeros((1, 10)))
    assert decide(Calibration(), THREE, np.zeros((1, 3)))[0].label == "normal"  # no rule: always an answer


def test_json_and_back_decides_the_same(calibration: Calibration) -> None:
    text = json.dumps(calibration.to_json(), allow_nan=False)
    assert len(text) < 50_000
    back = Calibration.from_json(json.loads(text))
    rng = np.random.default_rng(6)
    labels, logits, _ = clustered(rng, signal=2.0)
    features = features_of(rng, labels, shift=0.2)
    assert decide(back, THREE, logits, features) == decide(calibration, THREE, logits, features)
    assert back.fitted_on == {"slices": 480, "groups": 60} and back.folded and back.to_json() == calibration.to_json()


@pytest.mark.parametrize(
    "damage",
    [
        {"temperature": 0},
        {"temperature": "hot"},
        {"within_temperature": "hot"},
        {"abstain": {"min_confidence": 0.5}},
        {"folded_into_weights": ...},
    ],
)
def test_a_damaged_block_is_one_sentence(calibration: Calibration, damage: dict) -> None:
    record = calibration.to_json() | damage
    record = {name: value for name, value in record.items() if value is not ...}
    with pytest.raises(LungCTError, match="calibration in lungct.json cannot be read"):
        Calibration.from_json(record)


def test_size_for_the_published_network() -> None:
    """MobileNetV2 1.0 has 32 channels at the guard's stage."""
    distance = fit_sources(np.random.default_rng(0).random((60, 64)), ["one"] * 60)
    assert len(json.dumps(distance.to_json())) < 30_000


def test_risk_falls_with_coverage() -> None:
    labels, logits, groups = clustered(np.random.default_rng(0))
    probabilities = softmax(logits)
    curve = risk_coverage(probabilities, labels)
    assert curve["coverage"][-1] == 1 and curve["risk"][-1] == pytest.approx(np.mean(logits.argmax(1) != labels))
    assert curve["risk"][len(labels) // 4] < curve["risk"][-1]
    assert curve["aurc"] == pytest.approx(figures(Sample.of(labels, logits, groups, classes=THREE))["aurc"])
    assert log_loss(labels, probabilities) > 0


def test_deciding_needs_only_numpy() -> None:
    code = (
        "import sys, lungct_hf.decision as d; d.decide(d.Calibration(), (0, 1, 2), [[1, 0, 0]]); "
        "print([n for n in ('torch', 'scipy', 'sklearn', 'evaluate', 'datasets', 'pyarrow') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
