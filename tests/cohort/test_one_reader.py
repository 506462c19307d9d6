"""A slice is the same square in training and in prediction, whatever file it comes from, and is read once."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pydicom
import pytest
from PIL import Image

from lungct_hf.cohort import Cohort
from lungct_hf.errors import LungCTError, UsageError
from lungct_hf.fit.batches import Squares
from lungct_hf.slices import read, source
from lungct_hf.slices.preprocess import Preprocessing
from lungct_hf.slices.source import Frame, open_slices
from lungct_hf.slices.window import LUNG_WINDOW, Window
from slices.made_slices import ct_dataset

from .conftest import load, refused
from .scans import Person, hu_of, write_nifti, write_rows

SMALL = Preprocessing(size=64)


def grey(seed: int, window: Window = LUNG_WINDOW) -> Image.Image:
    return Image.fromarray(window.apply(hu_of(seed, 1)[0]))


def pictures(folder: Path) -> None:
    grey(1).save(folder / "a.png")
    grey(2).save(folder / "b.jpg", quality=80)
    deep = Image.fromarray(np.asarray(grey(3), np.uint16) * 257)
    deep.save(folder / "c.png")
    grey(4).convert("RGB").crop((0, 8, 96, 80)).save(folder / "d.tif")
    turned = grey(5)
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "e.jpg", exif=exif)


def pages(folder: Path) -> None:
    grey(6).save(folder / "pages.tif", save_all=True, append_images=[grey(7), grey(8)])


def series(folder: Path) -> None:
    Person(9).dicom(folder / "scan", 3)


def multi_frame(folder: Path) -> None:
    ct_dataset(hu_of(10, 3)).save_as(folder / "frames.dcm", enforce_file_format=True)


def no_ending(folder: Path) -> None:
    for number, path in enumerate(Person(11).dicom(folder, 2)):
        path.rename(folder / f"IM{number}")


def nifti(folder: Path) -> None:
    write_nifti(folder / "one.nii", hu_of(12, 3))
    write_nifti(folder / "two.nii.gz", hu_of(13, 2))


def archive(folder: Path) -> None:
    inside = folder / "inside"
    inside.mkdir()
    pictures(inside)
    series(inside)
    shutil.make_archive(str(folder / "packed"), "zip", inside)
    shutil.rmtree(inside)


KINDS: dict[str, Callable[[Path], None]] = {
    function.__name__: function for function in (pictures, pages, series, multi_frame, no_ending, nifti, archive)
}


def two_classes(root: Path, write: Callable[[Path], None]) -> Path:
    for name in ("clear", "nodule"):
        (root / name).mkdir(parents=True)
    write(root / "clear")
    grey(50).save(root / "nodule" / "x.png")
    return root


def in_prediction(source_: object, window: Window = LUNG_WINDOW) -> set[bytes]:
    """The squares that prediction makes of the slices it does not refuse."""
    frames = [frame for frame in open_slices(source_, window=window) if isinstance(frame, Frame)]
    assert len(frames)
    return {np.asarray(SMALL.letterbox(frame.image)).tobytes() for frame in frames}


def in_training(cohort: Cohort, label: str) -> set[bytes]:
    rows = np.flatnonzero(cohort.labels == cohort.classes.index(label))
    squares = Squares(cohort, SMALL)
    assert squares._made is not None
    for row in rows:  # what was made while loading is what reading again gives
        assert np.array_equal(squares[row], np.asarray(SMALL.letterbox(cohort.read(row))))
    return {squares[row].tobytes() for row in rows}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("window", [None, Window(-600.0, 1200.0)])
def test_training_and_prediction_see_the_same(tmp_path: Path, kind: str, window: Window | None) -> None:
    root = two_classes(tmp_path / "data", KINDS[kind])
    cohort = load(root, preprocessing=SMALL, window=window)
    assert in_training(cohort, "clear") == in_prediction(root / "clear", window or LUNG_WINDOW)
    assert len(set(cohort.ids)) == len(cohort) == len(cohort.reports) and cohort.window == (window or LUNG_WINDOW)
    again = pickle.loads(pickle.dumps(cohort))
    rows = np.random.default_rng(0).permutation(len(cohort))
    assert all(np.array_equal(np.asarray(again.read(i)), np.asarray(cohort.read(i))) for i in rows)
    assert load(root).fingerprint() == cohort.fingerprint() or window is not None


def test_a_zip_archive_of_class_folders_is_the_folder(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "data", pictures)
    write_rows(root / "metadata.csv", ("file_name", "patient_id"), [
        (path.relative_to(root).as_posix(), path.name) for path in sorted(root.rglob("*.*g")) + [root / "clear/d.tif"]
    ])  # fmt: skip
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "data")
    folder, packed = load(root), load(tmp_path / "packed.zip")
    assert packed.fingerprint() == folder.fingerprint() and packed.ids.tolist() == folder.ids.tolist()
    assert (packed.kind, packed.source) == ("archive", "packed.zip") and packed.grouping == "column:patient_id"
    assert np.array_equal(np.asarray(packed.read(2)), np.asarray(folder.read(2)))
    content = (tmp_path / "packed.zip").read_bytes()
    (tmp_path / "packed.zip").write_bytes(content[: len(content) // 2])
    refused(tmp_path / "packed.zip", "cannot be read", "damaged or cut short")


def test_bytes_in_parquet_of_every_kind(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "data", pictures)
    series(root / "clear")
    files = sorted(path for path in root.rglob("*") if path.is_file())
    table = {
        "image": [path.read_bytes() for path in files],
        "label": [path.relative_to(root).parts[0] for path in files],
    }
    datasets.Dataset.from_dict(table).to_parquet(tmp_path / "rows.parquet")
    cohort, folder = load(tmp_path / "rows.parquet", preprocessing=SMALL), load(root, preprocessing=SMALL)
    assert in_training(cohort, "clear") == in_training(folder, "clear")
    assert cohort.fingerprint() == folder.fingerprint()


def test_the_nifti_feature_of_datasets(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "data", nifti)
    files = sorted((root / "clear").iterdir())
    rows = {"nifti": [str(path) for path in files], "label": ["clear", "nodule"]}
    features = datasets.Features({"nifti": datasets.Nifti(), "label": datasets.ClassLabel(names=["clear", "nodule"])})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "volumes.parquet")
    cohort = load(tmp_path / "volumes.parquet", preprocessing=SMALL)
    assert cohort.counts() == {"clear": 3, "nodule": 2} and cohort.ids[0].endswith("one.nii#0")
    assert in_training(cohort, "clear") == in_prediction(files[0])


def test_slices_of_one_volume_stay_together(tmp_path: Path) -> None:
    for number in range(6):
        write_nifti(
            tmp_path / "d" / ("clear", "nodule")[number % 2] / f"v{number}.nii", hu_of(number, 3) - 15 * number
        )
    cohort = load(tmp_path / "d")
    assert cohort.grouping == "linked" and len(cohort) == 18
    for number in range(6):
        rows = [i for i, name in enumerate(cohort.ids) if f"v{number}.nii#" in name]
        assert len(rows) == 3 and len(set(cohort.groups[rows])) == 1
    blocks = load(tmp_path / "d", grouping="file-blocks:1")
    assert len(set(blocks.groups)) == 6


def test_a_file_is_decoded_once_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = two_classes(tmp_path / "data", pictures)
    decoded = []
    plain = source.read_pages
    monkeypatch.setattr(source, "read_pages", lambda *asked: decoded.append(1) or plain(*asked))
    monkeypatch.setattr(read, "read_slice", lambda *_: pytest.fail("a second way to read"))
    cohort = load(root, preprocessing=SMALL)
    squares = Squares(cohort, SMALL)
    assert [squares[row].shape for row in range(len(cohort))] == [(64, 64, 3)] * 6 and len(decoded) == 6


def test_squares_that_do_not_fit_are_made_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = two_classes(tmp_path / "data", pictures)
    whole = load(root, preprocessing=SMALL)
    monkeypatch.setattr("lungct_hf.cohort.load.SQUARES_BYTES", 4 * 64 * 64 * 3)
    cohort = load(root, preprocessing=SMALL)
    assert cohort.squares is None and whole.squares is not None
    assert all(np.array_equal(Squares(cohort, SMALL)[i], whole.squares[i]) for i in range(len(cohort)))
    other = Preprocessing(size=32)
    assert Squares(whole, other)[0].shape == (32, 32, 3), "squares of another preprocessing are not used"


def test_what_the_check_refuses(tmp_path: Path) -> None:
    """In a scan it is left out and counted; a picture that somebody sorted is kept and noted."""
    root = two_classes(tmp_path / "data", series)
    ct_dataset(np.zeros((96, 96), np.int16), SeriesInstanceUID=Person(9).series, PatientID="x9").save_as(
        root / "clear" / "scan" / "n.dcm"
    )
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 96), dtype=np.uint8)).save(
        root / "nodule" / "n.png"
    )
    cohort = load(root)
    assert cohort.counts() == {"clear": 3, "nodule": 2} and sum(cohort.left_out.values()) == 1
    assert not {report.reason for report in cohort.reports[:3]} - {None}
    notes = " ".join(cohort.notes)
    assert "would refuse 1 of 5 slices" in notes and "left out: 1 " in notes
    assert "3 slices come from HU" in notes and "2 are pictures" in notes


def test_pictures_of_plainly_different_windows_are_noted(tmp_path: Path) -> None:
    for number in range(12):
        folder = tmp_path / "d" / ("clear", "nodule")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        grey(number, Window(-485.0, 1500.0) if number % 2 else Window(-100.0, 2200.0)).save(folder / f"{number}.png")
    assert any("plainly different windows" in note for note in load(tmp_path / "d").notes)
    for number in range(12):
        grey(number).save(tmp_path / "d" / ("clear", "nodule")[number % 2] / f"{number}.png")
    assert load(tmp_path / "d").notes == ()


def test_damaged_frames_are_bad_files(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "data", series)
    dataset = pydicom.dcmread(next((root / "clear" / "scan").iterdir()))
    dataset.PixelData = dataset.PixelData[:1000]
    dataset.save_as(root / "clear" / "scan" / "short.dcm")
    (root / "clear" / "scan" / "junk.dcm").write_bytes(b"junk" * 300)
    refused(root, "2 bad files among the 6 images", "junk.dcm", "cut short", "neither an image nor DICOM")
    with pytest.warns(UserWarning, match="Left out 2 bad files"):
        assert len(load(root, on_bad_file="skip")) == 4


def test_a_volume_that_changes_after_loading(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "data", nifti)
    cohort = load(root)
    row = cohort.ids.tolist().index("clear/one.nii#2")
    assert cohort.read(row).size == (96, 96)
    write_nifti(root / "clear" / "one.nii", hu_of(12, 2))
    with pytest.raises(LungCTError, match="has changed since"):
        cohort.read(row)
    assert cohort.read(0).size == (96, 96)


def test_a_window_that_is_none() -> None:
    assert Window.parse("-600, 1500") == Window(-600.0, 1500.0)
    for text in ("", "1", "a,b", "0,0", "0,-5", "nan,1", "1,2,3"):
        with pytest.raises(UsageError, match="CENTRE,WIDTH"):
            Window.parse(text)


def test_picture_digests_stay_those_of_the_file(tmp_path: Path) -> None:
    import hashlib

    root = two_classes(tmp_path / "data", pages)
    cohort = load(root)
    assert cohort.sha256[-1] == hashlib.sha256((root / "nodule/x.png").read_bytes()).hexdigest()
    whole = hashlib.sha256((root / "clear/pages.tif").read_bytes()).hexdigest()
    assert cohort.sha256[1] == hashlib.sha256(f"{whole}#1".encode()).hexdigest()
    assert cohort.ids.tolist()[:3] == [f"clear/pages.tif#{page}" for page in range(3)]
