"""The flags that say what the data mean: stored, compared when a run goes on, and absent from older runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cohort.scans import study
from helpers import ROOT, TINY
from lungct_hf.errors import UsageError
from lungct_hf.fit.data import GROUP_KEY, load_slices
from lungct_hf.fit.options import Options, parse_options, save_options

RECIPES = ROOT / "training" / "recipes"
FLAGS = ["--classes", "nodule+, clear", "--labels", "t.csv", "--slices", "0.2-0.8", "--window", "-600,1500"]


def parsed(*words: str | Path) -> Options:
    return parse_options([*map(str, words)], RECIPES, "")


def test_flags_are_stored_and_a_contradiction_is_refused(tmp_path: Path) -> None:
    first = parsed("--data", "d", "--output-dir", tmp_path / "run", *FLAGS)
    assert (first.classes, first.labels, first.slices, first.window) == (
        "nodule+, clear", "t.csv", "0.2-0.8", "-600,1500"
    )  # fmt: skip
    save_options(first)
    again = parsed("--resume", tmp_path / "run")
    assert again.fixed() == first.fixed() and again.command == first.command
    assert parsed("--resume", tmp_path / "run", *FLAGS).fixed() == first.fixed()
    for flag, value in (
        ("--classes", "clear, nodule"),
        ("--labels", "u.csv"),
        ("--slices", "all"),
        ("--window", "0,9"),
    ):
        with pytest.raises(UsageError, match=f"{flag} {value} contradicts the run"):
            parsed("--resume", tmp_path / "run", flag, value)


def test_a_run_from_before_these_flags_goes_on(tmp_path: Path) -> None:
    save_options(parsed("--data", "d", "--output-dir", tmp_path / "run"))
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    for name in ("classes", "labels", "slices", "window"):
        del record[name]
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    again = parsed("--resume", tmp_path / "run", "--slices", "all")
    assert (again.classes, again.labels, again.slices, again.window) == (None, None, "all", None)
    with pytest.raises(UsageError, match="--slices 0.2-0.8 contradicts"):
        parsed("--resume", tmp_path / "run", "--slices", "0.2-0.8")


@pytest.mark.parametrize(
    ("flag", "value", "text"),
    [
        ("--window", "wide", "CENTRE,WIDTH"),
        ("--window", "-600", "CENTRE,WIDTH"),
        ("--slices", "some", "0.2-0.8 is needed"),
    ],
)
def test_flags_that_mean_nothing_are_refused_before_anything_is_read(flag: str, value: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        parsed("--data", "nowhere", flag, value)


def test_a_fold_that_goes_on_alone_has_the_groups_of_its_cross_validation(tmp_path: Path) -> None:
    study(tmp_path / "d", people=4, slices=2)
    whole = parsed("--data", tmp_path / "d", "--folds", "3", "--output-dir", tmp_path / "run", *TINY)
    save_options(whole)
    groups = load_slices(whole).cohort.groups.tolist()
    assert (tmp_path / "run" / GROUP_KEY).is_file()
    for place in ("seed-0/fold-1", "image/seed-0/fold-1"):
        fold = parsed("--data", tmp_path / "d", "--output-dir", tmp_path / "run" / place, *TINY)
        save_options(fold)
        assert load_slices(parsed("--resume", fold.run)).cohort.groups.tolist() == groups
        assert not (fold.run / GROUP_KEY).exists()
    other = parsed("--data", tmp_path / "d", "--output-dir", tmp_path / "other", *TINY)
    assert not set(load_slices(other).cohort.groups) & set(groups)
