"""Operating points: fitted on some groups, judged on others, the same from the stored predictions alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from simulated import SETS, THREE, TWO_UNMARKED, clustered, rows
from sklearn.metrics import roc_auc_score

from lungct_hf.classes import Classes
from lungct_hf.decision import OPERATING_POINTS, Calibration, OperatingPoint, positive_score
from lungct_hf.errors import LungCTError
from lungct_hf.evaluation import Sample, evaluate_predictions, fit_calibration, tables, write_predictions
from lungct_hf.evaluation.operating import FEWEST_GROUPS, fit_operating, operating_block, roc_band
from lungct_hf.evaluation.plots import write_plots
from lungct_hf.evaluation.predictions import read_predictions
from lungct_hf.evaluation.sample import softmax
from lungct_hf.files import write_json

QUICK = {"replicates": 200}


def kept(scores: np.ndarray, positive: np.ndarray, cut: float) -> dict[str, float]:
    return {"sensitivity": np.mean(scores[positive] >= cut), "specificity": np.mean(scores[~positive] < cut)}


@pytest.mark.parametrize("count", SETS)
def test_each_cut_keeps_its_share_and_no_better_one_does(count: int) -> None:
    classes = SETS[count]
    labels, logits, groups = clustered(np.random.default_rng(0), classes=count)
    scores = positive_score(softmax(logits), classes)
    positive = np.isin(labels, [classes.index(name) for name in classes.positive])
    assert scores == pytest.approx(softmax(logits)[:, list(classes.is_positive())].sum(axis=1))
    points = fit_operating(softmax(logits), labels, groups, classes)
    assert [point.name for point in points] == list(OPERATING_POINTS)
    for point in points:
        figure, target = OPERATING_POINTS[point.name]
        assert kept(scores, positive, point.threshold)[figure] >= target
        # any cut on the other side of the next score loses the share
        beyond = scores[scores < point.threshold] if figure == "specificity" else scores[scores >= point.threshold]
        nearest = beyond.max() if figure == "specificity" else beyond.min() + 1e-9
        assert kept(scores, positive, nearest)[figure] < target
        assert point.threshold == np.float32(point.threshold)  # as the rows store it


def test_too_few_groups_or_no_positive_class_give_no_cut() -> None:
    labels, logits, groups = clustered(np.random.default_rng(0))
    positive = np.unique(groups[labels == 2])
    for count, wanted in ((FEWEST_GROUPS - 1, 0), (FEWEST_GROUPS, 4)):
        some = (labels != 2) | np.isin(groups, positive[:count])
        assert len(fit_operating(softmax(logits)[some], labels[some], groups[some], THREE)) == wanted
    assert fit_operating(softmax(logits), labels, groups, Classes(THREE.names)) == ()


def test_equal_scores_are_cut_together() -> None:
    labels, groups = np.arange(60) % 2, np.arange(60)
    certain = np.eye(2)[labels]
    for point in fit_operating(certain, labels, groups, SETS[2]):
        assert 0 < point.threshold < 1
    useless = np.full((60, 2), 0.5)
    found = {point.name: point.threshold for point in fit_operating(useless, labels, groups, SETS[2])}
    assert found["specificity-95"] > 0.5 > found["sensitivity-95"] > 0


def test_what_is_fitted_holds_about_so_on_other_groups() -> None:
    """Over many draws of validation groups the share that was asked for is kept on average, give or take a little."""
    rng, reached = np.random.default_rng(0), {name: [] for name in OPERATING_POINTS}
    labels, logits, _ = clustered(rng, groups=900, shared=1.0)
    scores, positive = positive_score(softmax(logits), THREE), labels == 2
    for _ in range(30):
        some, said, groups = clustered(rng, groups=90, shared=1.0)
        for point in fit_operating(softmax(said), some, groups, THREE):
            reached[point.name].append(kept(scores, positive, point.threshold)[OPERATING_POINTS[point.name][0]])
    for name, (_, target) in OPERATING_POINTS.items():
        assert np.mean(reached[name]) == pytest.approx(target, abs=0.03)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Calibration]:
    """Validation and test rows as a run writes them, and the calibration that the first gave."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("operating") / "predictions.parquet"
    validation = rows(rng, split="validation", signal=2.0)
    write_predictions(path, validation, THREE)
    table, labels, logits = read_predictions(path)
    groups = np.array(table["group"].to_pylist())
    calibration = fit_calibration(logits, labels, groups, classes=THREE, folded=True)
    cuts = [point.threshold for point in calibration.operating]
    made = [row | {"thresholds": cuts} for row in [*validation, *rows(rng, signal=2.0)]]
    write_predictions(path, made, THREE)
    return path, calibration


def test_figures_follow_from_the_stored_rows(stored: tuple[Path, Calibration]) -> None:
    path, calibration = stored
    table, labels, logits = read_predictions(path)
    tested = np.array(table["split"].to_pylist()) == "test"
    scores, positive = softmax(logits[tested])[:, 2], labels[tested] == 2
    block = evaluate_predictions(path, calibration=calibration, **QUICK).metrics["operating"]
    assert block["positive"] == ["malignant"] and block["cautions"] == []
    area = block["slices"]["auroc"]
    assert (
        area["value"] == pytest.approx(roc_auc_score(positive, scores)) and area["low"] < area["value"] < area["high"]
    )
    assert block["slices"]["n"] == {"positive": 160, "negative": 320}
    assert block["slices"]["groups"] == block["cases"]["n"] == {"positive": 20, "negative": 40}
    for point in calibration.operating:
        for figure, value in kept(scores, positive, point.threshold).items():
            found = block["slices"]["points"][point.name][figure]
            assert found["value"] == pytest.approx(value) and found["low"] <= value <= found["high"]
        assert block["slices"]["points"][point.name]["thresholds"] == [point.threshold] * 2


def test_the_table_alone_gives_them_again(stored: tuple[Path, Calibration], tmp_path: Path) -> None:
    """The rows' own cuts, or where they have none those of lungct.json after being written and read."""
    path, calibration = stored
    first = evaluate_predictions(path, **QUICK).metrics
    write_json(tmp_path / "metrics.json", first)
    bare = read_predictions(path)[0].drop_columns("thresholds")
    back = Calibration.from_json(json.loads(json.dumps(calibration.to_json())))
    assert back.operating == calibration.operating
    again = evaluate_predictions(bare, calibration=back, **QUICK).metrics
    assert again["operating"] == json.loads((tmp_path / "metrics.json").read_text())["operating"]
    without = evaluate_predictions(bare, **QUICK).metrics["operating"]
    assert without["slices"]["points"] is without["cases"]["points"] is None
    assert without["slices"]["auroc"] == again["operating"]["slices"]["auroc"]
    assert "no thresholds for any positive class" in without["cautions"][0]


def test_each_fold_is_judged_by_its_own_cuts_and_never_by_the_published_ones(tmp_path: Path) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "p.parquet"
    made = rows(rng, protocol="linked", seed=0)
    for row in made:
        row["thresholds"] = [0.1 + 0.1 * int(str(row["fold"]))] * 4
    write_predictions(path, made, THREE)
    facts = {"protocol": "grouped", "grouping": "linked", "evidence": "cross-validated"}
    published = Calibration(operating=tuple(OperatingPoint(name, 0.9) for name in OPERATING_POINTS))
    table, labels, logits = read_predictions(path)
    found = evaluate_predictions(table, split=facts, calibration=published, **QUICK).metrics["operating"]["slices"]
    cuts = 0.1 + 0.1 * np.array(table["fold"].to_pylist())
    point = found["points"]["sensitivity-95"]
    named = softmax(logits)[:, 2] >= cuts.astype(np.float32)
    assert point["sensitivity"]["value"] == pytest.approx(named[labels == 2].mean())
    assert point["thresholds"] == pytest.approx([0.1, 0.5])
    bare = evaluate_predictions(table.drop_columns("thresholds"), split=facts, calibration=published, **QUICK)
    assert bare.metrics["operating"]["slices"]["points"] is None


def test_a_case_is_positive_when_its_mean_score_is() -> None:
    probabilities = np.array([[0.5, 0.0, 0.5], [0.9, 0.0, 0.1], [0.2, 0.0, 0.8], [0.3, 0.0, 0.7]] * 2)
    labels, groups = np.array([2, 2, 0, 0] * 2), np.array(list("aabbccdd"))
    sample = Sample.of(labels, probabilities=probabilities, groups=groups, classes=THREE)
    cuts = np.tile([0.4, 0.2, 0.9, 0.2], (8, 1))
    points = operating_block(sample, cuts, **QUICK)["cases"]["points"]
    assert points["specificity-90"]["sensitivity"]["value"] == 0.0  # means of 0.3 and 0.75
    assert points["specificity-95"]["sensitivity"]["value"] == 1.0
    assert points["sensitivity-90"]["specificity"]["value"] == 1.0


def test_the_band_holds_the_curve_and_its_area() -> None:
    labels, logits, groups = clustered(np.random.default_rng(0))
    sample = Sample.of(labels, logits, groups, classes=THREE)
    x, y, low, high = roc_band(sample, **QUICK)
    assert (np.diff(y) >= 0).all() and y[-1] == 1 and (low <= y + 1e-9).all() and (y <= high + 1e-9).all()
    area = np.sum((y[1:] + y[:-1]) / 2 * np.diff(x))
    assert area == pytest.approx(roc_auc_score(labels == 2, softmax(logits)[:, 2]), abs=0.01)


def test_nothing_about_positive_classes_where_none_is_marked(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.parquet", rows(np.random.default_rng(0), classes=TWO_UNMARKED), TWO_UNMARKED)
    report = evaluate_predictions(tmp_path / "p.parquet", **QUICK)
    assert "operating" not in report.metrics and tables.operating_rows(report.metrics) == []
    assert "roc_positive" not in [file.stem for file in write_plots(report, tmp_path)]


def test_few_test_groups_are_said(tmp_path: Path) -> None:
    made = rows(np.random.default_rng(0), groups=12)
    write_predictions(tmp_path / "p.parquet", [row for row in made if row["label"] == "malignant"], THREE)
    block = evaluate_predictions(tmp_path / "p.parquet", **QUICK).metrics["operating"]
    assert block["slices"]["auroc"]["value"] is None and len(block["cautions"]) == 3
    assert "Only 0 test groups are without a positive class" in block["cautions"][2]


def test_damaged_cuts_are_one_sentence(stored: tuple[Path, Calibration], tmp_path: Path) -> None:
    record = stored[1].to_json()
    for damage in ([{"name": "specificity-90", "threshold": 0.5}], [{"name": "x"}], 7):
        with pytest.raises(LungCTError, match="calibration in lungct.json cannot be read"):
            Calibration.from_json(record | {"operating": damage})
    made = [row | {"thresholds": [0.5]} for row in rows(np.random.default_rng(0), groups=9)]
    write_predictions(tmp_path / "p.parquet", made, THREE)
    with pytest.raises(LungCTError, match="1 thresholds in a row, not 4"):
        evaluate_predictions(tmp_path / "p.parquet")
