"""The phantom: deterministic, plausible in HU, and its class is in the nodule alone."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lungct_hf.errors import LungCTError, UsageError
from lungct_hf.known_sets import phantoms
from lungct_hf.slices import phantom
from lungct_hf.slices.phantom import FIELD_OF_VIEW, SLICE_REACH, draw_phantom, write_phantom_cohort
from lungct_hf.slices.phantom_anatomy import draw_nodule, draw_patient

LABELS = phantoms().classes.names
SMALL = {"patients_per_class": 2, "slices_per_patient": 2, "size": 48}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small cohort that no test changes."""
    return write_phantom_cohort(tmp_path_factory.mktemp("cohort") / "phantoms", **SMALL)


def sha256(hu: np.ndarray) -> str:
    return hashlib.sha256(hu.tobytes()).hexdigest()


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def in_lung(seed: int, z: float, size: int) -> np.ndarray:
    """Which pixels lie in the lungs, by the anatomy itself."""
    patient = draw_patient(seed)
    canvas = phantom._Canvas(patient, size, patient.level + z)
    return patient.lung(canvas.x, canvas.y, canvas.h) < canvas.pixel


@pytest.mark.parametrize("label", LABELS)
def test_the_same_arguments_draw_the_same_bytes(label: str) -> None:
    first, again = draw_phantom(label, 7, 1.5, size=96), draw_phantom(label, 7, 1.5, size=96)
    assert first.dtype == np.int16 and first.shape == (96, 96)
    assert sha256(first) == sha256(again)


def test_the_pixels_are_those_that_published_models_were_checked_with() -> None:
    # The canaries of every released model are logits on these drawings. One pixel that rounds otherwise is fine.
    known = {"normal": (-594.766, 454.145), "benign": (-591.477, 455.955), "malignant": (-582.567, 458.487)}
    drawn = {label: draw_phantom(label, 7, 1.5, size=96) for label in LABELS}
    assert {label: (hu.mean(), hu.std()) for label, hu in drawn.items()} == {
        label: pytest.approx(pair, abs=0.001) for label, pair in known.items()
    }


def test_every_class_says_what_it_shows() -> None:
    known = phantoms()
    assert set(known.nodules) == set(known.classes) and set(known.nodules.values()) == {"none", "smooth", "spiculated"}
    assert {label: draw_nodule(label, 3) is None for label in known.classes} == {
        label: kind == "none" for label, kind in known.nodules.items()
    }


def test_another_process_draws_the_same_bytes() -> None:
    code = (
        "import hashlib; from lungct_hf.slices.phantom import draw_phantom; "
        "print(hashlib.sha256(draw_phantom('malignant', 5, -2.0, size=96).tobytes()).hexdigest())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == sha256(draw_phantom("malignant", 5, -2.0, size=96))


@pytest.mark.parametrize("seed", range(4))
def test_the_slice_has_air_lung_fat_soft_tissue_and_bone_where_they_belong(seed: int) -> None:
    hu = draw_phantom("normal", seed, 0.0, size=128)
    assert -1024 <= hu.min() and hu.max() <= 3071
    assert abs(np.median(hu[:4]) + 1000) < 40  # air in front of the patient
    lung = in_lung(seed, 0.0, 128)
    assert 0.12 < lung.mean() < 0.50
    assert -900 < np.median(hu[lung]) < -780
    for low, high, share in ((-150, -40, 0.03), (0, 110, 0.08), (300, 1500, 0.01)):  # fat, soft tissue, bone
        assert ((hu > low) & (hu < high)).mean() > share


@pytest.mark.parametrize("seed", range(6))
def test_the_class_changes_pixels_in_the_nodule_only(seed: int) -> None:
    area = {}
    for z in (-SLICE_REACH, 0.0, SLICE_REACH):
        normal = draw_phantom("normal", seed, z, size=128)
        for label in ("benign", "malignant"):
            nodule = draw_nodule(label, seed)
            assert nodule is not None
            changed = draw_phantom(label, seed, z, size=128) != normal
            area[label] = changed.sum() * (FIELD_OF_VIEW / 128) ** 2
            assert not (changed & ~in_lung(seed, z, 128)).any()
            canvas = phantom._Canvas(draw_patient(seed), 128, 0.0)
            away = np.hypot(canvas.x - nodule.x, canvas.y - nodule.y) > 1.7 * nodule.radius + 16.0
            assert not (changed & away).any()
        assert 60.0 < area["benign"] < 500.0 < area["malignant"] < 2800.0  # mm2


def test_nodules_are_soft_tissue_or_calcified_and_benign_ones_are_smaller() -> None:
    benign = [draw_nodule("benign", seed) for seed in range(30)]
    malignant = [draw_nodule("malignant", seed) for seed in range(30)]
    assert max(n.radius for n in benign if n) < min(n.radius for n in malignant if n)
    assert (
        min(n.radius for n in benign if n) > 2 * SLICE_REACH
    )  # every slice of the cohort shows it at nearly full size
    assert 0.4 < np.mean([n.core > 0 for n in benign if n]) < 0.85
    assert all(20 <= n.hu <= 60 for n in (*benign, *malignant) if n)
    assert all(not n.spicules and not n.lobes for n in benign if n)
    assert all(len(n.spicules) >= 12 and n.lobes for n in malignant if n)
    assert draw_nodule("normal", 0) is None


def test_patients_differ_and_neighbouring_slices_of_one_resemble_each_other() -> None:
    slices = np.stack([draw_phantom("normal", seed, 0.0, size=64) for seed in range(5)]).astype(float)
    near = np.abs(draw_phantom("normal", 0, 1.0, size=64) - slices[0]).mean()
    assert min(np.abs(slices[0] - other).mean() for other in slices[1:]) > 1.5 * near
    assert near > 0


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(UsageError, match="cyst.*normal, benign, malignant"):
        draw_phantom("cyst", 0, 0.0)
    with pytest.raises(UsageError, match="patient_seed=-1"):
        draw_phantom("normal", -1, 0.0)
    with pytest.raises(UsageError, match="'patients_per_class': 0"):
        write_phantom_cohort(Path("never-written"), patients_per_class=0)


def test_a_cohort_has_every_file_its_table_names(tmp_path: Path) -> None:
    folder = write_phantom_cohort(tmp_path / "data" / "phantoms", **SMALL)
    assert [p.name for p in folder.parent.iterdir()] == ["phantoms"]  # no temporary folder is left
    with open(folder / "metadata.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == ["file_name", "label", "patient_id"]
    assert sorted(row["file_name"] for row in rows) == sorted(n for n in files(folder) if n.endswith(".png"))
    labels = {row["patient_id"]: row["label"] for row in rows}
    assert sorted(labels.values()) == sorted(LABELS * 2) and len(rows) == 12
    assert [labels[p] for p in sorted(labels)] != sorted(labels.values())  # patient numbers are not in class order
    for row in rows:
        assert (
            row["file_name"].startswith(f"{row['label']}/{row['patient_id']}_")
            and labels[row["patient_id"]] == row["label"]
        )
        with Image.open(folder / row["file_name"]) as image:
            assert image.mode == "L" and image.size == (48, 48)
    assert {p.name for p in folder.iterdir() if p.is_file()} == {"metadata.csv", "phantoms.json"}


def test_an_identical_cohort_is_kept_and_another_replaced(
    tmp_path: Path, cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(cohort, tmp_path / "phantoms")
    before, written = files(folder), (folder / "metadata.csv").stat().st_mtime_ns
    write_phantom_cohort(folder, **SMALL)
    assert (folder / "metadata.csv").stat().st_mtime_ns == written

    write_phantom_cohort(folder, **SMALL, seed=1)
    assert files(folder) != before
    assert json.loads((folder / "phantoms.json").read_text())["parameters"]["seed"] == 1
    monkeypatch.setattr(phantom, "GENERATOR_VERSION", phantom.GENERATOR_VERSION + 1)
    write_phantom_cohort(folder, **SMALL)  # back to the first seed, drawn by another version
    after = files(folder)
    assert after.pop("phantoms.json") != before.pop("phantoms.json")
    assert after == before  # the same draw


@pytest.mark.parametrize("damage", ["missing", "truncated", "no record", "broken record"])
def test_a_damaged_cohort_is_replaced(tmp_path: Path, cohort: Path, damage: str) -> None:
    folder = shutil.copytree(cohort, tmp_path / "phantoms")
    before = files(folder)
    image, record = next(folder.rglob("*.png")), folder / "phantoms.json"
    if damage == "missing":
        image.unlink()
    elif damage == "truncated":
        image.write_bytes(image.read_bytes()[:100])
    elif damage == "no record":
        record.unlink()
    else:
        record.write_text("{")
    write_phantom_cohort(folder, **SMALL)
    assert files(folder) == before


def test_a_folder_with_other_data_is_never_touched(tmp_path: Path) -> None:
    theirs = tmp_path / "data" / "normal" / "scan.png"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    with pytest.raises(LungCTError, match="normal/scan.png.*Fix: name another folder"):
        write_phantom_cohort(tmp_path / "data", **SMALL)
    with pytest.raises(LungCTError, match="it is a file"):
        write_phantom_cohort(theirs, **SMALL)
    with pytest.raises(LungCTError, match="No phantoms can be written"):
        write_phantom_cohort(theirs / "below-a-file", **SMALL)
    assert files(tmp_path) == {"data/normal/scan.png": b"theirs"}


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_an_interrupted_call_leaves_what_was_there(
    tmp_path: Path, cohort: Path, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    folder = shutil.copytree(cohort, tmp_path / "phantoms")
    before = files(tmp_path)
    drawn = []

    def stops_at_the_fifth(*args: object, **kwargs: object) -> np.ndarray:
        drawn.append(args)
        if len(drawn) == 5:
            raise stop("stopped")
        return np.zeros((48, 48), np.int16)

    monkeypatch.setattr(phantom, "draw_phantom", stops_at_the_fifth)
    for target in (folder, tmp_path / "new"):
        drawn.clear()
        with pytest.raises(LungCTError if stop is OSError else stop):
            write_phantom_cohort(target, **SMALL, seed=3)
    assert files(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["phantoms"]
