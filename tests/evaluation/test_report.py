"""The report: everything from the stored predictions, grouped first, the leak gap and the baselines beside it."""

import html
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from simulated import SETS, THREE, TWO_UNMARKED, rows

from lungct_hf.classes import Classes
from lungct_hf.errors import LungCTError, UsageError
from lungct_hf.evaluation import Report, evaluate_predictions, fit_calibration, plots, score, tables, write_predictions
from lungct_hf.evaluation.contact_sheet import worst_errors, write_contact_sheet
from lungct_hf.evaluation.page import write_page
from lungct_hf.evaluation.plots import write_plots
from lungct_hf.evaluation.predictions import read_predictions
from lungct_hf.files import write_json

HUNDRED = Classes(tuple(f"class {number}" for number in range(100)), ("class 3", "class 50"))
QUICK = {"replicates": 200}


def with_baselines(made: list[dict[str, object]], rng: np.random.Generator, right: float) -> list[dict[str, object]]:
    for row in made:
        for column in ("nearest_neighbour", "ring_nearest_neighbour"):
            row[column] = row["label"] if rng.random() < right else THREE[rng.integers(3)]
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """Two seeds under `linked` and `image`, the latter much easier, with baselines, temperature and abstentions."""
    rng, made = np.random.default_rng(0), []
    for protocol, signal, right in (("linked", 1.5, 0.3), ("image", 5.0, 0.97)):
        for seed in (0, 1):
            part = rows(rng, protocol=protocol, seed=seed, signal=signal)
            for row in part:
                row["raw_logits"] = [2 * value for value in row["logits"]]  # type: ignore[attr-defined]
                row["abstained"] = "low-confidence" if np.ptp(row["logits"]) < 1.5 else ""  # type: ignore[arg-type]
            made += with_baselines(part, rng, right)
    path = tmp_path_factory.mktemp("evaluation")
    write_predictions(path / "predictions.parquet", made, THREE)
    return path


@pytest.fixture(scope="module")
def report(folder) -> Report:  # type: ignore[no-untyped-def]
    return evaluate_predictions(folder / "predictions.parquet", **QUICK)


def test_grouped_comes_first_with_the_leak_gap_beside_it(report: Report) -> None:
    metrics = report.metrics
    assert metrics["protocol"] == "linked" and list(metrics["other_protocols"]) == ["image"]
    image = metrics["other_protocols"]["image"]["test"]
    gap = metrics["leak_gap"]
    assert gap["paired"] and set(gap) == {"paired", "model", "nearest_neighbour", "ring_nearest_neighbour"}
    found = gap["model"]["balanced_accuracy"]
    assert found["value"] == pytest.approx(image["balanced_accuracy"] - metrics["test"]["balanced_accuracy"])
    assert 0 < found["low"] < found["value"] < found["high"]


def test_baselines_stand_beside_the_model(report: Report) -> None:
    baselines = report.metrics["baselines"]
    assert set(baselines) == {"nearest_neighbour", "ring_nearest_neighbour"}
    for block in baselines.values():
        assert block["description"] and block["intervals"]["accuracy"]["low"] < block["accuracy"]
        by = block["model_minus"]["balanced_accuracy"]
        assert by["value"] == pytest.approx(report.metrics["test"]["balanced_accuracy"] - block["balanced_accuracy"])
    assert report.metrics["other_protocols"]["image"]["baselines"]["nearest_neighbour"]["accuracy"] > 0.9


def test_pooled_figures_follow_from_the_rows(report: Report, folder) -> None:  # type: ignore[no-untyped-def]
    table, labels, logits = read_predictions(folder / "predictions.parquet")
    linked = np.array(table["protocol"].to_pylist()) == "linked"
    test = report.metrics["test"]
    assert test["n"] == 2 * 480 and test["groups"] == 60
    assert test["accuracy"] == pytest.approx(score(labels[linked], logits[linked], classes=THREE)["accuracy"])
    assert len(test["folds"]) == 10 and len(test["seeds"]) == 2
    assert test["mean_of_folds"]["accuracy"] == pytest.approx(np.mean([row["accuracy"] for row in test["folds"]]))
    assert test["cases"]["n"] == 120 and test["cases"]["pooling"] == "mean-probability"
    assert test["uncalibrated"]["ece"] != test["ece"]
    coverages = [row["coverage"] for row in test["risk_coverage"]]
    assert coverages[0] == 1 and coverages == sorted(coverages, reverse=True) and coverages[-1] >= 0.5


def test_abstentions_are_counted_as_stored(report: Report, folder) -> None:  # type: ignore[no-untyped-def]
    table, labels, logits = read_predictions(folder / "predictions.parquet")
    linked = np.array(table["protocol"].to_pylist()) == "linked"
    answered = linked & (np.array(table["abstained"].to_pylist()) == "")
    found = report.metrics["test"]["abstention"]
    assert found["coverage"]["value"] == pytest.approx(answered.sum() / linked.sum())
    assert found["error"]["value"] == pytest.approx(np.mean(logits[answered].argmax(1) != labels[answered]))
    assert found["reasons"] == {"low-confidence": int(linked.sum() - answered.sum())}


def test_recomputed_equals_stored(report: Report, folder) -> None:  # type: ignore[no-untyped-def]
    write_json(folder / "metrics.json", report.metrics)  # refuses NaN, numpy numbers and the like
    again = evaluate_predictions(folder / "predictions.parquet", **QUICK)
    assert json.loads((folder / "metrics.json").read_text()) == again.metrics


def test_the_order_of_the_rows_does_not_matter(report: Report, folder) -> None:  # type: ignore[no-untyped-def]
    table = read_predictions(folder / "predictions.parquet")[0]
    shuffled = evaluate_predictions(table.take(np.random.default_rng(0).permutation(len(table))), **QUICK)
    for name in ("balanced_accuracy", "macro_auroc", "ece"):
        wanted, found = (r.metrics["test"]["intervals"][name] for r in (report, shuffled))
        assert list(found.values()) == pytest.approx(list(wanted.values()), abs=1e-5)


def test_a_single_run_as_training_writes_it(tmp_path) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    write_predictions(tmp_path / "p.parquet", rows(rng) + rows(rng, split="validation"), THREE)
    split = {"protocol": "grouped", "grouping": "linked", "hash": "0"}
    metrics = evaluate_predictions(tmp_path / "p.parquet", split=split, **QUICK).metrics
    assert metrics["protocol"] == "linked" and metrics["split"] == split and metrics["baselines"] == {}
    assert metrics["validation"]["n"] == 480 and "leak_gap" not in metrics and "abstention" not in metrics["test"]
    image = evaluate_predictions(tmp_path / "p.parquet", split={"protocol": "image", "grouping": "linked"}, **QUICK)
    assert image.metrics["protocol"] == "image"


def test_the_stored_rule_is_applied_where_rows_say_nothing(tmp_path) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    write_predictions(tmp_path / "p.parquet", rows(rng, signal=3.0), THREE)
    table, labels, logits = read_predictions(tmp_path / "p.parquet")
    calibration = fit_calibration(logits, labels, np.array(table["group"].to_pylist()), folded=False, classes=THREE)
    assert calibration.abstain is not None
    found = evaluate_predictions(table, calibration=calibration, **QUICK).metrics["test"]["abstention"]
    assert found["coverage"]["value"] == pytest.approx(calibration.abstain.expected_coverage)
    assert found["error"]["value"] == pytest.approx(calibration.abstain.expected_error)
    assert found["target_error"] == 0.05


def test_refusals(tmp_path) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    path, made = tmp_path / "p.parquet", rows(rng, groups=12)
    write_predictions(path, [*made, made[0]], THREE)
    with pytest.raises(LungCTError, match='"test/0000.png" was predicted 2 times'):
        evaluate_predictions(path)
    write_predictions(path, rows(rng, split="validation"), THREE)
    with pytest.raises(LungCTError, match="no rows of the split test"):
        evaluate_predictions(path)
    write_predictions(path, made, THREE)
    with pytest.raises(UsageError, match="no predictions under the protocol 'linked'"):
        evaluate_predictions(path, headline="linked")
    made[3]["logits"] = [float("nan")] * 3
    write_predictions(path, made, THREE)
    with pytest.raises(LungCTError, match="not finite"):
        evaluate_predictions(path)


def picture_of(key: str) -> Image.Image:
    noise = np.random.default_rng(len(key)).normal(110, 40, (120, 150)).clip(0, 255)
    return Image.fromarray(noise.astype(np.uint8))


@pytest.fixture(scope="module")
def pictures(report: Report, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_plots(report, tmp_path_factory.mktemp("plots"))


def test_plots_are_small_and_repeatable(report: Report, pictures: list[Path]) -> None:
    assert [file.stem for file in pictures] == [
        "comparison",
        "confusion",
        "roc",
        "roc_positive",
        "precision_recall",
        "reliability",
        "risk_coverage",
    ]
    for file in pictures:
        content = file.read_bytes()
        assert 3_000 < len(content) < 60_000, file.name
        with Image.open(io.BytesIO(content)) as image:
            assert min(image.size) > 300 and len(image.convert("RGB").getcolors(1 << 20)) > 5
    again = plots._png(plots._confusion(report.parts["linked"]))
    assert again == pictures[1].read_bytes()  # no date, no version


@pytest.mark.parametrize("classes", [*SETS.values(), TWO_UNMARKED, HUNDRED], ids=lambda classes: str(len(classes)))
def test_a_report_of_any_classes(tmp_path: Path, classes: Classes) -> None:
    """Odd names, two classes without macro figures, and a hundred of which some have no slices: all can be drawn."""
    made = rows(np.random.default_rng(0), classes=classes, groups=max(60, 2 * len(classes) - 4))
    if len(classes) == 100:
        made = [row for row in made if row["label"] != classes[99]]
    write_predictions(tmp_path / "p.parquet", made, classes)
    report = evaluate_predictions(tmp_path / "p.parquet", replicates=100)
    write_json(tmp_path / "metrics.json", report.metrics)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["classes"] == classes.to_json() and list(metrics["test"]["per_class"]) == list(classes)
    assert ("macro_auroc" in metrics["test"]) == (len(classes) > 2) != ("auroc" in metrics["test"])
    for file in (drawn := write_plots(report, tmp_path)):
        assert 2_000 < file.stat().st_size < 150_000, file.name
    page = write_page(report, drawn, tmp_path / "report.html", model="m").read_text(encoding="utf-8")
    for name in classes:
        assert f"<td>{html.escape(name)}</td>" in page
    for sheet in (write_contact_sheet(report, picture_of, tmp_path / "sheet.png"),):
        assert sheet is not None and sheet.is_file()
    if len(classes) == 100:
        assert metrics["test"]["per_class"]["class 99"]["sensitivity"] is None
        assert metrics["test"]["macro_auroc"] is None and "There are no slices of class 99" in page


def test_two_classes_show_no_mirrored_figure(tmp_path: Path) -> None:
    for classes, columns in ((SETS[2], ("", "sens.", "spec.", "PPV", "NPV", "n (groups)")), (TWO_UNMARKED, None)):
        write_predictions(tmp_path / "p.parquet", rows(np.random.default_rng(0), classes=classes), classes)
        metrics = evaluate_predictions(tmp_path / "p.parquet", **QUICK).metrics
        assert tables.class_columns(metrics) == (columns or ("", "sens.", "PPV", "n (groups)"))
        first, second = tables.class_rows(metrics)
        assert all(second) and (set(first[1:-1]) == {""} if columns else all(first))
        assert [row[0] for row in tables.figure_rows(metrics)][:3] == [
            "balanced accuracy, %",
            "accuracy, %",
            "AUROC, %",
        ]


def test_predictions_that_do_not_name_their_classes_give_what_they_gave(report: Report, folder: Path) -> None:
    table = read_predictions(folder / "predictions.parquet")[0].replace_schema_metadata(None)
    older = evaluate_predictions(table, **QUICK).metrics
    wanted = {name: value for name, value in report.metrics.items() if name not in ("classes", "operating")}
    image = {name: value for name, value in wanted["other_protocols"]["image"].items() if name != "operating"}
    assert older == wanted | {"other_protocols": {"image": image}}


def test_every_class_has_a_style_of_its_own() -> None:
    assert len({plots._style(number) for number in range(100)}) == 100


def test_the_contact_sheet_shows_one_slice_per_group_surest_first(report: Report, tmp_path) -> None:  # type: ignore[no-untyped-def]
    sample, chosen = report.parts["linked"].test, worst_errors(report)
    confidence = sample.probabilities[chosen].max(axis=1)  # type: ignore[index]
    assert len(chosen) == 12 == len(set(sample.groups[chosen])) and (np.diff(confidence) <= 0).all()
    assert (sample.named[chosen] != sample.labels[chosen]).all()
    path = write_contact_sheet(report, picture_of, tmp_path / "worst_errors.png")
    assert path is not None and path.stat().st_size < 110_000  # noise hardly compresses; real slices do
    with Image.open(path) as image:
        assert image.width > 4 * 100


def test_nothing_wrong_no_sheet(tmp_path) -> None:  # type: ignore[no-untyped-def]
    write_predictions(tmp_path / "p.parquet", rows(np.random.default_rng(0), signal=100.0), THREE)
    perfect = evaluate_predictions(tmp_path / "p.parquet", **QUICK)
    assert write_contact_sheet(perfect, picture_of, tmp_path / "sheet.png") is None
    assert len(write_plots(perfect, tmp_path)) == 7


def test_the_page_needs_nothing_else_and_escapes_names(report: Report, pictures: list[Path], tmp_path: Path) -> None:
    page = write_page(report, pictures, tmp_path / "report.html", model="<script>alert(1)</script>", data="a & b")
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text and "a &amp; b" in text
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]{0,40})', text))
    assert not re.findall(r'(?:href|src)="https?:', text)
    assert "Leak gap" in text and "not a medical device" in text and "1-NN, ring only" in text
    assert len(text) < 200_000
