"""DICOM series, NIfTI volumes and tables for the tests, drawn from phantoms, with ids that must never be shown."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lungct_hf.slices.phantom import draw_phantom
from slices.made_slices import ct_dataset

SPACING = 3.0  # mm
_AFFINE = [[-2.0, 0, 0, 100], [0, -2.0, 0, 100], [0, 0, SPACING, 0], [0, 0, 0, 1]]


def hu_of(seed: int, slices: int, size: int = 96) -> np.ndarray:
    """int16 HU (slices, size, size) of one phantom, from the feet up."""
    return np.stack([draw_phantom("normal", seed, 1.5 * z, size=size) for z in range(slices)])


class Person:
    """A patient whose ids are long enough to be searched for."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.id = f"MRN-77{number:04d}"
        self.name = f"Surname{number}^Forename{number}"
        self.study, self.series = f"1.2.826.0.1.99.{number}.1", f"1.2.826.0.1.99.{number}.1.7"

    def sop(self, place: int) -> str:
        return f"{self.series}.{place + 1}"

    def tells(self, slices: int) -> list[str]:
        """All that may be found nowhere."""
        return [self.id, *self.name.split("^"), self.study, self.series, *map(self.sop, range(slices))]

    def dicom(self, folder: Path, slices: int = 4, **elements: Any) -> list[Path]:
        """Write a series, its files in an order that is not that of the scan."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for place, hu in enumerate(hu_of(self.number, slices)):
            dataset = ct_dataset(hu)
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = self.sop(place)
            dataset.PatientID, dataset.PatientName = self.id, self.name
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID = self.study, self.series
            dataset.InstanceNumber, dataset.ImagePositionPatient = place + 1, [0, 0, SPACING * place]
            for keyword, value in elements.items():
                setattr(dataset, keyword, value)
            paths.append(folder / f"IM{(place * 7) % 11:02d}.dcm")
            dataset.save_as(paths[-1], enforce_file_format=True)
        return paths


def write_nifti(path: Path, hu: np.ndarray) -> Path:
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.transpose(hu, (2, 1, 0)), np.asarray(_AFFINE, float)), path)
    return path


def write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def study(folder: Path, people: int = 4, slices: int = 4, **elements: Any) -> list[Person]:
    """A folder as archives give it, patients' ids in its paths, with a labels.csv by series."""
    found = [Person(number) for number in range(people)]
    for person in found:
        person.dicom(folder / person.id / person.study / person.series, slices, **elements)
    rows = [(person.series, ("clear", "nodule")[person.number % 2]) for person in found]
    write_rows(folder / "labels.csv", ("SeriesInstanceUID", "label"), rows)
    return found
