"""The card: everything on it follows from the model's own files, and what an author wrote stays."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from samples import LUNGCT, METRICS, stand_in, write_model

from lungct_hf.errors import LungCTError
from lungct_hf.hub import ModelRepo, author_text, render_card, with_author_text, write_card, write_eval_results
from lungct_hf.hub.author import END, INVITATION, START, foreign_text, merged
from lungct_hf.resources import shipped


def changed(base: dict, **parts: dict) -> dict:
    """A copy of lungct.json with entries of provenance changed."""
    out = copy.deepcopy(base)
    for name, value in parts.items():
        old = out["provenance"].get(name)
        out["provenance"][name] = {**old, **value} if isinstance(old, dict) else value
    return out


def test_a_phantom_card_says_what_it_is(tmp_path: Path):
    card = render_card(write_model(tmp_path))
    top = card[: card.index("## Results")]
    assert "not a medical device" in top and "useless on patients" in top
    assert "Siemens" not in card and "10.17632" not in card and "2501.04996" in card
    assert "init: random" in card and LUNGCT["provenance"]["data"]["fingerprint"] in card
    assert "no group has slices in both training and test" in card
    for text in ("88.2 %", "0.971", "60.4 %", "| benign | 75.0 % | 97.9 % | 24 |", "| malignant | – | 91.7 % | 24 |"):
        assert text in card
    assert "| **benign** | 2 | 18 | 4 |" in card and "| class weights | `True` |" in card
    assert "| validation | 24 | 24 | 24 | 12 |" in card and "evaluation/predictions.parquet" in card


def test_a_stand_in_card_names_the_data_and_claims_no_imagenet(tmp_path: Path):
    card = render_card(write_model(tmp_path, *stand_in()), "alice/lung")
    assert "init: stand-in" in card and "IMAGENET1K_V2" not in card
    assert "useless on patients" not in card and "Siemens" in card and "CC BY 4.0" in card
    assert "10.17632/bhmdr45bh2" in card and "Demographics" in card and "unknown" in card
    assert "groups were inferred" in card and "Fewer than 50 test slices for: benign" in card
    assert 'from_pretrained("alice/lung"' in card and "hf-hub:alice/lung" in card and "OWNER/NAME" not in card


def test_other_data_are_not_called_iq_oth(tmp_path: Path):
    data = {"kind": "folder", "source": "our-hospital"}
    card = render_card(write_model(tmp_path, changed(LUNGCT, data=data)))
    assert "Siemens" not in card and "IQ-OTH" not in card and "our-hospital" in card
    assert "licence of the training data is not recorded" in card


def test_the_metadata_are_the_hubs(tmp_path: Path):
    data = {"kind": "hub", "source": "bob/lung-ct@" + "e" * 40}
    folder = write_model(tmp_path, changed(LUNGCT, data=data))
    meta = ModelCard(render_card(folder)).data
    assert (meta.library_name, meta.pipeline_tag, meta.license) == (
        "transformers",
        "image-classification",
        "apache-2.0",
    )
    assert meta.datasets == ["bob/lung-ct"] and meta.base_model is None
    assert {"timm", "lungct_hf", "medical", "ct", "not-a-medical-device"} <= set(meta.tags)
    values = {result.metric_type: result.metric_value for result in meta.eval_results}
    assert values == {"balanced_accuracy": 0.8823, "accuracy": 0.8889, "roc_auc": 0.9712}
    assert {r.dataset_revision for r in meta.eval_results} == {"e" * 40}
    entries = parse_eval_result_entries(yaml.safe_load(write_eval_results(folder).read_text()))
    assert [e.value for e in entries] == [0.8823, 0.8889, 0.9712]
    assert {e.dataset_id for e in entries} == {"bob/lung-ct"} and {e.dataset_revision for e in entries} == {"e" * 40}


def test_data_outside_the_hub_are_no_hub_data_set(tmp_path: Path):
    folder = write_model(tmp_path)
    assert ModelCard(render_card(folder)).data.datasets is None
    assert "is not a data set on the Hub" in write_eval_results(folder).read_text()


def test_numpy_numbers_stay_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = json.loads(json.dumps(METRICS))
    for key in ("accuracy", "balanced_accuracy", "macro_auroc"):
        found["test"][key] = np.float64(found["test"][key])
    monkeypatch.setattr(ModelRepo, "metrics", found)
    folder = write_model(tmp_path)
    assert "python/object" not in render_card(folder) + write_eval_results(folder).read_text()
    assert ModelCard(render_card(folder)).data.eval_results


def test_no_evaluation_no_numbers(tmp_path: Path):
    folder = write_model(tmp_path)
    assert write_eval_results(folder).is_file()
    (folder / "evaluation" / "metrics.json").unlink()
    assert write_eval_results(folder) is None and not (folder / ".eval_results" / "lungct.yaml").exists()
    card = render_card(folder)
    assert "No evaluation is recorded for these weights." in card and "model-index" not in card
    assert not re.search(r"\d %", card)


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ({"protocol": "image"}, "image-level split"),
        ({"protocol": "given", "groups_crossing": 3}, "3 groups have slices on more than one side"),
        ({"protocol": "manifest"}, "`manifest` split: no group has slices in both"),
    ],
)
def test_a_split_is_called_what_it_is(tmp_path: Path, split: dict, expected: str):
    metrics = {**METRICS, "split": {**METRICS["split"], **split}}
    results = render_card(write_model(tmp_path, changed(LUNGCT, split=split), metrics)).split("## How to use")[0]
    assert expected in results


def test_a_model_below_the_lookup_says_so(tmp_path: Path):
    neighbour = {"nearest_neighbour": {"accuracy": 0.99, "balanced_accuracy": 0.98, "description": "1-NN"}}
    assert "does not beat it" in render_card(write_model(tmp_path, LUNGCT, {**METRICS, "baselines": neighbour}))


def test_a_group_that_trains_and_validates_is_on_the_card(tmp_path: Path):
    metrics = {**METRICS, "split": {**METRICS["split"], "protocol": "given", "groups_in_training_and_validation": 4}}
    assert "that the calibration may be too sure: 4." in render_card(write_model(tmp_path, LUNGCT, metrics))


def test_a_bare_contract_still_has_a_card(tmp_path: Path):
    bare = {"schema_version": 1, "labels": ["normal", "benign", "malignant"], "provenance": {}}
    card = render_card(write_model(tmp_path, bare, None))
    assert "init: not recorded" in card and "None" not in card and "not a medical device" in card


def test_changed_weights_say_so(tmp_path: Path):
    assert "weights were changed after training" in render_card(write_model(tmp_path, changed(LUNGCT, modified=True)))


@pytest.mark.parametrize("metrics", [METRICS, None])
def test_the_page_is_well_formed(tmp_path: Path, metrics: dict | None):
    card = render_card(write_model(tmp_path, *(stand_in()[0], metrics)))
    assert "{{" not in card and "{%" not in card and card.count("```") % 2 == 0 and "\n\n\n" not in card
    for table in re.findall(r"(?:^\|.*\n)+", card, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1, table
    assert card.count(START) == card.count(END) == 1


@pytest.mark.parametrize("name", ["config.json", "lungct.json"])
@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_folder_that_is_no_model(tmp_path: Path, name: str, content: str | None):
    folder = write_model(tmp_path)
    (folder / name).unlink() if content is None else (folder / name).write_text(content)
    with pytest.raises(LungCTError, match=name):
        render_card(folder)


def test_the_template_is_found():
    assert shipped("model_card.md").is_file()
    with pytest.raises(LungCTError, match="missing from this installation"):
        shipped("nothing.md")


# --- the author's text


def test_a_written_card_keeps_the_authors_text(tmp_path: Path):
    folder = write_model(tmp_path)
    path = write_card(folder)
    assert INVITATION in path.read_text() and author_text(path.read_text()) == ""
    path.write_text(with_author_text(path.read_text(), "Mine: {{ x }} {% y %} *z*"))
    (folder / "lungct.json").write_text(json.dumps(changed(LUNGCT, init={"kind": "stand-in"})))
    write_card(folder)
    write_card(folder)
    assert author_text(path.read_text()) == "Mine: {{ x }} {% y %} *z*" and "init: stand-in" in path.read_text()
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []


CARD = f"---\nlicense: mit\n---\n# T\n\n{START}\n{INVITATION}\n{END}\n\n## More\n"


@pytest.mark.parametrize("text", ["one line", "two\n\n- lines\n- of it", "a | b", "<!-- a comment -->", r"\1 \g<0>"])
def test_text_survives_a_round_trip(text: str):
    once = with_author_text(CARD, text)
    assert author_text(once) == text and with_author_text(once, text) == once
    assert once.startswith("---\nlicense: mit\n---\n# T\n") and once.endswith("## More\n")
    assert with_author_text(once, "") == CARD


def test_windows_line_ends():
    crlf = with_author_text(CARD.replace("\n", "\r\n"), "a\nb")
    assert author_text(crlf) == "a\nb" and crlf.count("\n") == crlf.count("\r\n")


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("# T\n", ""),
        (f"# T\n{START}\nmine\n", "mine"),
        (f"# T\nmine\n{END}\n", ""),
        (f"{START}\na\n{END}\n# T\n{START}\nb\n{END}\n", "a\n\nb"),
        (f"{START}\na\n{START}\nb\n{END}\n", "a\n\nb"),
        (f"{START}{END}", ""),
        (f"# T\n\n## Notes from the author\n\nmine\n{END}\n", "mine"),
        ("# T\n\n## Notes from the author\n\nmine\n", "mine"),
    ],
)
def test_damaged_markers(markdown: str, text: str):
    assert author_text(markdown) == text
    mended = with_author_text(markdown, text or "new")
    assert author_text(mended) == (text or "new") and mended.count(START) == mended.count(END) == 1


def test_merging_loses_nothing_and_settles():
    assert merged("", "theirs") == "theirs" and merged("ours", "") == "ours" and merged("a", "a") == "a"
    both = merged("ours", "theirs")
    assert both == "ours\n\ntheirs" and merged("ours", both) == both and merged(both, both) == both


def test_a_generated_card_without_markers_holds_no_foreign_text(tmp_path: Path):
    card = render_card(write_model(tmp_path))
    assert foreign_text(card.replace(START, "").replace(END, "")) == ""
    assert foreign_text("---\nlicense: mit\n---\n") == ""
    assert foreign_text("My own words.\n") == "My own words."


def test_a_released_version_says_what_was_overridden_and_how_to_check_it(tmp_path: Path):
    allowed = [{"code": "random-init", "sentence": "training started from random weights"}]
    record = {"version": "1.2.0", "date": "2026-11-24", "allowed": allowed}
    card = render_card(write_model(tmp_path / "a", {**LUNGCT, "release": record}), "alice/lung")
    assert "`lungct verify alice/lung@v1.2.0`" in card and 'revision="v1.2.0")' in card and "\n\n\n" not in card
    assert "let it through" in card and "- `random-init`: training started from random weights" in card
    rollback = {"tag": "v1.2.0+rollback.1", "replaces": "v1.3.0", "date": "2026-11-25"}
    record |= {"rollback": rollback, "allowed": []}
    card = render_card(write_model(tmp_path / "b", {**LUNGCT, "release": record}), "alice/lung")
    assert "alice/lung@v1.2.0+rollback.1" in card and "in place of v1.3.0" in card and "let it through" not in card
    assert "## Release" not in render_card(write_model(tmp_path / "c"), "alice/lung")
