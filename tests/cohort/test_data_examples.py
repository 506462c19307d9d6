"""The five examples of docs/data.md do what the page says, with the commands as they stand there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from helpers import ROOT
from lungct_hf.cli import app
from lungct_hf.cohort import Cohort, Split
from lungct_hf.fit.data import load_slices
from lungct_hf.fit.options import parse_options
from lungct_hf.slices.window import LUNG_WINDOW, Window
from slices.made_slices import ct_dataset

from .scans import Person, hu_of, write_nifti, write_rows

PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
TITLES = re.findall(r"^## (\d)\. ", PAGE, re.MULTILINE)


def commands(number: int) -> list[list[str]]:
    """The commands of an example, as words."""
    section = PAGE.split(f"\n## {number}. ")[1].split("\n## ")[0]
    lines = [line for block in re.findall(r"```bash\n(.*?)```", section, re.DOTALL) for line in block.splitlines()]
    assert lines
    return [shlex.split(line) for line in lines]


def picture(seed: int) -> Image.Image:
    return Image.fromarray(LUNG_WINDOW.apply(hu_of(seed, 1)[0]))


def class_folders() -> None:
    for c, name in enumerate(("healthy", "fibrosis", "adenocarcinoma")):
        folder = Path("my-slices") / name
        folder.mkdir(parents=True)
        for person in range(5):
            picture(10 * c + person).save(folder / f"a{person}.{('png', 'jpg', 'tif')[person % 3]}")
        ct_dataset(hu_of(10 * c + 5, 1)[0], PatientID=f"x{c}").save_as(folder / "b2.dcm", enforce_file_format=True)
        write_nifti(folder / "c1.nii.gz", hu_of(10 * c + 6, 2))


def table_of_patients() -> None:
    rows = []
    for person in range(10):
        for number in range(2):
            path = Path("my-slices") / f"p{person}" / f"00{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(20 * person + number).save(path)
            rows.append((f"p{person}/00{number}.png", ("healthy", "nodule")[person % 2], f"p{person}"))
    write_rows(Path("my-slices/metadata.csv"), ("file_name", "label", "patient_id"), rows)


def series() -> None:
    people = [Person(number) for number in range(10)]
    for person in people:
        for number, path in enumerate(person.dicom(Path("archive") / person.id / "ct", slices=5)):
            path.rename(path.with_name(f"IM{number:04d}"))
    rows = [(person.id, ("healthy", "cancer")[person.number % 2]) for person in people]
    write_rows(Path("archive/labels.csv"), ("PatientID", "label"), rows)


def volumes() -> None:
    rows = []
    for number in range(10):
        write_nifti(Path("volumes") / f"v{number}.nii.gz", hu_of(number, 4) - 12 * number)
        name = f"v{number}.nii.gz"
        rows.append((f"{name}#2" if number == 9 else name, ("healthy", "nodule")[number % 2]))
    write_rows(Path("volumes/labels.csv"), ("file_name", "label"), rows)


def parquet() -> None:
    class_folders()
    files = sorted(path for path in Path("my-slices").rglob("*") if path.is_file())
    rows = {"image": [path.read_bytes() for path in files], "label": [path.parent.name for path in files]}
    datasets.Dataset.from_dict(rows).to_parquet("slices.parquet")


def seen_1(cohort: Cohort) -> None:
    assert cohort.classes.names == ("healthy", "fibrosis", "adenocarcinoma")
    assert cohort.classes.positive == ("adenocarcinoma",) and set(cohort.counts().values()) == {8}


def seen_2(cohort: Cohort) -> None:
    assert cohort.grouping == "column:patient_id" and set(cohort.groups) == {f"p{number}" for number in range(10)}


def seen_3(cohort: Cohort) -> None:
    assert cohort.grouping == "header:patient" and cohort.window == Window(-600, 1500)
    assert cohort.classes.positive == ("cancer",) and cohort.left_out == {"outside the range of positions": 20}
    assert len(set(cohort.groups)) == 10 and "MRN" not in "".join([*cohort.ids, *cohort.groups])


def seen_4(cohort: Cohort) -> None:
    assert cohort.counts() == {"healthy": 20, "nodule": 17}
    assert cohort.left_out == {"not listed in the table": 3}


def seen_5(cohort: Cohort) -> None:
    assert cohort.kind == "parquet" and set(cohort.counts().values()) == {8}


@pytest.mark.parametrize(
    ("number", "write", "check"),
    [
        (1, class_folders, seen_1),
        (2, table_of_patients, seen_2),
        (3, series, seen_3),
        (4, volumes, seen_4),
        (5, parquet, seen_5),
    ],
)
def test_example(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    write: Callable[[], None],
    check: Callable[[Cohort], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    write()
    trained = 0
    for program, *words in commands(number):
        if program == "lungct":
            done = CliRunner().invoke(app, words)
            assert done.exit_code == 0, (words, done.output, done.exception)
            if words[0] == "split":
                split = Split.read("split.csv")
                assert split.groups_crossing == 0 and set(split.split) == {"train", "validation", "test"}
            continue
        assert (program, words[0]) == ("python", "training/train.py")
        options = parse_options(
            [*words[1:], "--output-dir", "run", "--image-size", "64"], ROOT / "training/recipes", ""
        )
        slices = load_slices(options)
        check(slices.cohort)
        assert np.asarray(slices.squares[0]).shape == (64, 64, 3)
        trained += 1
    assert trained == 1


def test_every_example_is_run() -> None:
    assert TITLES == ["1", "2", "3", "4", "5"]
