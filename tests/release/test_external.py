"""Tests on other data: stored without a trace of people, recomputed by anyone, false where they were touched."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from command_here import run_here
from helpers import run
from lungct_hf import LungCT
from lungct_hf.commands.external import judge_elsewhere
from lungct_hf.evaluation.external import figures_of, read_table, rebuilt, sets_of, table_of, write_sets
from lungct_hf.files import sha256_of, write_json
from lungct_hf.hub import ModelRepo, write_card
from lungct_hf.release.external import external_reasons, side_by_side, worse_elsewhere
from lungct_hf.release.verify import verify
from release_runs import evaluate_elsewhere

LUNGCT = str(Path(sys.executable).with_name("lungct"))
PARQUET = "evaluation/external/other.parquet"


@pytest.fixture
def tested(tested_run: Path, tmp_path: Path) -> Path:
    """The model folder of a copy, to be spoilt."""
    return Path(shutil.copytree(tested_run, tmp_path / "run")) / "model"


def codes(model: Path) -> list[str]:
    return sorted({reason.code for reason in external_reasons(ModelRepo(model))})


def rewrite(model: Path, change: Callable[[dict[str, Any]], None], *, everywhere: bool = False) -> None:
    """Change every row of the stored predictions; `everywhere`: and make figures, hash and card follow from them."""
    repo = ModelRepo(model)
    rows = pq.read_table(model / PARQUET).to_pylist()
    for row in rows:
        change(row)
    pq.write_table(table_of(rows, repo.classes), model / PARQUET)
    if everywhere:
        write_sets(model, rebuilt(ModelRepo(model)))
        write_card(model)


def test_what_is_stored_says_what_the_runtime_says_and_nothing_of_where_it_lay(
    tested_run: Path, elsewhere: Path
) -> None:
    model = tested_run / "model"
    entry, rows = sets_of(ModelRepo(model))["other"], pq.read_table(model / PARQUET).to_pylist()
    answers = {Path(one.file).name: one for one in LungCT.from_pretrained(model).predict(elsewhere / "data" / "ill")}
    by_hash = {row["sha256"]: row for row in rows}
    for path in sorted((elsewhere / "data" / "ill").glob("[a-d]*.png")):
        row, one = by_hash[sha256_of(path)], answers[path.name]
        assert (row["decision"], row["reason"], row["label"]) == (one.decision, one.reason, "malignant")
        assert row["distance"] == pytest.approx(one.distance, rel=1e-6)
    assert len(rows) == 16 and entry["left_out"] == {"copies of another file": 2}
    assert entry["classes"] == {"clear": "negative", "ill": "malignant"} and entry["title"] == "Drawn elsewhere"
    told = json.dumps(entry) + json.dumps(rows)
    assert str(elsewhere) not in told and ".png" not in told and "data" not in told
    assert {row["id"].partition("/")[0] for row in rows} == {"other"}


def test_folders_may_be_people(tested: Path, elsewhere: Path, tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text("classes: {clear: negative, ill: positive}\npatients: folders\n")
    sets, maps = [f"two={elsewhere / 'data'}"], [f"two={tmp_path / 'map.yaml'}"]
    judge_elsewhere(str(tested), sets, maps, "refuse", 100, as_json=True)
    found = sets_of(ModelRepo(tested))
    assert set(found) == {"other", "two"} and found["two"]["grouping"] == "folders" and codes(tested) == []
    assert found["two"]["figures"]["groups"] == 2 and found["two"]["figures"]["labels"]["positive"]["groups"] == 1
    assert found["two"]["figures"]["forced"]["sensitivity"] is not None


def test_it_verifies_and_the_card_shows_it(tested_run: Path, clean_run: Path) -> None:
    found = verify(str(tested_run))
    assert not found.false and any("the tests elsewhere (other)" in line for line in found.held)
    card = (tested_run / "model" / "README.md").read_text()
    assert "## Tested elsewhere" in card and "| other, false alarms |" in card and "Never tested" not in card
    never = (clean_run / "model" / "README.md").read_text()
    assert "Never tested outside the data it was made from." in never


def test_the_figures_are_those_of_the_rows(tested_run: Path) -> None:
    rows = pq.read_table(tested_run / "model" / PARQUET).to_pylist()
    found = sets_of(ModelRepo(tested_run / "model"))["other"]["figures"]
    clear = [row for row in rows if row["label"] == "negative"]
    alarms = sum(row["decision"] == "malignant" for row in clear)
    answered = [row for row in clear if row["decision"] not in ("abstain", "refused")]
    assert found["all"]["false_alarms"]["value"] == pytest.approx(alarms / len(clear))
    assert found["answers"]["false_alarms"]["value"] == pytest.approx(alarms / len(answered))
    forced = sum(int(np.argmax(row["logits"])) == 2 for row in clear)
    assert found["forced"]["false_alarms"]["value"] == pytest.approx(forced / len(clear))
    assert found["answered"]["n"] + found["refused"]["n"] + found["abstained"]["n"] == len(rows) == 16


def turned(row: dict[str, Any]) -> None:
    row["decision"] = "normal" if row["decision"] == "malignant" else "malignant"


def flattened(row: dict[str, Any]) -> None:
    if row["label"] == "negative":
        row["logits"], row["decision"] = [9.0, 0.0, 0.0], "normal"


def further(row: dict[str, Any]) -> None:
    row["distance"] = 1e9


def relabelled(row: dict[str, Any]) -> None:
    row["label"] = "unknown"


@pytest.mark.parametrize("change", [turned, further, relabelled], ids=lambda change: str(change.__name__))
def test_predictions_that_were_touched_are_false_whatever_was_made_to_fit(
    tested: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    rewrite(tested, change, everywhere=True)
    assert "external-mismatch" in {reason.code for reason in verify(str(tested)).false}


def test_better_logits_need_other_figures_and_another_hash(tested: Path) -> None:
    before = (tested / "evaluation" / "external.json").read_text()
    rewrite(tested, flattened)
    said = [reason.sentence for reason in external_reasons(ModelRepo(tested))]
    assert any("is not the file" in one for one in said) and any("external.json, other" in one for one in said)
    record = json.loads(before)
    record["sets"]["other"]["predictions"] = sha256_of(tested / PARQUET)
    write_json(tested / "evaluation" / "external.json", record)
    assert codes(tested) == ["external-mismatch"]


def test_figures_card_and_files_count(tested: Path) -> None:
    path = tested / "evaluation" / "external.json"
    record = json.loads(path.read_text())
    changed = json.loads(path.read_text())
    changed["sets"]["other"]["figures"]["forced"]["false_alarms"]["value"] = 0.015
    write_json(path, changed)
    assert codes(tested) == ["external-mismatch"]
    write_json(path, record)
    assert codes(tested) == []
    card = (tested / "README.md").read_text()
    (tested / "README.md").write_text(card.replace("| other, false alarms | ", "| other, false alarms | 0"))
    assert {reason.code for reason in verify(str(tested)).false} == {"card-mismatch"}
    (tested / PARQUET).rename(tested / "evaluation" / "external" / "hidden.parquet")
    assert codes(tested) == ["external-mismatch"] and len(external_reasons(ModelRepo(tested))) == 2
    path.unlink()
    assert codes(tested) == ["external-mismatch"]
    path.write_text("{}")
    assert codes(tested) == ["external-mismatch"]


def test_other_weights_or_another_check_make_it_stale(tested: Path, elsewhere: Path) -> None:
    weights = tested / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert codes(tested) == ["external-stale"]
    content[-1] ^= 1
    weights.write_bytes(content)
    record = json.loads((tested / "lungct.json").read_text())
    write_json(tested / "lungct.json", record | {"window": {"center": -600.0, "width": 1500.0, "unit": "HU"}})
    assert codes(tested) == ["external-stale"]
    evaluate_elsewhere(tested.parent, elsewhere)  # run again: replaced
    assert codes(tested) == [] and sets_of(ModelRepo(tested))["other"]["window"]["center"] == -600.0


def test_side_by_side_is_about_the_same_slices(tested_run: Path, tested: Path) -> None:
    dropped = []

    def drop(table: Any) -> Any:
        dropped.extend(table["sha256"].to_pylist()[:4])
        return table.slice(4)

    pq.write_table(drop(pq.read_table(tested / PARQUET)), tested / PARQUET)
    pair = side_by_side(ModelRepo(tested_run / "model"), ModelRepo(tested), replicates=100)[0]
    assert (pair.slices, pair.of) == (12, (16, 12)) and len(dropped) == 4
    assert pair.a == pair.b == figures_of(read_table(ModelRepo(tested), "other"), replicates=100)


def test_the_command_shows_both_and_a_release_asks_for_all_sets(
    tested_run: Path, clean_run: Path, tmp_path: Path
) -> None:
    code, said = run_here(["compare", tested_run, tested_run, "--json", "--replicates", "100"], tmp_path, {})
    assert code == 0 and json.loads(said)["external"]["other"]["slices"] == 16, said
    code, said = run_here(["compare", tested_run, clean_run, "--replicates", "100"], tmp_path, {})
    assert "No outside set was shown to both." in said
    notes: list[str] = []
    found = list(worse_elsewhere(ModelRepo(clean_run / "model"), ModelRepo(tested_run / "model"), "v1.0.0", notes))
    assert [reason.code for reason in found] == ["external-missing"] and "lungct evaluate --external" in str(found[0])
    assert not list(worse_elsewhere(ModelRepo(tested_run / "model"), ModelRepo(clean_run / "model"), "v1.0.0", notes))


def test_the_command_stores_shows_and_refuses_in_one_sentence(tested: Path, elsewhere: Path, tmp_path: Path) -> None:
    sets = ["--external", f"other={elsewhere / 'data'}", "--replicates", "100"]
    mapped = ["--external-classes", f"other={elsewhere / 'map.yaml'}"]
    done = run([LUNGCT, "evaluate", "--model", str(tested.parent), *sets, *mapped], COLUMNS="80")
    assert done.returncode == 0 and "false alarms" in done.stdout, done.stderr
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    assert codes(tested) == []
    code, said = run_here(["evaluate", "--model", tested, "--json", "--replicates", "100"], tmp_path, {})
    assert code == 0 and "other" in json.loads(said)["external"], said
    for flags, text in (
        (sets, "has the class"),
        ([*sets, *mapped, "--data", "x"], "two calls"),
        (["--external", "other"], "NAME=DATA is needed"),
        (["--external", "../x=y"], "cannot name an outside set"),
        ([*sets, "--external-classes", "else=map.yaml"], "names else"),
    ):
        code, said = run_here(["evaluate", "--model", tested, *flags], tmp_path, {})
        assert code == 2 and said.strip().count("\n") == 0 and text in said, said
