"""The card of models with any classes: which count as disease, two of them, many of them, names that are markup."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from samples import LUNGCT, write_model

from lungct_hf.classes import Classes
from lungct_hf.decision import Calibration
from lungct_hf.errors import LungCTError
from lungct_hf.evaluation import evaluate_predictions, write_predictions
from lungct_hf.hub import render_card, write_eval_results
from lungct_hf.hub.wording import data_facts, listed
from lungct_hf.known_sets import known_sets

TWO = Classes(("absent", "present"), ("present",))
FOUR = known_sets()["chest-ct-kaggle"].classes
TWELVE = Classes(tuple(f"kind {number}" for number in range(12)))


def write(folder: Path, classes: Classes, data: dict[str, Any] | None = None, **lungct: Any) -> Path:
    """A model of schema 2 with the figures of made-up predictions."""
    rng, rows, count = np.random.default_rng(0), [], len(classes)
    for i in range(20 * count):
        label = i % count
        rows.append(
            {"id": f"{i}", "sha256": f"{i:064d}", "group": f"g{i % (5 * count)}", "split": "test", "fold": 0}
            | {"label": classes[label], "logits": (rng.normal(size=count) + 2 * np.eye(count)[label]).tolist()}
            | {"nearest_neighbour": classes[int(rng.integers(count))]}
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(folder / "rows.parquet", rows, classes)
    counts = {name: dict.fromkeys(classes, 20) for name in ("train", "test")}
    split = {"protocol": "grouped", "grouping": "linked", "groups_crossing": 0, "counts": counts}
    split["groups"] = {"train": 5 * count, "test": 5 * count}
    metrics = evaluate_predictions(folder / "rows.parquet", split=split, replicates=100).metrics
    record = copy.deepcopy(LUNGCT) | {"schema_version": 2, "classes": classes.to_json()} | lungct
    del record["labels"]
    record["provenance"]["data"] = {"kind": "folder", "source": "clinic", "slices": 40 * count} | (data or {})
    write_model(folder, record, metrics)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"label_names": list(classes), "num_classes": len(classes)})
    )
    return folder


def tables(card: str) -> list[list[str]]:
    return [table.splitlines() for table in re.findall(r"(?:^\|.*\n)+", card, re.MULTILINE)]


ODD = Classes(("a|b", "c*d*", "<!-- author:end -->", "{{ x }}"), ("a|b",))


@pytest.mark.parametrize("classes", [TWO, FOUR, TWELVE, ODD], ids=["two", "four", "twelve", "odd"])
def test_the_page_is_well_formed(tmp_path: Path, classes: Classes) -> None:
    card = render_card(write(tmp_path, classes))
    for table in tables(card):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table}) == 1, table
    assert max(len(re.findall(r"(?<!\\)\|", table[0])) for table in tables(card)) <= 11
    assert "\n\n\n" not in card and "{%" not in card and card.count("```") % 2 == 0
    assert card.count("<!-- author:end -->") == 1
    assert f"| chance | {100 / len(classes):.1f} % |" in card and f"{len(classes)} classes come out" in card
    code = card[card.index("import pandas") : card.index("print(sensitivity")]
    named = re.search(r"np\.array\((\[.*?\])\)\[np", code)
    assert named and json.loads(named[1]) == list(classes)


def test_what_counts_as_disease_is_said(tmp_path: Path) -> None:
    assert "As disease (positive) counts **present**; **absent** counts as its absence." in render_card(
        write(tmp_path / "two", TWO)
    )
    four = render_card(write(tmp_path / "four", FOUR))
    names = [f"**{name}**" for name in FOUR.positive]
    assert f"(positive) count {names[0]}, {names[1]} and {names[2]}; **{FOUR[0]}** counts as" in four
    assert "None of the classes is marked as disease" in render_card(write(tmp_path / "none", TWELVE))


def test_two_classes_have_no_macro_figure(tmp_path: Path) -> None:
    folder = write(tmp_path, TWO)
    card = render_card(folder)
    assert "macro" not in card.lower() and "| AUROC |" in card and "specificity |" not in card
    assert "always name one of two classes" in card and "the other class's specificity" in card
    values = {r.metric_name: r.metric_value for r in ModelCard(card).data.eval_results}
    assert set(values) == {"Balanced accuracy", "Accuracy", "AUROC"} and 0.5 < values["AUROC"] <= 1
    entries = yaml.safe_load(write_eval_results(folder).read_text())
    assert "macro" not in str(entries) and "classes: absent, present" in str(entries)
    row = next(line for line in card.splitlines() if line.startswith("| **this model**"))
    assert "–" not in row


def test_many_classes_are_rows(tmp_path: Path) -> None:
    card = render_card(write(tmp_path, TWELVE))
    heads = [table[0] for table in tables(card)]
    assert "| slices | train | test | all |" in heads or "| slices | train | test |" in heads
    assert not any("true class" in head for head in heads) and "always name one of twelve classes" in card
    assert "| groups | 60 | 60 |" in card and "| kind 11 | 20 | 20 |" in card
    assert "; 12 classes" in write_eval_results(tmp_path).read_text()


def test_the_way_to_an_answer_is_the_one_that_checks(tmp_path: Path) -> None:
    card = render_card(write(tmp_path / "torch", TWO))
    use = card[card.index("## How to use it") :]
    assert use.index("LungCT.from_pretrained") < use.index("LungCTClassifier") < use.index("transformers")
    assert "pip install 'lungct-hf[torch]'" in use
    with_onnx = render_card(write(tmp_path / "onnx", TWO, onnx={"sha256": "a" * 64}))
    assert "# pip install lungct-hf\n" in with_onnx


@pytest.mark.parametrize(
    ("classes", "blocks", "said"),
    [
        (FOUR, ((1, 2, 3), (0,)), "0.8 for {0} against the others and 2.5 for {1}, {2} and {3} against each other"),
        (FOUR, ((0, 1), (2, 3)), "0.8 for {0} or {1} against {2} or {3} and 2.5 for {1} against {0} and {3} against"),
        (TWO, (), "one temperature, 0.8, fitted on"),
    ],
)
def test_the_calibration_names_the_classes(tmp_path: Path, classes: Classes, blocks: Any, said: str) -> None:
    record = Calibration(0.8, 2.5, blocks, folded=True, fitted_on={"slices": 90, "groups": 30}).to_json()
    assert said.format(*classes) in render_card(write(tmp_path, classes, calibration=record))


# --- data that people know


@pytest.mark.parametrize("name", ["iq-oth-nccd", "chest-ct-kaggle", "covid-ct"])
def test_a_known_set_brings_its_caveats_licence_and_reference(tmp_path: Path, name: str) -> None:
    known = known_sets()[name]
    card = render_card(write(tmp_path, known.classes, {"source": "my copy", "known_set": name}))
    assert known.licence in card and f"- Data: {known.cite}" in card and "Demographics" in card
    assert all(f"- {caveat}" in card for caveat in known.caveats) and f"{known.title}, read from `my copy`" in card
    others = [one for one in known_sets().values() if one is not known]
    assert not any(caveat in card for one in others for caveat in one.caveats)


def test_data_are_known_by_what_they_are_called_where_the_record_does_not_say() -> None:
    for source, title in {"IQ-OTH_NCCD": "IQ-OTH/NCCD", "Chest-CT-Scan-data": "Chest CT-Scan images (Kaggle)"}.items():
        assert data_facts({"kind": "folder", "source": source})["known"].title == title
    assert data_facts({"kind": "folder", "source": "clinic"})["known"] is None
    assert data_facts({"kind": "folder", "source": "clinic", "known_set": "gone"})["known"] is None
    assert data_facts({"kind": "phantom", "source": "nccd"})["phantom"]


def test_a_contract_without_classes_is_one_sentence(tmp_path: Path) -> None:
    folder = write(tmp_path, TWO)
    record = json.loads((folder / "lungct.json").read_text())
    for broken in ({"names": ["a"], "positive": []}, {"names": ["a", "b"]}, "a,b"):
        (folder / "lungct.json").write_text(json.dumps(record | {"classes": broken}))
        with pytest.raises(LungCTError, match="does not say which classes") as caught:
            render_card(folder)
        assert "\n" not in str(caught.value)


def test_lists_read_as_sentences() -> None:
    assert [listed(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
