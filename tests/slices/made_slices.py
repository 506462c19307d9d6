"""Files that the tests of this room read: DICOM of any kind, written by pydicom."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from lungct_hf.slices.phantom import draw_phantom
from lungct_hf.slices.source import Frame, Unreadable, open_slices

PATIENT = "Secret^Person"


def phantom_hu(seed: int = 0, size: int = 128) -> np.ndarray:
    return draw_phantom("normal", seed, 0.0, size=size)


def ct_dataset(hu: np.ndarray, *, stored: str = "uint16", **elements: Any) -> Dataset:
    """A CT data set of one slice (rows, columns) or of several frames; stored = HU + 1024."""
    values = (hu.astype(np.int32) + 1024).clip(0, 4095).astype(stored)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.SeriesInstanceUID = "1.2.3.4"
    dataset.PatientName, dataset.PatientID = PATIENT, "secret-4711"
    dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 0]
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.WindowCenter, dataset.WindowWidth = 40, 80  # a viewer's, which must not matter
    dataset.Rows, dataset.Columns = hu.shape[-2:]
    if hu.ndim == 3:
        dataset.NumberOfFrames = len(hu)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = values.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.PixelData = values.tobytes()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def dicom_bytes(dataset: Dataset) -> bytes:
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def only(source: Any, **options: Any) -> Frame:
    """The one frame that a source gives."""
    found = list(open_slices(source, **options))
    assert len(found) == 1 and isinstance(found[0], Frame), found
    return found[0]


def reason(source: Any, **options: Any) -> str:
    """The reason why a source gives no frame."""
    found = list(open_slices(source, **options))
    assert len(found) == 1 and isinstance(found[0], Unreadable), found
    assert found[0].detail[0].isupper() and found[0].detail.endswith(".") and "\n" not in found[0].detail
    return found[0].reason


def grey(frame: Frame) -> np.ndarray:
    return np.asarray(frame.image)[..., 0]
