"""`lungct split`: writes a manifest, sums it up, checks one, and overwrites nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from lungct_hf.cohort import make_split
from lungct_hf.commands.split import split
from lungct_hf.errors import UsageError
from lungct_hf.model.features import backbone_features
from lungct_hf.model.imagenet import InitWeights, load_init
from lungct_hf.model.network import ARCHITECTURE, build_network

from .conftest import load

app = typer.Typer()
app.command()(split)


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in arguments])
    if done.exception:
        raise done.exception
    return done.output


def misused(text: str, *arguments: object) -> None:
    with pytest.raises(UsageError, match=text):
        run(*arguments)


@pytest.fixture
def data(make_folder: Callable[..., Path]) -> Path:
    return make_folder()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_file(build_network(ARCHITECTURE, 3).state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def test_what_is_written_and_said(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "split.csv"
    text = run(data, "--output", out, "--folds", 4, "--fold", 1, "--seed", 3)
    made = make_split(load(data), str(out))
    assert made.hash == make_split(load(data), folds=4, fold=1, seed=3).hash and made.hash in text
    assert "54 slices in 18 groups: linked (thumbnail>0.975" in text and "Largest groups:" in text
    assert "by what ties them to their group: 54 thumbnail" in text and "in test and outside it: 0" in text
    assert "Groups both in training and in validation: 0" in text
    assert run("--check", out, data).endswith("split.csv is what its own rule gives.\n")


def test_json_says_the_same(data: Path, tmp_path: Path) -> None:
    facts: dict[str, Any] = json.loads(
        run(data, "--output", tmp_path / "s.csv", "--json", "--protocol", "image", "--margin", "0.9")
    )
    made = make_split(load(data), str(tmp_path / "s.csv"))
    assert facts["hash"] == made.hash and facts["margin"] == 0.9 and facts["grouping"] == "linked"
    assert facts["parts"]["dropped"]["all"]["slices"] == len(made.indices("dropped")) > 0
    assert facts["parts"]["test"]["benign"] == {"slices": 3, "groups": made.group_counts()["test"]["benign"]}
    assert facts["links"] == {"thumbnail": 54} and facts["largest_groups"][0]["slices"] == 3
    assert json.loads(run(data, "--check", tmp_path / "s.csv", "--json"))["hash"] == made.hash


def test_nothing_is_overwritten_unasked(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "split.csv"
    out.write_text("mine")
    misused("exists.*--force", data, "--output", out)
    assert out.read_text() == "mine"
    run(data, "--output", out, "--force", "--grouping", "file-blocks:4")
    assert make_split(load(data), str(out)).grouping == "file-blocks:4"


def test_calls_that_make_no_sense(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "split.csv"
    misused("--output split.csv", data)
    misused("--check", data, "--output", out, "--check", out)
    misused("leave the others out", data, "--check", out, "--margin", 0.9)
    for option in (["--fold", 0], ["--folds", 5], ["--seed", 0], ["--protocol", "grouped"], ["--grouping", "linked"]):
        misused("leave the others out", data, "--check", out, *option)
    misused("is a folder", data, "--output", data)
    misused("is a folder", "no data are needed to see that", "--output", ".", "--force")
    misused("--protocol is", data, "--output", out, "--protocol", "random")
    misused("on_bad_file", data, "--output", out, "--on-bad-file", "ignore")
    misused("Needed: imagenet1k-v2", data, "--output", out, "--backbone", "random")
    some_file = data / "Normal cases" / "Normal case (1).png"
    misused("no say in", data, "--output", out, "--backbone", some_file, "--grouping", "file-blocks:4")
    assert not out.exists()


def test_a_backbone_takes_part_and_is_checked(make_folder: Callable[..., Path], tmp_path: Path, weights: Path) -> None:
    data, out = make_folder(people=3, slices=1), tmp_path / "split.csv"
    text = run(data, "--output", out, "--backbone", weights, "--folds", 3, "--protocol", "image")
    assert "linked+backbone" in text and f"weights={load_init(str(weights)).sha256[:12]}" in text  # type: ignore[index]
    assert "is what its own rule gives" in run(data, "--check", out, "--backbone", weights)
    misused("--backbone", data, "--check", out)


def test_features_do_not_depend_on_the_batch(weights: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (70, 60, 3), dtype=np.uint8)) for _ in range(5)]
    one = backbone_features(iter(pictures), weights, batch=2, size=64)
    two = backbone_features(pictures, load_init(str(weights)), size=64)
    assert one.shape == (5, 1280) and one.dtype == np.float32 and np.allclose(one, two, atol=1e-5)
    assert np.allclose(np.linalg.norm(one, axis=1), 1, atol=1e-5)
    assert backbone_features([], weights, size=64).shape == (0, 1280)
    with pytest.raises(UsageError, match="random weights"):
        backbone_features(pictures, InitWeights("random"), size=64)
