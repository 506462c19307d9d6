"""The command, its three outputs, and that names and listing order change no figure."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import datasets
import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from lungct_hf.audit import CODES, audit_data
from lungct_hf.audit.slices import Slices
from lungct_hf.cohort import load_cohort, nearest
from lungct_hf.commands.audit import audit as command
from lungct_hf.errors import LungCTError, RefusedError, UsageError

from .conftest import Planned, draw


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Own splits, no patients, duplicates and copies of all kinds."""
    data = Planned(people=6, slices=3, splits=("train", "test"))
    data.add("test/normal/again.png", data.files[data.path(0, 0, "train")][0], "")
    data.add("train/benign/<b>wrong</b>.png", data.files[data.path(0, 0, "train")][0], "")
    data.add("train/malignant/near.png", draw(1, 77), "")
    return data.write(tmp_path_factory.mktemp("faulty") / "scans", patients=False)


def run(*arguments: str | Path):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_outputs(faulty: Path, tmp_path: Path) -> None:
    done = run(faulty, "--json", tmp_path / "out/audit.json", "--html", tmp_path / "out/audit.html")
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out/audit.json").read_text())
    assert found["schema"] == 1 and found["data"]["slices"] == 57
    ids = {path.relative_to(faulty).as_posix() for path in faulty.rglob("*.png")}
    assert [warning["code"] for warning in found["warnings"]] == [
        code for code in CODES if code in {warning["code"] for warning in found["warnings"]}
    ]
    for warning in found["warnings"]:
        assert set(warning) == {"code", "message", "files", "total"}
        assert warning["message"] and set(warning["files"]) <= ids
        assert len(warning["files"]) == min(warning["total"], 1000) > 0
    assert {"duplicate", "duplicate-across-classes", "near-copy-across-classes", "near-copy-across-splits"} <= {
        warning["code"] for warning in found["warnings"]
    }
    for view in found["probes"]["views"].values():
        for score in view.values():
            assert 0 <= score["balanced_accuracy"] <= 1 and set(score["recall"]) == {"normal", "benign", "malignant"}
    lines = done.stdout.splitlines()  # on stderr is the bar of a slow machine
    assert max(map(len, lines)) <= 80 and any(line.startswith("not recognised") for line in lines)
    assert all(warning["code"] in lines for warning in found["warnings"])


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


def test_the_page_needs_nothing_else(faulty: Path, tmp_path: Path) -> None:
    assert run(faulty, "--html", tmp_path / "audit.html").exit_code == 0
    text = (tmp_path / "audit.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    assert page.links and all(link.startswith("data:image/png;base64,") for link in page.links)
    assert not {"script", "link", "iframe", "b>wrong"} & set(page.tags)
    assert not re.search(r"https?://|@import|url\(", text)
    assert "&lt;b&gt;wrong&lt;/b&gt;.png" in text and "<b>wrong" not in text
    assert {"svg", "img", "table"} <= set(page.tags)
    assert all(title in text for title in ("Across classes", "Across the data&#39;s own splits", "Within a class"))
    assert str(faulty.parent) not in text


def test_same_result_every_time_and_for_every_listing_order(tmp_path: Path) -> None:
    data = Planned(people=5, slices=3)
    data.add("benign/copy.png", draw(0, 50), "P0")
    one, two = (data.write(tmp_path / f"{name}/scans", backwards=name == "b") for name in "ab")
    first = audit_data(str(one), progress=False).to_dict()
    assert first == audit_data(str(one), progress=False).to_dict() == audit_data(str(two), progress=False).to_dict()


def test_names_change_no_figure_but_the_order(tmp_path: Path) -> None:
    data = Planned(people=5, slices=2)
    data.add("benign/copy.png", draw(0, 50), "P0")
    renamed = Planned(people=0)
    for number, (path, (picture, patient)) in enumerate(data.files.items()):
        renamed.add(f"{path.split('/')[0]}/{(number * 7919) % 1000:03d}.png", picture, patient)
    one, two = (audit_data(str(d.write(tmp_path / n)), progress=False) for n, d in (("a", data), ("b", renamed)))
    for key in ("classes", "groups", "geometry", "grey", "histograms", "probes"):
        assert one.figures[key] == two.figures[key], key
    assert [(w.code, w.total) for w in one.warnings] == [(w.code, w.total) for w in two.warnings]


def test_groups_are_those_of_the_cohort(faulty: Path) -> None:
    cohort = load_cohort(str(faulty), progress=False)
    slices = Slices.of(cohort)
    groups = dict(zip(cohort.ids.tolist(), cohort.groups.tolist(), strict=True))
    assert slices.groups.tolist() == [groups[name] for name in slices.ids.tolist()]
    thumbnails = dict(zip(cohort.ids.tolist(), cohort.thumbnails, strict=True))
    assert all(np.array_equal(slices.thumbnails[i], thumbnails[name]) for i, name in enumerate(slices.ids.tolist()))


@pytest.mark.parametrize("patients", [True, False])
def test_an_index_finds_what_comparing_each_with_each_finds(
    patients: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Very many slices are not compared one by one; here few are looked up in the index as if they were many."""
    data = Planned(people=30, slices=3, splits=("train", "test"))
    data.add("train/malignant/near.png", draw(1, 77), "someone")
    data.add("test/normal/flipped.png", draw(3, 5).transpose(Image.Transpose.FLIP_LEFT_RIGHT), "another")
    source = str(data.write(tmp_path / "data", patients=patients))
    found = []
    for compared in (nearest.COMPARED, 1):
        monkeypatch.setattr(nearest, "COMPARED", compared)
        found.append(audit_data(source, progress=False).to_dict())
    assert found[0] == found[1] and found[0]["near_copies"]


def test_parquet_like_the_folder(tmp_path: Path) -> None:
    folder = Planned(people=5, slices=2).write(tmp_path / "data")
    cohort = load_cohort(str(folder), progress=False)
    columns = {
        "image": [{"bytes": (folder / name).read_bytes(), "path": name} for name in cohort.ids.tolist()],
        "label": [cohort.classes[label] for label in cohort.labels],
        "group": cohort.groups.tolist(),
    }
    datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image()).to_parquet(tmp_path / "data.parquet")
    one, two = (audit_data(str(path), progress=False) for path in (folder, tmp_path / "data.parquet"))
    for key in ("classes", "groups", "duplicates", "near_copies", "probes", "file_order"):
        left, right = one.figures[key], two.figures[key]
        if key == "groups":
            left, right = ({k: v for k, v in side.items() if k != "grouping"} for side in (left, right))
        assert left == right, key


def test_strict_refuses_after_writing(faulty: Path, tmp_path: Path) -> None:
    done = run(faulty, "--strict", "--json", tmp_path / "audit.json")
    assert isinstance(done.exception, RefusedError) and "near-copy-across-splits" in str(done.exception)
    assert (tmp_path / "audit.json").is_file()
    clean = Planned(people=10).write(tmp_path / "clean")
    assert run(clean, "--strict").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (("nowhere/at-all",), UsageError, "no file or folder"),
        ((".", "--json", "."), UsageError, "is a folder"),
        ((".", "--json", "a", "--html", "a"), UsageError, "two names"),
        (("{data}", "--folds", "1"), UsageError, "at least 2"),
        (("{data}", "--seed", "-1"), UsageError, "seed"),
        (("{data}", "--group-column", "who"), LungCTError, 'no group column "who"'),
    ],
)
def test_wrong_calls(
    faulty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], kind: type, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = run(*(argument.format(data=faulty) for argument in arguments))
    assert isinstance(done.exception, LungCTError), done.output
    text = str(done.exception)
    assert "\n" not in text and (words in text or "cannot be asked" in text)


def test_bad_files_are_refused_or_left_out(tmp_path: Path) -> None:
    folder = Planned(people=5, slices=2).write(tmp_path / "data", patients=False)
    (folder / "normal/broken.png").write_bytes(b"not an image")
    with pytest.raises(LungCTError, match='1 bad files .*"normal/broken.png": .*--on-bad-file skip'):
        audit_data(str(folder), progress=False)
    found = audit_data(str(folder), on_bad_file="skip", progress=False)
    assert [entry["id"] for entry in found.figures["data"]["bad_files"]] == ["normal/broken.png"]
    assert found.figures["data"]["slices"] == 30
