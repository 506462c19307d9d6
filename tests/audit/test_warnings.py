"""Each fault is found and named, and data without it get no such warning."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from lungct_hf.audit import CODES, audit_data
from lungct_hf.audit.copies import NEAR_COPY
from lungct_hf.audit.page import render_page
from lungct_hf.slices.phantom import write_phantom_cohort

from .conftest import CLASSES, Planned, codes, draw, encode, files


def shifted(image: Image.Image, by: int) -> Image.Image:
    return Image.fromarray(np.pad(np.asarray(image), ((by, 0), (by, 0)), mode="edge")[:-by, :-by])


COPIES: dict[str, Callable[[Image.Image], bytes]] = {
    "brighter": lambda image: encode(ImageEnhance.Brightness(image).enhance(1.2)),
    "gamma": lambda image: encode(image.point(lambda value: 255 * (value / 255) ** 0.7)),
    "re-encoded": lambda image: encode(image, "JPEG", quality=60),
    "shifted by 1": lambda image: encode(shifted(image, 1)),
    "shifted by 2": lambda image: encode(shifted(image, 2)),
    "mirrored": lambda image: encode(ImageOps.mirror(image)),
    "resized": lambda image: encode(image.resize((224, 224), Image.Resampling.BICUBIC)),
}


def test_clean_data_get_no_warning(audited) -> None:
    """Two slices per patient, patients named; and one slice per patient, not named."""
    assert codes(audited(Planned(people=10))) == set()
    assert codes(audited(Planned(people=20, slices=1), "unnamed", patients=False)) == set()


def test_phantoms_get_no_warning(tmp_path: Path) -> None:
    write_phantom_cohort(tmp_path / "data", patients_per_class=12, slices_per_patient=2, size=96)
    assert codes(audit_data(str(tmp_path / "data"), progress=False)) == set()


def test_duplicates_in_bytes_and_in_pixels(audited) -> None:
    data = Planned()
    original, patient = data.files[data.path(0)]
    same_bytes = data.add("normal/again.png", original, patient)
    same_pixels = data.add("normal/repacked.bmp", encode(Image.open(io.BytesIO(original)), "BMP"), patient)
    found = audited(data)
    assert codes(found) == {"duplicate"}
    assert files(found, "duplicate") == {data.path(0), same_bytes, same_pixels}
    assert "2 slices repeat" in found.warnings[0].message and "1 byte for byte" in found.warnings[0].message


def test_one_picture_in_two_classes(audited) -> None:
    data = Planned()
    copy = data.add("malignant/other.png", data.files[data.path(0)][0], "P900")
    found = audited(data)
    # The patient's other slice is a near-copy of the copy.
    assert codes(found) == {"duplicate-across-classes", "near-copy-across-classes"}
    assert files(found, "duplicate-across-classes") == {data.path(0), copy}


@pytest.mark.parametrize("kind", COPIES)
def test_near_copies_within_and_across_classes(audited, kind: str) -> None:
    data = Planned()
    within = data.add("normal/copy.png", COPIES[kind](draw(0)), "P900")
    across = data.add("benign/copy.png", COPIES[kind](draw(5)), "P901")
    found = audited(data)
    assert codes(found) == {"near-copy", "near-copy-across-classes"}
    # A patient's other slice is as near to the copy as the slice it was made from.
    assert {within, data.path(0)} <= files(found, "near-copy") <= {within, data.path(0), data.path(0, 1)}
    other = files(found, "near-copy-across-classes")
    assert {across, data.path(5)} <= other <= {across, data.path(5), data.path(5, 1)}


@pytest.mark.parametrize("kind", ["identical", *COPIES])
def test_copies_across_the_datas_own_splits(audited, kind: str) -> None:
    data = Planned(people=9, splits=("train", "valid", "test"))
    clean = audited(data, "clean")
    assert codes(clean) == set() and set(clean.figures["splits"]["counts"]) == {"train", "validation", "test"}
    original = data.path(0, 0, "train")
    make = COPIES.get(kind, lambda image: data.files[original][0])
    copy = data.add("test/normal/copy.png", make(draw(0)), "P900")
    found = audited(data, "leaking")
    assert "near-copy-across-splits" in codes(found)
    assert {original, copy} <= files(found, "near-copy-across-splits") <= {original, copy, data.path(0, 1, "train")}


def test_a_patient_in_two_splits(audited) -> None:
    data = Planned(people=9, splits=("train", "test"))
    moved = data.add("test/normal/late.png", draw(700), "P0")
    found = audited(data)
    assert codes(found) == {"near-copy-across-splits"}
    assert files(found, "near-copy-across-splits") == {data.path(0, 0, "train"), data.path(0, 1, "train"), moved}
    assert "1 patient_id lies in more than one split" in found.warnings[0].message


def test_a_mirrored_test_split_is_called_one(audited) -> None:
    """Nobody looks like the test slices until they are flipped back."""
    data = Planned(people=8, slices=1, splits=("train",))
    for person in range(0, 24, 2):
        flipped = ImageOps.mirror(draw(person, 1))
        data.add(data.path(person, 0, "test"), encode(flipped, "JPEG", quality=80), f"P{900 + person}")
    found = audited(data)
    leak = next(warning for warning in found.warnings if warning.code == "near-copy-across-splits")
    assert leak.total == 24 and "12 pairs mirrored" in leak.message
    near = found.figures["near_copies"]
    assert near["across_splits"]["mirrored_pairs"] == 12 and "inverted" in near["not_recognised"]
    page = render_page(found)
    assert ", mirrored</figcaption>" in page and near["not_recognised"] in page


def test_slices_of_one_named_patient_in_two_splits_are_no_near_copies_of_anybody_else(audited) -> None:
    data = Planned(people=8, slices=1, splits=("train",))
    for person in range(24):
        data.add(data.path(person, 0, "test"), draw(person, 1), f"P{person}")
    found = audited(data)
    assert codes(found) == {"near-copy-across-splits"} and found.warnings[0].total == 48
    near = found.figures["near_copies"]
    assert near["within_class"] == {"slices": 0, "pairs_found": 0, "mirrored_pairs": 0, "pairs": []}
    assert near["across_splits"]["slices"] == 48
    assert "Within a class" not in render_page(found)


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_one_class_equalised(audited, format: str) -> None:
    data = Planned(people=10)
    names = data.change("malignant", ImageOps.equalize, format=format)
    found = audited(data)
    assert "class-histogram" in codes(found) and set(names) <= files(found, "class-histogram")


def test_classes_that_went_through_different_numbers_of_rounds(audited) -> None:
    """As in a public copy of IQ-OTH/NCCD: equalisation and a threshold, 6, 7 or either many times."""

    def rounds(count: int) -> Callable[[Image.Image], Image.Image]:
        def process(image: Image.Image) -> Image.Image:
            for _ in range(count):
                image = ImageOps.equalize(image).point(lambda value: value if value >= 90 else 0)
            return image

        return process

    data = Planned(people=10)
    for label, count in zip(CLASSES, (7, 6, 5), strict=True):
        data.change(label, rounds(count))
    found = audited(data)
    assert found.figures["histograms"]["processed"]
    same = Planned(people=10)
    for label in CLASSES:
        same.change(label, rounds(6))
    assert "class-histogram" not in codes(audited(same, "alike"))


def test_one_class_with_another_shape_or_size(audited) -> None:
    wide, large = Planned(people=10), Planned(people=10)
    names = wide.change("malignant", lambda image: image.resize((120, 96)))
    found = audited(wide, "wide")
    assert "class-geometry" in codes(found) and files(found, "class-geometry") == set(names)
    names = large.change("benign", lambda image: image.resize((112, 112)))
    found = audited(large, "large")
    assert "class-geometry" in codes(found) and files(found, "class-geometry") == set(names)


def test_sizes_that_say_nothing_about_the_class(audited) -> None:
    data = Planned(people=12)
    for person in range(36):
        size = [(96, 96), (120, 96), (96, 110)][person // 3 % 3]
        for number in range(2):
            data.add(data.path(person, number), draw(person, number).resize(size), f"P{person}")
    assert "class-geometry" not in codes(audited(data))


def test_files_numbered_scan_by_scan(audited) -> None:
    """Without patients the order of the files tells of them, and a nearest neighbour finds them again."""
    data = Planned(people=8, slices=4)
    found = audited(data, patients=False)
    assert codes(found) == {"near-copy", "file-order", "shortcut-ring", "shortcut-1nn"}
    assert found.figures["file_order"]["consecutive"]["near_copies"] > 0.5
    assert codes(audited(data, "named")) == set()


def test_a_mark_outside_the_lung(audited) -> None:
    def mark(image: Image.Image) -> Image.Image:
        marked = image.copy()
        marked.paste(250, (2, 2, 12, 12))
        return marked

    data = Planned(people=12)
    data.change("malignant", mark)
    found = audited(data)
    assert "shortcut-ring" in codes(found)
    assert found.figures["probes"]["views"]["ring"]["grouped"]["recall"]["malignant"] > 0.9


def test_classes_that_a_nearest_neighbour_tells_apart(audited) -> None:
    data = Planned(people=12)
    for label, value in zip(CLASSES, (60, 130, 200), strict=True):
        data.change(label, lambda image, value=value: image.point(lambda grey: grey // 8 + value))
    assert "shortcut-1nn" in codes(audited(data))


@pytest.mark.real_data
def test_real_slices(real_data: Path) -> None:
    found = audit_data(str(real_data), progress=False)
    assert codes(found) - {"near-copy-across-classes"} == {
        "duplicate", "near-copy", "class-geometry", "file-order", "shortcut-ring", "shortcut-1nn"
    }  # fmt: skip
    assert found.figures["near_copies"]["cut"] == NEAR_COPY
    views = found.figures["probes"]["views"]
    assert views["1-nn"]["image"]["accuracy"] > 0.98 and views["1-nn"]["grouped"]["balanced_accuracy"] < 0.6


@pytest.mark.real_data
def test_real_slices_that_were_equalised_six_or_seven_times(real_data: Path, tmp_path: Path) -> None:
    """As in the public copy: a range of dark levels is empty everywhere, and the number of rounds tells the class."""
    for number, path in enumerate(sorted(real_data.rglob("*.jpg"))[::4]):
        image = Image.open(path).convert("L")
        for _ in range({"M": 6, "N": 7, "B": 6 + number % 2}[path.name[0]]):
            image = ImageOps.equalize(image).point(lambda value: value if value >= 100 else 0)
        copy = tmp_path / path.relative_to(real_data)
        copy.parent.mkdir(parents=True, exist_ok=True)
        image.save(copy, quality=95)
    found = audit_data(str(tmp_path), progress=False)
    assert found.figures["histograms"]["processed"] and "class-histogram" in codes(found)


def test_codes_are_those_promised() -> None:
    assert set(CODES) == {
        "duplicate", "duplicate-across-classes", "near-copy", "near-copy-across-classes", "near-copy-across-splits",
        "class-histogram", "class-geometry", "mixed-windows", "file-order", "shortcut-ring", "shortcut-1nn",
    }  # fmt: skip
