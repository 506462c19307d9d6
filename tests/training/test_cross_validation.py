"""--folds: every fold is a run like any other, and the published model says that its figures are the folds'."""

import csv
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from helpers import LABELS, ROOT, TINY, run, train, train_command, write_cohort
from lungct_hf import LungCTClassifier
from lungct_hf.cohort import load_cohort
from lungct_hf.errors import UsageError
from lungct_hf.evaluation import VIEWS, evaluate_predictions, fit_temperatures, read_predictions, score
from lungct_hf.fit.cross_validation import check_folds
from lungct_hf.fit.options import parse_options
from lungct_hf.hub.results import neutral_sentences
from lungct_hf.known_sets import schema_1_classes

RECIPES = ROOT / "training" / "recipes"

FLAGS = [*TINY, "--epochs", "2", "--folds", "3", "--seeds", "4,1"]
RUNS = [(seed, fold) for seed in (4, 1) for fold in range(3)]

LEVELS = "equal_histogram_nearest_neighbour"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("data") / "clinic", patients=4, slices=3)


@pytest.fixture(scope="module")
def finished(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("runs") / "crossed"
    done = train("--data", cohort, "--output-dir", folder, *FLAGS)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


def test_every_slice_is_tested_once_per_seed_with_baselines_beside_it(finished: tuple[Path, str]) -> None:
    folder = finished[0]
    table, labels, logits = read_predictions(folder / "evaluation" / "predictions.parquet")
    keys = list(zip(table["seed"].to_pylist(), table["id"].to_pylist(), strict=True))
    assert len(keys) == len(set(keys)) == 2 * 3 * 4 * 3
    assert set(table["protocol"].to_pylist()) == {"column:patient_id"} and set(table["split"].to_pylist()) == {"test"}
    metrics = read_json(folder / "evaluation" / "metrics.json")
    assert metrics["test"]["confusion_matrix"] == score(labels, logits, schema_1_classes())["confusion_matrix"]
    assert [(row["seed"], row["fold"]) for row in metrics["test"]["folds"]] == sorted(RUNS)
    for name in VIEWS:
        named = np.array(table[name].to_pylist()) == np.array(table["label"].to_pylist())
        assert metrics["baselines"][name]["accuracy"] == pytest.approx(named.mean())
        assert metrics["baselines"][name]["intervals"]["balanced_accuracy"]["low"] is not None
    assert len(list((folder / "evaluation").glob("*.png"))) == 7
    calibration = LungCTClassifier.from_pretrained(folder / "model").contract.calibration
    predictions = folder / "evaluation" / "predictions.parquet"
    again = evaluate_predictions(predictions, split=metrics["split"], calibration=calibration).metrics
    assert again == {name: value for name, value in metrics.items() if name != "evidence"}


def test_the_pooled_rows_are_those_of_the_folds(finished: tuple[Path, str]) -> None:
    folder = finished[0]
    pooled, _, _ = read_predictions(folder / "evaluation" / "predictions.parquet")
    of = {(row["seed"], row["id"]): row["logits"] for row in pooled.to_pylist()}
    for seed, fold in RUNS:
        table, _, _ = read_predictions(folder / f"seed-{seed}/fold-{fold}/model/evaluation/predictions.parquet")
        tested = [row for row in table.to_pylist() if row["split"] == "test"]
        assert len(tested) >= 9 and all(of[seed, row["id"]] == row["logits"] for row in tested)


def test_a_fold_is_the_same_run_alone(finished: tuple[Path, str], cohort: Path, tmp_path: Path) -> None:
    flags = [*TINY, "--epochs", "2", "--seed", "1", "--fold", "2", "--fold-count", "3"]
    done = train("--data", cohort, "--output-dir", tmp_path / "alone", *flags)
    assert done.returncode == 0, done.stderr
    assert weights(tmp_path / "alone") == weights(finished[0] / "seed-1" / "fold-2")


def test_the_published_model_is_trained_on_everything_and_says_so(finished: tuple[Path, str]) -> None:
    model = finished[0] / "model"
    with (model / "evaluation" / "split.csv").open(newline="") as handle:
        assert {row["split"] for row in csv.DictReader(handle)} == {"train"}
    provenance = read_json(model / "lungct.json")["provenance"]
    best = sorted(read_json(model / "evaluation" / "metrics.json")["evidence"]["best_epochs"])
    assert len(best) == 6 and provenance["training"]["epochs"] == best[3]
    metrics = read_json(model / "evaluation" / "metrics.json")
    assert metrics == read_json(finished[0] / "evaluation" / "metrics.json")
    assert metrics["evidence"]["kind"] == "cross-validated"
    card = (model / "README.md").read_text()
    assert metrics["evidence"]["sentence"] in card and "3-fold cross-validation (seeds 4, 1)" in card
    assert "median of the folds' best" in card and "is the test fold" not in card
    entries = yaml.safe_load((model / ".eval_results" / "lungct.yaml").read_text())
    assert all("cross-validated" in entry["notes"] for entry in entries)


def test_evaluate_agrees_and_knows_that_every_slice_was_trained_on(finished: tuple[Path, str], cohort: Path) -> None:
    lungct = [sys.executable, "-m", "lungct_hf.cli"]
    done = run([*lungct, "evaluate", "--model", str(finished[0])])
    assert done.returncode == 0 and "follow from its predictions" in done.stdout, done.stdout + done.stderr
    done = run([*lungct, "evaluate", "--model", str(finished[0]), "--data", str(cohort)])
    assert done.returncode == 1 and "nothing to judge it on" in " ".join(done.stderr.split())


def test_the_terminal_shows_intervals_and_baselines(finished: tuple[Path, str]) -> None:
    said = finished[1]
    assert re.search(r"model +\d+\.\d \[\d+\.\d, \d+\.\d\]", said)
    assert "1-NN, thumbnails" in said and "1-NN, ring only" in said and "6 test folds pooled, 2 seeds" in said
    assert f"Model: {finished[0] / 'model'}" in said and "Not a medical device" in said


def test_the_published_model_is_calibrated_on_the_folds_validation_groups(finished: tuple[Path, str]) -> None:
    record = read_json(finished[0] / "model" / "lungct.json")["calibration"]
    assert record["fitted_on"] == {"slices": 72, "groups": 12}
    rows = []
    for seed, fold in RUNS:
        path = finished[0] / f"seed-{seed}/fold-{fold}/model/evaluation/predictions.parquet"
        rows += [row for row in read_predictions(path)[0].to_pylist() if row["split"] == "validation"]
    raw = np.array([row["raw_logits"] for row in rows])
    labels = np.array([LABELS.index(row["label"]) for row in rows])
    groups = np.array([row["group"] for row in rows])
    wanted = fit_temperatures(raw, labels, groups, classes=schema_1_classes())
    assert (record["temperature"], record["within_temperature"]) == pytest.approx(wanted[:2], rel=1e-5)
    assert record["blocks"] == [list(block) for block in wanted.blocks]
    assert record["folded_into_weights"]
    assert record["abstain"]["distance"] is not None
    classifier = LungCTClassifier.from_pretrained(finished[0] / "model")
    decided = classifier.predict([Image.new("RGB", (72, 72), "red")] * 2, force=True)
    assert decided[0].distance is not None and decided[0].distance > 0


def test_the_model_is_asked_about_the_ring_alone(finished: tuple[Path, str]) -> None:
    table, _, logits = read_predictions(finished[0] / "evaluation" / "predictions.parquet")
    ring = np.array(table["ring_logits"].to_pylist())
    assert ring.shape == logits.shape and np.isfinite(ring).all() and not np.array_equal(ring, logits)
    assert "model, ring only" in finished[1]


def test_the_model_is_asked_where_grey_levels_or_texture_are_equal(finished: tuple[Path, str]) -> None:
    table, _, logits = read_predictions(finished[0] / "evaluation" / "predictions.parquet")
    card, metrics = finished[0] / "model" / "README.md", read_json(finished[0] / "model" / "evaluation/metrics.json")
    for name in ("equal_histogram", "equal_texture"):
        seen = np.array(table[f"{name}_logits"].to_pylist())
        assert seen.shape == logits.shape and np.isfinite(seen).all() and not np.array_equal(seen, logits)
        right = seen.argmax(axis=1) == np.array([LABELS.index(label) for label in table["label"].to_pylist()])
        assert metrics["neutral"][name]["accuracy"] == pytest.approx(right.mean())
    beside = metrics["neutral"]["equal_histogram"]["histogram"]
    named = [one == two for one, two in zip(*(table[c].to_pylist() for c in (LEVELS, "label")), strict=True)]
    assert beside["accuracy"] == pytest.approx(np.mean(named))
    for line in neutral_sentences(metrics):
        assert line in card.read_text(encoding="utf-8")
    assert finished[1].count("in every slice: balanced accuracy") == 2


@pytest.mark.slow
def test_leak_gap_refit_and_rotated_validation(cohort: Path, tmp_path: Path) -> None:
    folder = tmp_path / "both"
    flags = [*TINY, "--epochs", "2", "--folds", "3", "--leak-gap", "--refit", "--rotate-validation"]
    done = train("--data", cohort, "--output-dir", folder, *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = read_json(folder / "evaluation" / "metrics.json")
    assert set(metrics["other_protocols"]) == {"image"} and metrics["protocol"] == "column:patient_id"
    assert metrics["leak_gap"]["model"]["balanced_accuracy"]["value"] == pytest.approx(
        metrics["other_protocols"]["image"]["test"]["balanced_accuracy"] - metrics["test"]["balanced_accuracy"]
    )
    for place in ("seed-0", "image/seed-0"):
        record = read_json(folder / place / "fold-0" / "model" / "lungct.json")["provenance"]["training"]
        assert "trained anew" in record["chosen_by"] and record["epochs"] == record["best_epoch"]
        for part in ("turn-1", "refit"):
            assert list((folder / place / "fold-0" / part / "checkpoints").glob("step-*.pt"))
        # every slice outside the test fold was answered once by a network that had not seen it, and calibrates
        table, _, _ = read_predictions(folder / place / "fold-0" / "model" / "evaluation" / "predictions.parquet")
        assert len(set(table["id"].to_pylist())) == len(table) == 36
        fitted = read_json(folder / place / "fold-0" / "model" / "lungct.json")["calibration"]["fitted_on"]
        assert fitted["slices"] == table["split"].to_pylist().count("validation") == 24
    done = train("--resume", folder)
    assert done.returncode == 0 and "is finished" in done.stdout
    with pytest.raises(UsageError, match="--rotate-validation needs --refit"):
        parse_options(["--rotate-validation"], RECIPES, "")
    with pytest.raises(UsageError, match="--leak-gap belongs"):
        parse_options(["--leak-gap"], RECIPES, "")
    with pytest.raises(UsageError, match="--split linked"):
        parse_options(["--leak-gap", "--folds", "3", "--split", "image"], RECIPES, "")


def test_the_results_page_takes_its_figures_from_the_run_and_keeps_other_runs(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    folder, page = finished[0], tmp_path / "page.md"
    script = [sys.executable, str(ROOT / "benchmarks" / "results.py"), str(page)]
    earlier = "### `earlier`: linked\n\nWhat stood here."
    page.write_text(f"# Page\n\n<!-- results:start -->\n\n{earlier}\n\n<!-- results:end -->\n\n## After\n")
    assert run([*script, str(folder)]).returncode == 0
    once = page.read_text()
    metrics = read_json(folder / "evaluation" / "metrics.json")
    assert f"accuracy **{metrics['test']['mean_of_folds']['accuracy']:.2%}**" in once
    assert once.index(earlier) < once.index("### `crossed`") < once.index("<!-- results:end -->")
    assert once.startswith("# Page") and once.endswith("## After\n")
    assert len(list((tmp_path / "page").glob("crossed-*.png"))) == 4
    assert run([*script, str(folder)]).returncode == 0 and page.read_text() == once
    missing = run([*script, str(tmp_path / "nothing")])
    assert missing.returncode == 2 and "Fix: name the run" in missing.stderr and page.read_text() == once


def test_a_finished_cross_validation_is_left_alone(finished: tuple[Path, str]) -> None:
    before = weights(finished[0])
    done = train("--resume", finished[0])
    assert done.returncode == 0 and "is finished" in done.stdout and weights(finished[0]) == before
    with pytest.raises(UsageError, match=r"--seeds \[0\] contradicts"):
        parse_options(["--resume", str(finished[0]), "--seeds", "0"], RECIPES, "")


def test_data_that_name_their_test_set_have_no_folds(tmp_path: Path) -> None:
    write_cohort(tmp_path / "data" / "train", patients=4)
    write_cohort(tmp_path / "data" / "test", patients=2, seed=1)
    cohort = load_cohort(str(tmp_path / "data"))
    for flags in (["--folds", "3"], ["--folds", "3", "--split", "given"], ["--folds", "3", "--split", "list.csv"]):
        with pytest.raises(UsageError, match="cannot take turns"):
            check_folds(parse_options([*flags, "--output-dir", str(tmp_path / "run")], RECIPES, ""), cohort)
    check_folds(parse_options(["--folds", "3", "--split", "image"], RECIPES, ""), cohort)


@pytest.mark.slow
def test_killed_in_the_second_fold_and_resumed_loses_nothing(
    finished: tuple[Path, str], cohort: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "crossed"
    flags = ["--data", cohort, "--output-dir", folder, *FLAGS]
    process = start(*flags)
    wait_for(folder / "seed-4" / "fold-1" / "checkpoints", process)
    process.kill()
    process.wait()
    kept = weights(folder / "seed-4" / "fold-0")
    assert not (folder / "model").exists()
    done = train("--resume", folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("This fold is finished.") >= 1
    assert weights(folder / "seed-4" / "fold-0") == kept
    assert weights(folder) == weights(finished[0])
    metrics = [read_json(path / "evaluation" / "metrics.json") for path in (folder, finished[0])]
    assert metrics[0] == metrics[1]
    assert not [path for path in folder.rglob("*") if path.name.endswith(".tmp")]


@pytest.mark.slow
def test_killed_again_and_again_and_stopped_politely(finished: tuple[Path, str], cohort: Path, tmp_path: Path) -> None:
    folder = tmp_path / "crossed"
    for place in ("seed-4/fold-1", "seed-4/fold-2", "seed-1/fold-1", "."):
        process = start("--data", cohort, "--output-dir", folder, "--resume", *FLAGS)
        wait_for(folder / place / "checkpoints", process)
        if place == "seed-4/fold-2":
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=100)
            assert f"--resume {folder}" in said or process.returncode == 0
        else:
            process.kill()
            process.wait()
    done = train("--resume", folder)
    assert done.returncode == 0, done.stderr
    assert weights(folder) == weights(finished[0])


@pytest.mark.slow
def test_two_processes_go_through_the_folds_together(cohort: Path, tmp_path: Path) -> None:
    torchrun = [str(Path(sys.executable).with_name("torchrun")), "--nproc_per_node", "2", *train_command()[1:]]
    flags = [*TINY, "--epochs", "2", "--folds", "3", "--batch-size", "4"]
    done = run([*torchrun, "--data", str(cohort), "--output-dir", str(tmp_path / "two"), *flags])
    assert done.returncode == 0, done.stderr
    provenance = read_json(tmp_path / "two" / "model" / "lungct.json")["provenance"]
    assert provenance["training"]["processes"] == 2
    table, _, _ = read_predictions(tmp_path / "two" / "evaluation" / "predictions.parquet")
    assert table.num_rows == len(set(table["id"].to_pylist())) == 36


def start(*flags: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(train_command(*flags), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(checkpoints: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        if list(checkpoints.glob("step-*.pt")):
            return
        time.sleep(0.01)
    raise AssertionError(f"no checkpoint in {checkpoints}: {process.communicate()[0]}")
