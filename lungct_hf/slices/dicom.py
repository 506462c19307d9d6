"""Slices from DICOM: frames in HU, in the model's window and never in the one a viewer left in the file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image

from ..errors import BadSliceError, brief, shown
from .build import judged_hu_frame, picture_frame
from .dicom_file import are_rows_torn, check_codestreams, check_rows, complete, element, integer, read_dataset
from .dicom_header import Header, choose_polarity, read_header
from .frame import Frame
from .hounsfield import Fault, find_fault
from .limits import InputLimits
from .read import quiet
from .series import SeriesNames, instance_key, series_key
from .stored import best_reading, hidden_padding, stated_values
from .window import Window

if TYPE_CHECKING:
    from pydicom import Dataset

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
# gdcm last: it is asked only where nothing else decodes a syntax, since damaged streams have crashed it.
_LOSSY_JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")  # of 8 bits; of 8 or 12
_PLUGINS = ("pydicom", "pylibjpeg", "pillow", "pyjpegls", "gdcm")


def dicom_frames(handle: BinaryIO, window: Window, limits: InputLimits | None, file: str) -> Iterator[Frame]:
    """Every frame of a DICOM file.

    Raises:
        BadSliceError: it holds no picture, is damaged or cut short, is too large, or needs a decoder that is missing.
    """
    yield from dataset_frames(read_dataset(handle), window, limits, file)


def dataset_frames(dataset: Dataset, window: Window, limits: InputLimits | None, file: str) -> Iterator[Frame]:
    """Every frame of a data set that was read before; it is changed only where required elements were missing."""
    if not any(element(dataset, keyword) for keyword in _PIXELS):
        name = _understood(_class_name, dataset)
        raise BadSliceError(f"it is a DICOM file without a picture{f' ({name})' if name else ''}", "not-an-image")
    try:
        yield from _frames(dataset, window, limits, file)
    except BadSliceError as error:
        if not _says_no_ct(dataset):
            raise
        # Whoever sends a file of another kind is helped more by that than by what else is wrong with it.
        raise BadSliceError(f"its header says that it is no CT; besides, {error}", "not-ct") from error


def _says_no_ct(dataset: Dataset) -> bool:
    try:
        return "not-ct" in _understood(read_header, dataset, 0).codes
    except BadSliceError:  # a header that nobody understands says nothing
        return False


def _frames(dataset: Dataset, window: Window, limits: InputLimits | None, file: str) -> Iterator[Frame]:
    if not hasattr(dataset, "file_meta"):
        from pydicom.dataset import FileMetaDataset

        dataset.file_meta = FileMetaDataset()
    facts: dict[str, Any] = {"kind": "dicom"}
    if assumed := _understood(complete, dataset):
        facts["assumed"] = assumed
    facts["transfer_syntax"] = shown(element(dataset.file_meta, "TransferSyntaxUID").name)
    uid, count = element(dataset, "SeriesInstanceUID"), integer(dataset, "NumberOfFrames") or 1
    key = series_key(uid, element(dataset, "PatientID"))
    names = SeriesNames(str(uid or "").strip(), str(element(dataset, "SeriesDescription") or "").strip())
    if count > 1:
        facts["frames"] = count
    for number, stored in enumerate(_decode(dataset)):
        header = _understood(read_header, dataset, number)
        position = header.position if header.position is not None else (float(number) if count > 1 else None)
        instance = instance_key(element(dataset, "SOPInstanceUID"), number)
        place: dict[str, Any] = {"series": key, "position": position, "instance": instance, "names": names}
        place |= {"header": header, "limits": limits}
        if stored.ndim == 3:
            header.codes.add("not-ct")  # three colours a pixel are no HU
            yield picture_frame(Image.fromarray(_to_8_bit(stored)), facts | header.facts, file, number, **place)
        else:
            hu, fault = _understood(_to_hu, dataset, stored, header, window)
            if are_rows_torn(hu):
                raise BadSliceError("its rows and columns do not fit its pixels")
            yield judged_hu_frame(hu, fault, facts | header.facts, file, number, window, **place)


def _understood(step: Callable[..., Any], *arguments: Any) -> Any:
    """Run a step that reads elements of the header: what pydicom cannot make sense of there is damage."""
    try:
        with quiet():
            return step(*arguments)
    except BadSliceError:
        raise
    except Exception as error:
        raise BadSliceError(f"its DICOM header is damaged ({brief(error)})") from error


def _decode(dataset: Dataset) -> Iterator[np.ndarray]:
    """Stored values frame by frame: (rows, columns), or (rows, columns, 3) as RGB."""
    from pydicom.pixels.common import PhotometricInterpretation as Photometric
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import as_pixel_options

    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        with quiet():
            decoder = get_decoder(syntax)
    except RuntimeError as error:  # a subclass of it says that there is none
        raise BadSliceError(
            f"pixels of the transfer syntax {shown(syntax.name)} are not read here", "unsupported"
        ) from error
    plugin = ""
    if decoder.is_encapsulated:
        if not decoder.is_available:
            raise BadSliceError(
                f"its pixels are compressed as {syntax.name} and no decoder for that is installed; "
                "pip install 'lungct-hf[dicom]' brings one",
                "unsupported",
            )
        plugin = _choose_plugin(dataset, decoder.available_plugins)
    done = 0
    try:
        is_palette = dataset.PhotometricInterpretation == Photometric.PALETTE_COLOR
        if decoder.is_encapsulated:
            check_codestreams(dataset)
        check_rows(dataset, native=not decoder.is_encapsulated)
        with quiet():
            # Which bits of a sample count is decided in stored.py, by what the values can be.
            options = as_pixel_options(dataset) | {"correct_unused_bits": dataset.SamplesPerPixel > 1}
        frames = decoder.iter_array(dataset, raw=dataset.SamplesPerPixel == 1, decoding_plugin=plugin, **options)
        while True:
            with quiet() as said:
                item = next(frames, None)
            # pydicom says where run lengths unpack to more pixels than are stated; one byte evens a segment out.
            excess = [re.search(r"non-conformant padding - (\d+) vs. (\d+) bytes", text) for text in said]
            if any(found and int(found[1]) - int(found[2]) > 1 for found in excess):
                raise BadSliceError("its compressed pixels are more than its rows and columns have room for")
            if item is None or done == dataset.NumberOfFrames:
                break
            array = item[0]
            yield apply_color_lut(array, dataset) if is_palette else array
            done += 1
    except BadSliceError:
        raise
    except Exception as error:  # decoders meet damaged streams in as many ways as there are decoders
        short = isinstance(error, EOFError) or any(
            word in str(error).lower()
            for word in ("less than expected", "truncated", "end of", "not enough", "no more")
        )
        where = f" from frame {done} on" if done else ""
        text = "its pixel data is cut short" if short else "its pixel data cannot be decoded"
        raise BadSliceError(f"{text}{where} ({brief(error)})", "truncated" if short else "damaged") from error
    if done < int(dataset.NumberOfFrames):
        raise BadSliceError(f"it says it has {dataset.NumberOfFrames} frames, but holds {done}", "truncated")


def _choose_plugin(dataset: Dataset, available: Sequence[str]) -> str:
    """The decoder for a data set's syntax.

    Raises:
        BadSliceError: those that are installed do not decode samples of more than 8 bits in lossy JPEG.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    order: tuple[str, ...] = _PLUGINS
    if syntax in _LOSSY_JPEG:
        if syntax == _LOSSY_JPEG[1] and dataset.BitsStored != 8:
            if "pylibjpeg" not in available:
                raise BadSliceError(
                    "its pixels are JPEG with 12 bits and no decoder for that is installed; pip install "
                    "'lungct-hf[dicom]' brings pylibjpeg-libjpeg",
                    "unsupported",
                )
        else:  # the same pixels whether or not others are installed: decoders of lossy JPEG differ by a grey level
            order = ("pillow", *_PLUGINS)
    return next((name for name in order if name in available), "")


def _to_hu(dataset: Dataset, samples: np.ndarray, header: Header, window: Window) -> tuple[np.ndarray, Fault | None]:
    """HU of a frame from its samples as they were decoded, (rows, columns), float32, and why they cannot be HU."""

    def convert(stored: np.ndarray) -> np.ndarray:
        hu = _rescale(dataset, stored, header)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            header.warnings.add("photometric")
            bits = min(int(dataset.BitsStored), 8 * stored.dtype.itemsize)
            top = -1 if stored.dtype.kind == "i" else 2**bits - 1
            turned = top - stored.astype(np.int32 if bits <= 16 else np.float64)
            hu = choose_polarity(hu, _rescale(dataset, turned, header))
        for low, high in _padding(dataset):
            # Padding that is darker than air stays as it is; padding at a bright value would be taken for bone.
            outside = ((samples >= low) & (samples <= high)) | ((stored >= low) & (stored <= high))
            hu[outside & (hu > -1000.0)] = min(window.center - window.width / 2, -1000.0)
        if hidden is not None:
            hu[hidden] = -np.inf
        return hu

    samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
    hidden = hidden_padding(dataset, samples)

    if "ModalityLUTSequence" in dataset:  # what a table leads to is no matter of signs
        hu = convert(stated_values(dataset, samples))
        fault, is_mended = find_fault(hu), False
    else:
        hu, fault, is_mended = best_reading(dataset, samples, convert)
    if is_mended:
        header.warnings.add("header-overruled")
    return hu, fault


def _padding(dataset: Dataset) -> list[tuple[int, int]]:
    """The range of stored values that is padding, if there is one."""
    padding, limit = integer(dataset, "PixelPaddingValue"), integer(dataset, "PixelPaddingRangeLimit")
    if padding is None:
        return []
    low, high = sorted(_signed(dataset, value) for value in (padding, padding if limit is None else limit))
    return [(low, high)]


def _signed(dataset: Dataset, padding: int) -> int:
    """Padding as a stored value: some writers put it in an unsigned element beside signed pixels, or the reverse."""
    bits = int(dataset.BitsAllocated)
    if dataset.PixelRepresentation == 1:
        return padding - 2**bits if padding >= 2 ** (bits - 1) else padding
    return padding + 2**bits if padding < 0 else padding


def _rescale(dataset: Dataset, stored: np.ndarray, header: Header) -> np.ndarray:
    if "ModalityLUTSequence" in dataset:
        from pydicom.pixels.processing import apply_modality_lut

        return np.asarray(apply_modality_lut(stored, dataset), dtype=np.float32)
    hu = stored.astype(np.float32)
    hu *= np.float32(header.slope)
    hu += np.float32(header.intercept)
    return hu


def _to_8_bit(colours: np.ndarray) -> np.ndarray:
    if colours.dtype == np.uint8:
        return np.ascontiguousarray(colours)
    top = float(np.iinfo(colours.dtype).max) if colours.dtype.kind in "iu" else max(float(colours.max()), 1.0)
    return np.clip(colours * (255.0 / top), 0, 255).astype(np.uint8)


def _class_name(dataset: Dataset) -> str:
    if "DirectoryRecordSequence" in dataset:
        return "the index of a disc: open the folder it lies in"
    uid = element(dataset, "SOPClassUID") or getattr(dataset, "file_meta", {}).get("MediaStorageSOPClassUID")
    return "" if uid is None or not str(uid).startswith("1.2.840.10008.") else shown(uid.name)
