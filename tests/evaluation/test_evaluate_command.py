"""`lungct evaluate` in a process of its own, on a tiny model."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from huggingface_hub import constants
from PIL import Image
from simulated import THREE, rows
from typer.testing import CliRunner

from helpers import run, wake_up, write_cohort
from hub_server import HubServer
from lungct_hf import LungCTClassifier
from lungct_hf.classes import Classes
from lungct_hf.cohort import Split, load_cohort, make_split
from lungct_hf.commands.evaluate import evaluate
from lungct_hf.errors import LungCTError
from lungct_hf.evaluation import evaluate_predictions, fit_calibration, read_predictions, write_predictions
from lungct_hf.evaluation.predict import known_slices, predict_cohort, prediction_rows
from lungct_hf.files import write_json
from lungct_hf.hub import push_folder
from lungct_hf.slices.preprocess import Preprocessing

QUICK = ["--replicates", "200"]
# The command as the entry point runs it.
_CODE = """
import typer
from lungct_hf.commands.evaluate import evaluate
from lungct_hf.errors import exit_on_error
app = typer.Typer(pretty_exceptions_enable=False)
app.command()(evaluate)
with exit_on_error():
    app()
"""


def in_process(*flags: str | Path) -> tuple[int, str]:
    """Exit code and output without the seconds that a new process takes to import torch."""
    app = typer.Typer()
    app.command()(evaluate)
    result = CliRunner().invoke(app, [str(flag) for flag in flags], env={"COLUMNS": "80"})
    if isinstance(result.exception, LungCTError):
        return result.exception.exit_code, str(result.exception)
    return result.exit_code, result.stdout


def command(*flags: str | Path, cwd: Path | None = None):  # type: ignore[no-untyped-def]
    return run([sys.executable, "-c", _CODE, *map(str, flags)], cwd=cwd, COLUMNS="80")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/, more/ (other slices) and runs/tiny/model as training leaves it, with a calibrated abstain rule."""
    root = tmp_path_factory.mktemp("evaluate")
    cohort = load_cohort(str(write_cohort(root / "data", patients=10)), progress=False)
    write_cohort(root / "more", patients=4, seed=7)
    split = make_split(cohort)
    classifier = LungCTClassifier.create(THREE, "mobilenetv2_035", Preprocessing(size=64))
    wake_up(classifier.network, 64)
    model = root / "runs" / "tiny" / "model"
    train, validation = split.indices("train"), split.indices("validation")
    features = predict_cohort(classifier, cohort, train, progress=False)[1]
    logits, inner = predict_cohort(classifier, cohort, validation, progress=False)
    calibration = fit_calibration(
        logits,
        cohort.labels[validation],
        cohort.groups[validation],
        features=inner,
        training=(features, cohort.labels[train]),
        folded=False,
        classes=THREE,
    )
    path = model / "evaluation" / "predictions.parquet"
    write_predictions(path, prediction_rows(classifier, cohort, split, set(), calibration, progress=False), THREE)
    split.write_csv(model / "evaluation" / "split.csv")
    facts = {"protocol": split.protocol, "grouping": split.grouping, "hash": split.hash, "groups_crossing": 0}
    metrics = evaluate_predictions(path, split=facts, calibration=calibration, replicates=200).metrics
    write_json(model / "evaluation" / "metrics.json", metrics)
    classifier.save_pretrained(model)
    lungct = json.loads((model / "lungct.json").read_text())
    write_json(model / "lungct.json", lungct | {"calibration": calibration.to_json()})
    return root


def test_features_and_logits_are_the_classifiers_own(workplace: Path) -> None:
    classifier = LungCTClassifier.from_pretrained(workplace / "runs" / "tiny" / "model")
    cohort = load_cohort(str(workplace / "more"), progress=False)
    logits, features = predict_cohort(classifier, cohort, np.arange(6), batch_size=4, progress=False)
    wanted, pooled, _ = classifier.predict_images(classifier.preprocessing.squares([cohort.read(i) for i in range(6)]))
    assert logits == pytest.approx(wanted, abs=1e-4) and features == pytest.approx(pooled, abs=1e-4)
    assert features.shape == (6, 32)  # mean and scatter of the 16 channels of the guard's stage


def test_stored_predictions_of_a_run(workplace: Path) -> None:
    done = command("--model", workplace / "runs" / "tiny", "--output", workplace / "report", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "The figures stored with the model follow from its predictions." in done.stdout
    assert max(len(line) for line in done.stdout.splitlines() if "report.html" not in line) <= 80
    for wanted in (
        "Operating points: malignant against the rest, %",
        "balanced accuracy, %",
        "1-NN, ring only",
        "sens.",
        "Cohen's kappa",
        "answers",
    ):
        assert wanted in done.stdout
    written = sorted(path.name for path in (workplace / "report").iterdir())
    assert written == sorted(
        ["metrics.json", "report.html"]
        + [
            f"{n}.png"
            for n in (
                "comparison",
                "confusion",
                "precision_recall",
                "reliability",
                "risk_coverage",
                "roc",
                "roc_positive",
            )
        ]
    )
    stored = json.loads((workplace / "runs/tiny/model/evaluation/metrics.json").read_text())
    assert json.loads((workplace / "report" / "metrics.json").read_text()) == stored
    assert str(workplace) not in (workplace / "report" / "report.html").read_text()


def test_a_model_on_the_hub_at_its_commit(workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        pushed = push_folder(workplace / "runs/tiny/model", "alice/tiny", message="m", token=hub.add_user("alice"))
        code, said = in_process("--model", f"alice/tiny@{pushed.commit_sha}", *QUICK)
        fetched = [request.path for request in hub.seen("GET", "/resolve/")]
    assert code == 0 and "follow from its predictions" in said, said
    assert f"alice/tiny@{pushed.commit_sha}" in said.replace("\n", "")
    assert fetched and not any("safetensors" in path for path in fetched)  # figures need no weights


def test_other_data_are_judged_and_known_slices_left_out(workplace: Path) -> None:
    model, more = workplace / "runs" / "tiny" / "model", workplace / "mixed"
    write_cohort(more, patients=4, seed=7)
    known = next(p for p in sorted((workplace / "data" / "normal").iterdir()))
    (more / "normal" / "known.png").write_bytes(known.read_bytes())
    with (more / "metadata.csv").open("a", encoding="utf-8") as handle:
        handle.write("normal/known.png,n99\n")
    trained = (model / "evaluation" / "split.csv").read_text()
    line = next(line for line in trained.splitlines() if f"normal/{known.name}" in line)
    expected = int(",test," not in line)
    code, said = in_process("--model", model, "--data", more, "--json", "--output", workplace / "other", *QUICK)
    assert code == 0, said
    metrics = json.loads(said)
    assert metrics["protocol"] == "external" and metrics["seen_in_training"] == expected
    assert metrics["test"]["n"] == 36 + 1 - expected and metrics["data"]["source"] == "mixed"
    assert set(metrics["test"]["abstention"]["reasons"]) <= {"low-confidence", "unlike-training-source"}
    page = (workplace / "other" / "report.html").read_text()
    assert page.count("<img") == 8 and str(workplace) not in page  # the worst errors are in it


def test_other_slices_of_known_groups_are_left_out_as_well(workplace: Path) -> None:
    model, again = workplace / "runs" / "tiny" / "model", workplace / "again"
    shutil.copytree(workplace / "data", again)
    for path in sorted(again.glob("*/*_[12].png")):  # of each patient's three slices one keeps its bytes
        Image.open(path).save(path, compress_level=0)
    trained = Split.read(model / "evaluation" / "split.csv")
    tested = len(trained.indices("test"))
    code, said = in_process("--model", model, "--data", again, "--json", *QUICK)
    assert code == 0, said
    metrics = json.loads(said)
    learned = len(trained.ids) - tested
    assert metrics["test"]["n"] == tested
    assert (metrics["seen_in_training"], metrics["other_slices_of_seen_groups"]) == (learned / 3, learned * 2 / 3)
    assert in_process("--model", model, "--data", again, *QUICK)[1].count("are left out") == 2

    shutil.copytree(again, workplace / "learned")
    groups = set(trained.groups[trained.split == "test"])
    lines = (again / "metadata.csv").read_text().splitlines()
    for line in [line for line in lines if line.rpartition(",")[2] in groups]:
        (workplace / "learned" / line.partition(",")[0]).unlink()
        lines.remove(line)
    (workplace / "learned" / "metadata.csv").write_text("\n".join(lines))
    code, said = in_process("--model", model, "--data", workplace / "learned", *QUICK)
    assert code == 1 and said.startswith(f"All {learned} slices are of groups that were used to train")


def renamed(data: Path, names: dict[str, str]) -> Path:
    """The slices of `data` in class folders of other names; a class without one is left out."""
    write_cohort(data, patients=4, seed=7)
    (data / "metadata.csv").unlink()
    for name in ("normal", "benign", "malignant"):
        if name in names:
            (data / name).rename(data / names[name])
        else:
            shutil.rmtree(data / name)
    return data


def test_the_data_speak_of_the_models_classes(workplace: Path) -> None:
    """By other names, in another order, some merged; or some of them only."""
    model = workplace / "runs" / "tiny" / "model"
    flags = ["--model", model, "--grouping", "file-blocks:3", "--json", *QUICK]
    code, said = in_process(*flags, "--data", renamed(workplace / "plain", {n: n for n in THREE}))
    assert code == 0, said
    first = json.loads(said)
    assert first["classes"] == Classes(THREE.names, THREE.positive).to_json() and "operating" in first
    other = renamed(workplace / "named", {"normal": "z healthy", "benign": "nodule", "malignant": "a cancer"})
    code, said = in_process(*flags, "--data", other)
    assert code == 1 and "not among normal, benign, malignant" in said and "--classes" in said
    asked = "a cancer -> malignant; nodule -> benign; z healthy -> normal"
    code, said = in_process(*flags, "--data", other, "--classes", asked)
    assert code == 0, said
    named = json.loads(said)
    assert named["classes"] == first["classes"]
    assert named["test"]["confusion_matrix"] == first["test"]["confusion_matrix"]
    assert in_process(*flags, "--data", other, "--classes", "a cancer; nodule; z healthy")[0] == 2
    code, said = in_process(*flags, "--data", renamed(workplace / "two", {"normal": "normal", "benign": "benign"}))
    assert code == 0, said
    some = json.loads(said)["test"]
    assert some["macro_auroc"] is None and some["per_class"]["malignant"]["sensitivity"] is None
    assert some["confusion_matrix"][:2] == first["test"]["confusion_matrix"][:2]
    assert some["balanced_accuracy"] is not None and list(some["per_class"]) == list(THREE)


def test_what_a_model_split_by_image_knows(workplace: Path) -> None:
    cohort = load_cohort(str(workplace / "data"), progress=False)
    trained = make_split(cohort, "image")
    learned = set(trained.sha256[trained.split != "test"])
    assert known_slices(cohort, trained, trained) == (learned, learned)  # its own figures stay, with what they leak
    seen, known = known_slices(cohort, make_split(cohort), trained)
    groups = set(cohort.groups[trained.split != "test"])
    assert seen == learned < known == set(cohort.sha256[np.isin(cohort.groups, sorted(groups))])


def test_a_manifest_gives_its_test_slices_and_the_stored_figures(workplace: Path) -> None:
    model = workplace / "runs" / "tiny" / "model"
    manifest = model / "evaluation" / "split.csv"
    code, said = in_process("--model", model, "--data", workplace / "data", "--split", manifest, "--json", *QUICK)
    assert code == 0, said
    fresh, stored = json.loads(said), json.loads((model / "evaluation" / "metrics.json").read_text())
    assert fresh["test"]["n"] == stored["test"]["n"] and fresh["seen_in_training"] == 0
    for name in ("balanced_accuracy", "macro_auroc", "ece"):
        assert fresh["test"][name] == pytest.approx(stored["test"][name], abs=1e-4)
    assert fresh["baselines"]["ring_nearest_neighbour"]["accuracy"] == pytest.approx(
        stored["baselines"]["ring_nearest_neighbour"]["accuracy"]
    )


def test_a_changed_figure_is_found(workplace: Path, tmp_path: Path) -> None:
    rng, evaluation = np.random.default_rng(0), tmp_path / "model" / "evaluation"
    write_predictions(evaluation / "predictions.parquet", rows(rng, groups=30), THREE)
    table = read_predictions(evaluation / "predictions.parquet")[0]
    metrics = evaluate_predictions(table, split={"protocol": "image"}, replicates=200).metrics
    metrics["test"]["balanced_accuracy"] += 0.05
    write_json(evaluation / "metrics.json", metrics)
    whole = workplace / "runs" / "tiny" / "model"
    shutil.copy(whole / "config.json", tmp_path / "model")
    lungct = json.loads((whole / "lungct.json").read_text())
    write_json(tmp_path / "model" / "lungct.json", {k: v for k, v in lungct.items() if k != "calibration"})
    done = command("--model", tmp_path / "model", *QUICK)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert re.search(r"do not follow from its predictions: test\.balanced_accuracy is stored as", done.stderr)
    assert "says little about new people" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--model", "nowhere/at/all"], 1, "no directory"),
        (["--model", "empty"], 1, "stores no predictions"),
        (["--model", "empty", "--split", "x.csv"], 2, "belong to --data"),
        (["--model", "empty", "--classes", "a, b"], 2, "--classes belong to --data"),
        (["--model", "empty", "--data", "x", "--split", "x.csv", "--grouping", "linked"], 2, "own groups"),
        (["--model", "empty", "--output", "file"], 2, "is a file"),
    ],
)
def test_wrong_calls_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], code: int, said: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    assert in_process(*flags)[0] == code and said in in_process(*flags)[1]
