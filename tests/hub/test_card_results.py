"""The results on a card: the grouped figure first, and beside it all that a reader needs to judge it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from huggingface_hub import ModelCard
from samples import LUNGCT, write_model

from lungct_hf.decision import AbstainRule, Calibration
from lungct_hf.evaluation import evaluate_predictions, write_predictions
from lungct_hf.hub import render_card, write_eval_results
from lungct_hf.known_sets import schema_1_classes

LABELS = schema_1_classes().names


def full_metrics(tmp_path: Path, calibration: Calibration | None = None) -> dict:
    """metrics.json of predictions under two protocols with both baselines, where the model is good and 1-NN is not."""
    rng, rows = np.random.default_rng(0), []
    for protocol, signal in (("linked", 1.0), ("image", 4.0)):
        for i in range(180):
            label = i % 3
            wrong = LABELS[(label + 1) % 3]
            right = rng.random(2) < (0.4, 0.5) if protocol == "linked" else (True, True)
            logits = rng.normal(size=3) + signal * 2 * np.eye(3)[label]
            rows.append(
                {"id": f"{protocol}{i}", "sha256": f"{i:064d}", "group": f"g{i % 60}", "split": "test", "fold": 0}
                | {
                    "label": LABELS[label],
                    "protocol": protocol,
                    "logits": logits.tolist(),
                    "raw_logits": (2 * logits).tolist(),
                }
                | {"nearest_neighbour": LABELS[label] if right[0] else wrong}
                | {"ring_nearest_neighbour": LABELS[label] if right[1] else wrong}
            )
    path = tmp_path / "predictions.parquet"
    write_predictions(path, rows, schema_1_classes())
    split = {"protocol": "grouped", "grouping": "linked", "hash": "5" * 64, "groups_crossing": 0}
    return evaluate_predictions(path, split=split, calibration=calibration, replicates=200).metrics


def test_the_grouped_result_comes_first_with_everything_beside_it(tmp_path: Path):
    rule = AbstainRule(min_confidence=0.6, target_error=0.05, target_met=True)
    calibration = Calibration(2.0, folded=True, abstain=rule, fitted_on={"slices": 90, "groups": 30})
    metrics = full_metrics(tmp_path, calibration)
    folder = write_model(tmp_path / "m", LUNGCT | {"calibration": calibration.to_json()}, metrics)
    (folder / "evaluation" / "roc.png").write_bytes(b"png")
    card = render_card(folder)
    results = card[card.index("## Results") : card.index("## How to use it")]
    test = metrics["test"]

    def shown(block: dict, figure: str = "balanced_accuracy") -> str:
        value, low, high = (100 * block["intervals"][figure][end] for end in ("value", "low", "high"))
        return f"{value:.1f} % [{low:.1f}, {high:.1f}]"

    first = results.strip().splitlines()[2]
    assert first.startswith(f"**Balanced accuracy {shown(test)}** on 180 slices from 60 groups, grouped split")
    image = metrics["other_protocols"]["image"]
    for block in (test["cases"], image["test"], *metrics["baselines"].values(), *image["baselines"].values()):
        assert shown(block) in results
    lines = results.splitlines()
    order = [i for i, line in enumerate(lines) if line.startswith(("| **this model**", "| this model (image-level"))]
    assert len(order) == 3 and "outer ring only" in results and results.count("The model adds") == 2
    gap = metrics["leak_gap"]["model"]["balanced_accuracy"]
    assert f"this model: {100 * gap['value']:.1f} points [{100 * gap['low']:.1f}, " in results
    assert f"{test['uncalibrated']['ece']:.3f} before and {test['ece']:.3f}" in results
    coverage, error = (100 * test["abstention"][name]["value"] for name in ("coverage", "error"))
    assert f"it answered {coverage:.1f} % [" in results and f"{error:.1f} % [" in results
    assert "at most 5.0 % wrong" in results and "this was met" in results and "5" * 64 in results
    assert "![ROC curve of each class against the others](evaluation/roc.png)" in results
    assert results.count("![") == 1 and "model.decide" in card and "not calibrated" not in card
    assert "No interval is given" not in card and "200 bootstrap draws" in results
    values = {r.metric_type: r.metric_value for r in ModelCard(card).data.eval_results}
    assert values["balanced_accuracy"] == round(test["balanced_accuracy"], 4)
    assert "95 % interval" in write_eval_results(folder).read_text()
    for table in re.findall(r"(?:^\|.*\n)+", card, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1, table
    assert "\n\n\n" not in card


def test_a_card_without_a_calibration_says_so(tmp_path: Path):
    card = render_card(write_model(tmp_path))
    assert "They are not calibrated" in card and "model.decide" not in card and "No interval is given" in card


def test_a_target_that_was_missed_is_said(tmp_path: Path):
    rule = AbstainRule(min_confidence=0.9, target_error=0.05, target_met=False)
    record = Calibration(1.5, folded=True, abstain=rule, fitted_on={"slices": 9, "groups": 3}).to_json()
    assert "**not met**" in render_card(write_model(tmp_path, LUNGCT | {"calibration": record}))
