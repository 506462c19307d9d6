"""Several scans in one folder: a decision for each, said in every format; what is no scan has no vote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_slices import ct_dataset, dicom_bytes, phantom_hu
from PIL import Image

from lungct_hf import LungCT
from lungct_hf.runtime import Study
from lungct_hf.runtime.prediction import NOTICE
from lungct_hf.serving.tables import study_csv
from lungct_hf.slices.series import SeriesNames, scan_order
from predict_runs import Predict
from test_predict_command import read_csv

DERIVED = ["DERIVED", "SECONDARY", "AXIAL"]


def slice_of(uid: str, z: float, *, seed: int | None = None, **elements: Any) -> bytes:
    hu = phantom_hu(seed=int(10 + z) if seed is None else seed, size=96)
    place = {"SeriesInstanceUID": uid, "ImagePositionPatient": [0, 0, z], "InstanceNumber": int(z) + 1}
    dataset = ct_dataset(hu, **(place | elements))
    for name, value in elements.items():
        if value is None:
            delattr(dataset, name)
    return dicom_bytes(dataset)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scans, a localizer, a projection, a reformat and a report, as a hospital exports one visit."""
    root = tmp_path_factory.mktemp("visit") / "visit"
    root.mkdir()
    for number in range(3):
        thorax = slice_of("1.2.3.1", number, SeriesDescription="DOE^JANE Thorax 1.0 B60f")
        (root / f"a{number}").write_bytes(thorax)
        (root / f"b{number}").write_bytes(slice_of("1.2.3.2", number, seed=50 + number, SeriesDescription="Lung"))
    (root / "c0").write_bytes(slice_of("1.2.3.2", 3, seed=60, SeriesDescription="Lung"))
    (root / "scout").write_bytes(slice_of("1.2.3.3", 0, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    (root / "mip").write_bytes(slice_of("1.2.3.4", 0, ImageType=[*DERIVED, "CSA MIP"]))
    (root / "minip").write_bytes(slice_of("1.2.3.5", 0, ImageType=["DERIVED", "PRIMARY", "AXIAL", "MIN_IP"]))
    (root / "mpr").write_bytes(slice_of("1.2.3.6", 0, ImageType=["DERIVED", "SECONDARY", "MPR"]))
    (root / "dose").write_bytes(slice_of("1.2.3.7", 0, ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"]))
    return root


BESIDE = ("scout", "mip", "minip", "mpr", "dose")


@pytest.fixture(scope="module")
def model(model_dir: Path) -> LungCT:
    return LungCT.from_pretrained(model_dir)


def test_each_scan_has_its_decision_in_every_format(predict: Predict, scans: Path, tmp_path: Path) -> None:
    for name in ("cases.json", "cases.csv", "cases.parquet", "cases.txt"):
        done = predict(scans, "--study", "--force", "-o", tmp_path / name)
        assert done.returncode == 0, done.stderr
        assert "visit: 2 series, a decision for each (... Thorax 1.0 B60f, " in done.stderr
    everything = "".join((tmp_path / name).read_text() for name in ("cases.json", "cases.csv", "cases.txt"))
    assert "DOE" not in everything and "JANE" not in everything and "1.2.3" not in everything
    first, second = json.loads((tmp_path / "cases.json").read_text())
    assert (first["used"], second["used"]) == (3, 4) and first["series_key"] != second["series_key"]
    assert (first["description"], second["description"]) == ("... Thorax 1.0 B60f", "Lung")
    assert first["warnings"] == second["warnings"] == ["several-series"] and first["series"] == 1
    rows = read_csv((tmp_path / "cases.csv").read_text())
    assert len(rows) == 7 + 5 + 2 and [row["series"] for row in rows if row["frame"] is None] == [
        first["series_key"],
        second["series_key"],
    ]
    assert [row["detail"] for row in rows if row["frame"] is None] == [first["detail"], second["detail"]]
    assert first["detail"].startswith("Series 1 of 2: ... Thorax")
    table = pq.read_table(tmp_path / "cases.parquet").to_pylist()
    assert [row["position"] for row in table[:3]] == [0.0, 1.0, 2.0]
    assert [row["warnings"] for row in table] == [row["warnings"] for row in rows]
    text = (tmp_path / "cases.txt").read_text()
    assert "several-series (Series 2 of 2: Lung, " in text
    seen = {Path(str(row["file"])).name: (row["reason"], str(row["warnings"]).split()) for row in rows}
    assert "localizer" in seen["scout"][1] and seen["dose"][0] == "burned-in-text"
    assert "projection" in seen["mip"][1] and "projection" in seen["minip"][1] and "derived-series" in seen["mpr"][1]


@pytest.mark.parametrize(
    "choice, used",
    [("1.2.3.1", 3), ("largest", 4), ("thorax", 3), ("LUNG", 4), ("1.2.3.6", 1), ("1.2.3.4", 0), ("nothing", 0)],
)
def test_one_scan_is_chosen(model: LungCT, scans: Path, choice: str, used: int) -> None:
    (study,) = model.predict_studies(scans, series=choice, force=True)
    assert study.used == used and len(study.slices) == 12, "what is left out is named"
    assert (study.label is None) == (not used)
    left = {Path(row.file).name for row in study.slices if row.reason == "other-series"}
    assert used == 0 or not left & {Path(row.file).name for row in study.slices[:used]}
    assert all(row.probabilities is None for row in study.slices if row.reason == "other-series")
    if choice == "nothing":
        assert (study.decision, study.reason, len(left)) == ("refused", "other-series", 12)


def test_the_command_chooses_too(predict: Predict, scans: Path, tmp_path: Path) -> None:
    rows = read_csv(predict(scans, "--study", "--series", "largest", "--force", "--format", "csv").stdout)
    assert [row["frame"] for row in rows].count(None) == 1 and rows[-1]["frame"] is None
    chosen = predict(scans, "--study", "--series", str(rows[-1]["series"])[:8], "--force", "--format", "csv")
    again = read_csv(chosen.stdout)
    assert [again[-1][name] for name in ("series", "decision", "p_benign")] == [
        rows[-1][name] for name in ("series", "decision", "p_benign")
    ]
    for wrong in (["--series", "largest"], ["--study", "--series", " "]):
        done = predict(scans, *wrong)
        assert done.returncode == 2 and "--series" in done.stderr and done.stderr.count("\n") == 1


def test_python_and_the_page_never_pool(model: LungCT, scans: Path) -> None:
    study = model.predict_study(scans, force=True)
    assert (study.decision, study.reason, study.probabilities) == ("refused", "several-series", None)
    assert study.series == 2 and [one.used for one in study.studies] == [3, 4] and len(study.slices) == 12
    answer = json.loads(json.dumps(study.to_json(), allow_nan=False))
    assert [one["series_key"] for one in answer["studies"]] == [one.series_key for one in study.studies]
    download = study_csv(study)
    assert download.count("(case)") == 2 and download.count(NOTICE) == 14


def test_patients_of_one_uid_are_two_scans(model: LungCT, tmp_path: Path) -> None:
    for patient in ("one", "two"):
        for z in range(2):
            (tmp_path / f"{patient}{z}").write_bytes(slice_of("1.2.3", z, PatientID=patient))
    assert [one.used for one in model.predict_studies(tmp_path, force=True)] == [2, 2]


def test_what_is_made_from_others_alone_is_decided_only_by_name(model: LungCT, tmp_path: Path) -> None:
    (tmp_path / "mpr").write_bytes(slice_of("1.2.3.6", 0, ImageType=["DERIVED", "SECONDARY", "MPR"]))
    study = model.predict_study(tmp_path, force=True)
    assert (study.decision, study.reason) == ("refused", "only-derived") and study.slices[0].probabilities
    assert model.predict_study(tmp_path, series="1.2.3.6", force=True).used == 1
    lossy = slice_of("1.2.3.6", 0, ImageType=["DERIVED", "PRIMARY", "AXIAL"], LossyImageCompression="01")
    (tmp_path / "mpr").write_bytes(lossy)
    assert model.predict_study(tmp_path, force=True).used == 1, "compressed is not computed"


def test_copies_have_one_vote(model: LungCT, tmp_path: Path) -> None:
    def study() -> Study:
        return model.predict_study(tmp_path, force=True)

    for z in range(3):
        (tmp_path / f"{z}").write_bytes(slice_of("1.2.3", z, SOPInstanceUID=f"1.2.9.{z}"))
    alone = study()
    for number in range(4):
        (tmp_path / f"copy {number}").write_bytes((tmp_path / "2").read_bytes())
    # Compressed again: other pixels of the same instance.
    (tmp_path / "again").write_bytes(slice_of("1.2.3", 1, seed=99, SOPInstanceUID="1.2.9.1"))
    copied = study()
    assert (copied.used, copied.probabilities) == (3, alone.probabilities)
    for z in range(3):  # a writer that gives one number to all
        (tmp_path / f"{z}").write_bytes(slice_of("1.2.3", z, SOPInstanceUID="1.2.9"))
    for name in ("again", *(f"copy {number}" for number in range(4))):
        (tmp_path / name).unlink()
    assert study().used == 3


def test_one_missing_position_loses_nothing(model: LungCT, tmp_path: Path) -> None:
    for z in range(4):
        missing = {"ImagePositionPatient": None} if z == 2 else {}
        (tmp_path / f"{3 - z}").write_bytes(slice_of("1.2.3", z, **missing))
    found = [Path(row.file).name for row in model.predict(tmp_path, force=True)]
    assert found == ["3", "2", "1", "0"] and model.predict_study(tmp_path, force=True).used == 4
    assert scan_order([5.0, None, 1.0, 3.0], [1, 4, 5, 3]) == [2, 1, 3, 0]
    assert scan_order([5.0, None, 1.0], [None, None, None]) == [2, 0, 1]
    assert scan_order([None] * 3, [3, None, 1]) == [2, 0, 1]


def test_pictures_are_one_scan_a_folder(model: LungCT, tmp_path: Path) -> None:
    for folder in ("p1", "p2"):
        (tmp_path / folder).mkdir()
        for number in range(2):
            seed = number + 7 * (folder == "p2")
            Image.fromarray(np.random.default_rng(seed).integers(0, 255, (90, 90), np.uint8)).save(
                tmp_path / folder / f"{number}.png"
            )
    study = model.predict_study(tmp_path, force=True)
    assert study.reason == "several-series" and [one.used for one in study.studies] == [2, 2]


@pytest.mark.parametrize(
    "written, shown",
    [
        ("Thorax  1.0  B60f", "Thorax 1.0 B60f"),
        ("CHEST W/O CONTRAST 2.5mm", "CHEST W O CONTRAST 2.5mm"),
        ("Mueller, Anna 12.03.1957", None),
        ("MEIER^HANS Lung 5x5", "... Lung 5x5"),
        ("12.03.57 Smith 4711 Lung", "... Lung"),
    ],
)
def test_descriptions_are_shown_without_names(written: str, shown: str | None) -> None:
    assert SeriesNames("1.2", written).shown == shown and written not in repr(SeriesNames("1.2", written))
