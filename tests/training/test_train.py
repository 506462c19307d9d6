"""The real training script, run as users run it, on a tiny cohort."""

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from helpers import TINY, chances, run, train, train_command, write_cohort
from lungct_hf import LungCTClassifier
from lungct_hf.evaluation import evaluate_predictions, fit_temperatures, read_predictions, score, uncalibrated_logits
from lungct_hf.evaluation.metrics import softmax
from lungct_hf.known_sets import schema_1_classes


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("data") / "clinic", patients=6, slices=3, ragged=2)


@pytest.fixture(scope="module")
def finished(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run through `accelerate launch`, and what it printed."""
    run_dir = tmp_path_factory.mktemp("runs") / "first"
    launch = [str(Path(sys.executable).with_name("accelerate")), "launch", *train_command()[1:]]
    done = run([*launch, "--data", str(cohort), "--output-dir", str(run_dir), *TINY, "--epochs", "2"])
    assert done.returncode == 0, done.stderr
    return run_dir, done.stdout


def test_the_model_repo_is_whole_and_nothing_else(finished: tuple[Path, str]) -> None:
    model = finished[0] / "model"
    files = sorted(str(path.relative_to(model)) for path in model.rglob("*") if path.is_file())
    assert files == [
        ".eval_results/lungct.yaml",
        "README.md",
        "config.json",
        "evaluation/comparison.png",
        "evaluation/confusion.png",
        "evaluation/metrics.json",
        "evaluation/precision_recall.png",
        "evaluation/predictions.parquet",
        "evaluation/reliability.png",
        "evaluation/risk_coverage.png",
        "evaluation/roc.png",
        "evaluation/roc_positive.png",
        "evaluation/split.csv",
        "lungct.json",
        "model.safetensors",
        "onnx/model.onnx",
    ]


def test_the_terminal_says_where_the_model_is_and_what_comes_next(finished: tuple[Path, str]) -> None:
    run_dir, said = finished
    assert f"Model: {run_dir / 'model'}" in said
    assert f"lungct demo {run_dir / 'model'}" in said and f"lungct push {run_dir / 'model'}" in said
    assert "1-NN, thumbnails" in said and "1-NN, ring only" in said and "Not a medical device" in said
    table = said[said.index("test fold, %") : said.index("Research only")]
    assert max(map(len, table.splitlines())) <= 80


def test_every_figure_is_recomputed_from_the_predictions(finished: tuple[Path, str], cohort: Path) -> None:
    model = finished[0] / "model"
    metrics = json.loads((model / "evaluation" / "metrics.json").read_text())
    table, labels, logits = read_predictions(model / "evaluation" / "predictions.parquet")
    splits = np.array(table["split"].to_pylist())
    for name in ("test", "validation"):
        rows = splits == name
        for key, value in score(labels[rows], logits[rows], schema_1_classes()).items():
            if key == "per_class":
                for label, figures in value.items():
                    assert {k: metrics[name][key][label][k] for k in figures} == pytest.approx(figures), label
            else:
                assert metrics[name][key] == (value if key == "confusion_matrix" else pytest.approx(value)), key
    calibration = LungCTClassifier.from_pretrained(model).contract.calibration
    again = evaluate_predictions(table, split=metrics["split"], calibration=calibration).metrics
    assert json.loads(json.dumps(again)) == metrics
    # and the stored logits are those of the published weights
    paths = [cohort / name for name in table["id"].to_pylist()]
    assert chances(LungCTClassifier.from_pretrained(model).predict(paths, force=True)) == pytest.approx(
        softmax(logits), abs=1e-5
    )


def test_no_group_is_on_two_sides_and_every_slice_is_on_one(finished: tuple[Path, str]) -> None:
    with (finished[0] / "model" / "evaluation" / "split.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len({row["id"] for row in rows}) == len(rows) == 3 * (6 * 3 + 2)
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row["group"], set()).add(row["split"])
    assert all(len(found) == 1 for found in sides.values()) and len(sides) == 18
    assert {row["split"] for row in rows} == {"train", "validation", "test"}


def test_the_contract_tells_where_it_comes_from_and_nothing_about_this_machine(
    finished: tuple[Path, str], cohort: Path
) -> None:
    model = finished[0] / "model"
    provenance = json.loads((model / "lungct.json").read_text())["provenance"]
    assert provenance["init"] == {"kind": "random", "source": None, "sha256": None}
    assert provenance["data"]["source"] == "clinic" and provenance["data"]["slices"] == 60
    assert provenance["recipe"]["epochs"] == 2 and provenance["training"]["processes"] == 1
    assert re.fullmatch("[0-9a-f]{64}", provenance["split"]["hash"])
    for path in model.rglob("*"):
        if path.is_file():
            assert str(cohort.parent).encode() not in path.read_bytes(), path


def test_the_calibration_is_in_the_weights_and_decides_as_stored(finished: tuple[Path, str], cohort: Path) -> None:
    model = finished[0] / "model"
    classifier = LungCTClassifier.from_pretrained(model)
    calibration = classifier.contract.calibration
    assert calibration is not None and calibration.folded and calibration.not_fitted is None
    rule = calibration.abstain
    assert rule is not None and rule.distance is not None
    table, labels, logits = read_predictions(model / "evaluation" / "predictions.parquet")
    sides = np.array(table["split"].to_pylist())
    held_out = sides == "validation"
    groups = np.array(table["group"].to_pylist())
    assert calibration.fitted_on == {"slices": held_out.sum(), "groups": len(set(groups[held_out]))}
    # refitted from the stored validation rows alone
    before = uncalibrated_logits(table)
    assert before is not None
    refitted = fit_temperatures(
        before[held_out], labels[held_out], groups[held_out], classes=classifier.contract.classes
    )
    assert refitted[:2] == pytest.approx((calibration.temperature, calibration.within_temperature), rel=1e-3)
    assert refitted.blocks == calibration.blocks
    pictures = [Image.open(cohort / name) for name in table["id"].to_pylist()]
    outputs = classifier.predict_images(classifier.preprocessing.squares(pictures))
    decisions = classifier.decide(outputs[0], outputs[1])
    for decision, reason in zip(decisions, table["abstained"].to_pylist(), strict=True):
        # a slice that set a threshold lies on it, where another batch size may fall to the other side
        to_threshold = (decision.confidence - rule.min_confidence, decision.distance - rule.max_distance)
        assert (decision.reason or "") == reason or min(map(abs, to_threshold)) < 1e-4
    assert [d.distance for d in decisions] == pytest.approx(table["distance"].to_pylist(), abs=1e-4)
    named = np.array(table["nearest_neighbour"].to_pylist())
    assert all(named[sides == "test"] != None) and all(named[held_out] == None)  # noqa: E711


def test_the_card_has_metadata_and_the_grouped_result(finished: tuple[Path, str]) -> None:
    text = (finished[0] / "model" / "README.md").read_text()
    metadata = yaml.safe_load(text.split("---")[1])
    metrics = json.loads((finished[0] / "model" / "evaluation" / "metrics.json").read_text())
    values = [entry["value"] for entry in metadata["model-index"][0]["results"][0]["metrics"]]
    assert any(value == pytest.approx(metrics["test"]["balanced_accuracy"], abs=1e-4) for value in values)
    assert "not a medical device" in text.lower() and "init: random" in text
    assert metrics["split"]["hash"] in text and "outer ring only" in text and "abstain" in text
    pictures = re.findall(r"!\[[^]]+\]\((.+?)\)", text)
    assert len(pictures) == 7 and all((finished[0] / "model" / name).is_file() for name in pictures)


def test_logs_are_csv_and_tensorboard(finished: tuple[Path, str]) -> None:
    with (finished[0] / "logs" / "metrics.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(float(row["train/loss"]) > 0 and float(row["train/images_per_s"]) > 0 for row in rows)
    assert list((finished[0] / "logs").rglob("events.out.tfevents.*"))


def test_a_finished_run_is_left_alone(finished: tuple[Path, str]) -> None:
    weights = (finished[0] / "model" / "model.safetensors").read_bytes()
    again = train("--resume", finished[0])
    assert again.returncode == 0 and "is finished" in again.stdout
    afresh = train("--output-dir", finished[0])
    assert afresh.returncode == 2 and "already holds a run" in afresh.stderr and "Traceback" not in afresh.stderr
    assert (finished[0] / "model" / "model.safetensors").read_bytes() == weights


@pytest.mark.slow
def test_two_processes_on_ragged_data_give_the_figures_of_one(cohort: Path, tmp_path: Path) -> None:
    torchrun = [str(Path(sys.executable).with_name("torchrun")), "--nproc_per_node", "2", *train_command()[1:]]
    done = run([*torchrun, "--data", str(cohort), "--output-dir", str(tmp_path / "two"), *TINY, "--epochs", "2"])
    assert done.returncode == 0, done.stderr
    model = tmp_path / "two" / "model"
    provenance = json.loads((model / "lungct.json").read_text())["provenance"]
    assert provenance["training"]["processes"] == 2
    table, labels, logits = read_predictions(model / "evaluation" / "predictions.parquet")
    assert len(set(table["id"].to_pylist())) == table.num_rows == provenance_held_out(model)
    paths = [cohort / name for name in table["id"].to_pylist()]
    alone = chances(LungCTClassifier.from_pretrained(model).predict(paths, force=True))
    assert alone == pytest.approx(softmax(logits), abs=1e-5)
    test = np.array(table["split"].to_pylist()) == "test"
    metrics = json.loads((model / "evaluation" / "metrics.json").read_text())
    assert (
        score(labels[test], np.log(alone[test]), schema_1_classes())["confusion_matrix"]
        == metrics["test"]["confusion_matrix"]
    )


def provenance_held_out(model: Path) -> int:
    with (model / "evaluation" / "split.csv").open(newline="") as handle:
        return sum(row["split"] != "train" for row in csv.DictReader(handle))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains_or_says_why_not(cohort: Path, tmp_path: Path, precision: str) -> None:
    flags = ["--data", cohort, "--output-dir", tmp_path / "r", *TINY, "--epochs", "1", "--accumulate", "2"]
    done = train(*flags, "--mixed-precision", precision)
    if done.returncode:
        assert done.returncode == 2 and precision in done.stderr and "Traceback" not in done.stderr
    else:
        written = json.loads((tmp_path / "r" / "model" / "lungct.json").read_text())["provenance"]["training"]
        assert written["mixed_precision"] == precision


@pytest.mark.slow
@pytest.mark.parametrize("form", ["parquet", "imagefolder", "image"])
def test_other_forms_of_data(cohort: Path, tmp_path: Path, form: str) -> None:
    import datasets

    data, flags = cohort, []
    if form == "parquet":
        data = tmp_path / "slices.parquet"
        files = sorted(cohort.glob("*/*.png"))
        columns = {
            "image": [{"bytes": path.read_bytes(), "path": path.name} for path in files],
            "label": [("normal", "benign", "malignant").index(path.parent.name) for path in files],
            "patient_id": [path.name[:3] for path in files],
        }
        features = {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["normal", "benign", "malignant"]),
            "patient_id": datasets.Value("string"),
        }
        datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(data)
    elif form == "imagefolder":
        data = tmp_path / "folder"
        write_cohort(data / "train", patients=5)
        write_cohort(data / "test", patients=2, seed=1)
    else:
        flags = ["--split", "image"]
    done = train("--data", data, "--output-dir", tmp_path / "r", *TINY, "--epochs", "1", *flags)
    assert done.returncode == 0, done.stderr
    split = json.loads((tmp_path / "r" / "model" / "lungct.json").read_text())["provenance"]["split"]
    assert split["protocol"] == {"parquet": "grouped", "imagefolder": "given", "image": "image"}[form]
    assert pq.read_table(tmp_path / "r" / "model" / "evaluation" / "predictions.parquet").num_rows > 10


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_no_arguments_learns_on_phantoms(tmp_path: Path) -> None:
    launch = [str(Path(sys.executable).with_name("accelerate")), "launch", *train_command()[1:]]
    done = run(launch, cwd=tmp_path, timeout=1400)
    assert done.returncode == 0, done.stderr
    assert "Starting from random weights" in done.stdout
    (model,) = tmp_path.glob("runs/*/model")
    metrics = json.loads((model / "evaluation" / "metrics.json").read_text())
    neighbour = metrics["baselines"]["nearest_neighbour"]["balanced_accuracy"]
    assert metrics["test"]["balanced_accuracy"] > 0.75 > neighbour
    assert metrics["split"]["protocol"] == "grouped" and metrics["split"]["groups_crossing"] == 0
