"""Verification needs only the repo, says yes to what a release published, and no to whatever was changed in it."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from command_here import run_here
from helpers import run
from lungct_hf.cohort import Split
from lungct_hf.decision import AbstainRule, Calibration, decide
from lungct_hf.evaluation import write_predictions
from lungct_hf.files import write_json
from lungct_hf.hub import ModelRepo, author_text, write_card
from lungct_hf.known_sets import schema_1_classes
from lungct_hf.release.attestation import write_attestation
from lungct_hf.release.evidence import (
    card_reasons,
    eval_results_reasons,
    metrics_reasons,
    read_evidence,
    rule_reasons,
)
from lungct_hf.release.record import content_hash, file_hashes, write_record
from lungct_hf.release.verify import verify
from release_runs import write_run

LUNGCT = str(Path(sys.executable).with_name("lungct"))
REPO = "alice/lung"


def false(folder: Path) -> set[str]:
    """What is false beside the seal, which whoever changes a file breaks (test_seal.py)."""
    return {reason.code for reason in verify(str(folder)).false} - {"seal-broken"}


def rewrite_record(folder: Path) -> None:
    """What a careful forger does last: the record of the files' hashes."""
    write_attestation(folder)
    repo = ModelRepo(folder)
    files = file_hashes(repo)
    write_record(folder, (repo.release or {}) | {"files": files, "content": content_hash(repo, files)})


def test_what_a_release_wrote_is_true_without_the_data(sealed: Path) -> None:
    found = verify(str(sealed))
    assert not found.false and len(found.held) == 13, found
    assert any(line.startswith("onnx, lungct_hf, timm, transformers give") for line in found.held)
    assert "no group has slices both in test and outside it" in found.held


def test_the_command_lists_what_is_false(published: Path) -> None:
    card = (published / "README.md").read_text()
    (published / "README.md").write_text(card.replace("MobileNetV2", "MobileNetV3", 1))
    done = run([LUNGCT, "verify", str(published), "--json"])
    found = json.loads(done.stdout)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert found["verified"] is False and [row["code"] for row in found["false"]] == ["seal-broken", "card-mismatch"]


def test_a_run_that_was_not_released_can_be_checked_as_well(clean_run: Path) -> None:
    found = verify(str(clean_run))
    assert not found.false and any("No release" in note for note in found.notes)


def test_any_digit_of_the_card_counts(published: Path) -> None:
    card = (published / "README.md").read_text()
    start = card.index("<!-- author:start -->")
    places = [match.start() for match in re.finditer(r"\d", card[:start])]
    for place in np.random.default_rng(0).choice(places, 25, replace=False).tolist():
        other = str((int(card[place]) + 1) % 10)
        (published / "README.md").write_text(card[:place] + other + card[place + 1 :])
        assert card_reasons(ModelRepo(published), [REPO]), card[place - 30 : place + 30]
    (published / "README.md").write_text(card.replace("\n", "\r\n"))
    assert not card_reasons(ModelRepo(published), [REPO])  # a Windows editor changes no claim


def test_the_authors_own_words_are_theirs(published: Path) -> None:
    card = (published / "README.md").read_text()
    (published / "README.md").write_text(card.replace("<!-- author:end -->", "We saw 99.9 %.\n<!-- author:end -->"))
    assert "99.9" in author_text((published / "README.md").read_text()) and not card_reasons(
        ModelRepo(published), [REPO]
    )
    (published / "README.md").unlink()
    assert card_reasons(ModelRepo(published), [REPO])


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in leaves(inner, (*path, key))]
    if isinstance(value, list):
        return [leaf for key, inner in enumerate(value) for leaf in leaves(inner, (*path, key))]
    return [path] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


def test_any_figure_of_metrics_json_counts(published: Path) -> None:
    path = published / "evaluation" / "metrics.json"
    stored = json.loads(path.read_text())
    skipped = {("bootstrap", "replicates"), ("bootstrap", "seed")}  # how it is drawn, not what comes out
    found = [leaf for leaf in leaves(stored) if leaf not in skipped]
    assert len(found) > 200
    for place in np.random.default_rng(1).choice(len(found), 12, replace=False).tolist():
        changed = json.loads(json.dumps(stored))
        inner = changed
        for key in found[place][:-1]:
            inner = inner[key]
        value = inner[found[place][-1]]
        step = 2e-4 if found[place][-1] == "undefined" else 1e-5  # a share of draws is stored with four decimals
        inner[found[place][-1]] = value + 1 if isinstance(value, int) else value + step
        write_json(path, changed)
        assert metrics_reasons(read_evidence(ModelRepo(published))), found[place]


def test_abstentions_must_be_what_the_rule_decides(published: Path) -> None:
    predictions, contract = published / "evaluation" / "predictions.parquet", published / "lungct.json"
    rows, record = pq.read_table(predictions).to_pylist(), json.loads(contract.read_text())
    for number, row in enumerate(rows):
        row["split"] = "validation" if number % 3 else "test"
        row["logits"] = np.roll(
            [4.0 if number % 4 else 0.1, 0, 0], schema_1_classes().index(row["label"]) + (number % 7 == 1)
        )
    rule = AbstainRule(min_confidence=0.7)
    decided = decide(
        Calibration(folded=True, abstain=rule), schema_1_classes(), np.array([row["logits"] for row in rows])
    )
    held_out = [(row, one) for row, one in zip(rows, decided, strict=True) if row["split"] == "validation"]
    answered = [(row, one) for row, one in held_out if one.label]
    wrong = sum(row["label"] != one.label for row, one in answered)
    assert 1 < wrong < len(answered) < len(held_out) - 1

    def reasons(coverage: float, error: float, *, turned: int | None = None) -> list[str]:
        promised = replace(rule, expected_coverage=coverage, expected_error=error)
        stored = Calibration(folded=True, abstain=promised).to_json()
        write_json(contract, record | {"calibration": stored})
        kept = [row | {"abstained": one.reason or ""} for row, one in zip(rows, decided, strict=True)]
        if turned is not None:
            kept[turned]["abstained"] = "" if kept[turned]["abstained"] else "low-confidence"
        write_predictions(predictions, kept, schema_1_classes())
        return [reason.code for reason in rule_reasons(read_evidence(ModelRepo(published)))]

    coverage, error = len(answered) / len(held_out), wrong / len(answered)
    assert reasons(coverage, error) == []
    for turned in (0, len(rows) - 1):
        assert reasons(coverage, error, turned=turned) == ["calibration-mismatch"]
    assert reasons(coverage, 0.0) == reasons(coverage, error - 1 / len(answered)) == ["calibration-mismatch"]
    assert reasons(1.0, error) == ["calibration-mismatch"]


def test_a_figure_that_was_left_out_or_put_in_counts(published: Path) -> None:
    path = published / "evaluation" / "metrics.json"
    stored = json.loads(path.read_text())
    write_json(path, {key: value for key, value in stored.items() if key != "baselines"})
    assert metrics_reasons(read_evidence(ModelRepo(published)))
    write_json(path, stored | {"external_test": {"accuracy": 1.0}})
    assert metrics_reasons(read_evidence(ModelRepo(published)))


def test_forged_evidence_is_found_even_with_everything_around_it_made_to_fit(published: Path) -> None:
    """metrics.json made better, then card, results and hashes from it: the predictions still say otherwise."""
    from lungct_hf.hub import write_eval_results

    path = published / "evaluation" / "metrics.json"
    stored = json.loads(path.read_text())
    stored["test"]["balanced_accuracy"] = stored["test"]["intervals"]["balanced_accuracy"]["value"] = 0.999
    write_json(path, stored)
    write_eval_results(published)
    rewrite_record(published)
    write_card(published, REPO)
    assert false(published) == {"metrics-mismatch"}


def test_eval_results_must_be_those_of_the_metrics(published: Path) -> None:
    path = published / ".eval_results" / "lungct.yaml"
    entries = yaml.safe_load(path.read_text())
    entries[0]["value"] = 0.99
    path.write_text(yaml.safe_dump(entries))
    assert eval_results_reasons(ModelRepo(published))
    path.unlink()
    assert eval_results_reasons(ModelRepo(published))


def test_swapped_rows_of_the_predictions_are_found(published: Path) -> None:
    path = published / "evaluation" / "predictions.parquet"
    rows = pq.read_table(path).to_pylist()
    one, other = [
        next(i for i, r in enumerate(rows) if r["split"] == "test" and r["label"] == c) for c in ("normal", "benign")
    ]
    for column in ("logits", "label", "sha256"):
        swapped = [dict(row) for row in rows]
        swapped[one][column], swapped[other][column] = rows[other][column], rows[one][column]
        write_predictions(path, swapped, schema_1_classes())
        rewrite_record(published)
        assert false(published) & {"metrics-mismatch", "split-mismatch"}, column


def test_a_tampered_split_is_found(published: Path) -> None:
    path = published / "evaluation" / "split.csv"
    split = Split.read(path)
    test = np.flatnonzero(split.split == "test")
    split.split[test[0]] = "train"
    split.write_csv(path)  # its check digits are right again
    rewrite_record(published)
    assert {"split-mismatch", "groups-across-split"} <= false(published)
    path.write_text(path.read_text().replace(",train,", ",test,", 1))
    assert "metrics-mismatch" in false(published)  # this time the check digits of the row are not


def test_other_weights_are_found_by_their_hash_and_by_their_answers(published: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", seed=9) / "model"
    shutil.copy(other / "model.safetensors", published / "model.safetensors")
    assert false(published) == {"file-changed", "content-changed", "loader-mismatch"}
    rewrite_record(published)
    write_card(published, REPO)
    assert false(published) == {"loader-mismatch"}


def test_canaries_cannot_be_changed_or_left_out(published: Path) -> None:
    path = published / "canaries" / "canaries.json"
    record = json.loads(path.read_text())
    record["slices"][0]["logits"][0] += 0.01
    write_json(path, record)
    rewrite_record(published)
    assert false(published) == {"loader-mismatch"}
    shutil.rmtree(published / "canaries")
    rewrite_record(published)
    assert false(published) == {"canary-changed"}


def test_persons_are_looked_for_without_evidence_as_well(published: Path) -> None:
    (published / "DOE_JANE.txt").write_text("x")
    (published / "evaluation" / "predictions.parquet").unlink()
    found = verify(str(published))
    assert "patient-data" in {reason.code for reason in found.false}
    assert any("none was taken for a pickle" in line for line in found.recomputed)
    assert not any("person's name" in line for line in found.held)


def test_persons_that_the_author_let_through_are_a_note(published: Path) -> None:
    (published / "DOE_JANE.txt").write_text("x")
    allowed = [{"code": "patient-data", "sentence": "the path DOE_JANE.txt looks like a person's name"}]
    write_record(published, (ModelRepo(published).release or {}) | {"allowed": allowed})
    found = verify(str(published))
    assert "patient-data" not in {reason.code for reason in found.false}
    assert any("let it through" in note and "DOE_JANE" in note for note in found.notes)
    assert not any("person's name" in line for line in found.held)


@pytest.mark.parametrize("name", ["evaluation/roc.png", "onnx/model.onnx", "evaluation/more.parquet"])
def test_files_that_were_changed_or_added_are_found(published: Path, name: str) -> None:
    (published / name).write_bytes(b"something else")
    assert "file-changed" in false(published)


def test_what_is_no_model_is_one_sentence(tmp_path: Path) -> None:
    for target in (str(tmp_path), str(tmp_path / "nothing"), "not a name"):
        code, said = run_here(["verify", target], tmp_path, {})
        assert code in (1, 2) and said.startswith("error: ") and "Traceback" not in said
