"""From DICOM bytes to a data set that is safe to decode: only the needed tags, with limits on what unpacks."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ..errors import BadSliceError, brief
from .read import quiet

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_FRAME_PIXELS = 32_000_000  # of one frame: a CT slice has 0.26 million, a mammogram about 20 million
_MAX_PIXELS = 2**31  # of all frames of one file
_MAX_INFLATED = 600 * 2**20  # bytes
_FREE_INFLATED, _MAX_RATIO = 16 * 2**20, 200  # bytes below which unpacked to packed does not matter; as in archives
_TORN = 0.85  # of the mean step from row to row; no other lag has a smaller one in a slice that is laid out right
_DEFLATED = b"1.2.840.10008.1.2.1.99"

# What is read from a file. Everything else, and with it all that names a person, is passed over by the parser.
_TAGS = [
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesDescription",
    "PatientID",  # hashed together with the series, and in no other way
    "Modality",
    "BodyPartExamined",
    "SliceThickness",
    "FrameOfReferenceUID",
    "SeriesInstanceUID",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PatientOrientation",
    "PixelSpacing",
    "PixelAspectRatio",
    "BurnedInAnnotation",
    "DirectoryRecordSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "PixelData",
    "FloatPixelData",
    "DoubleFloatPixelData",
]
_PIXEL_TAGS = [
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleIntercept",
    "RescaleSlope",
    "ModalityLUTSequence",
    "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData",
]


def element(dataset: Dataset, keyword: str) -> Any:
    """The value of an element, or None where there is none or it cannot be understood."""
    try:
        with quiet():
            return dataset.get(keyword)
    except Exception:  # values are parsed on access, and a damaged one fails in as many ways as there are types
        return None


def read_dataset(handle: BinaryIO, *, pixels: bool = True, also: Sequence[str] = ()) -> Dataset:
    """Parse a DICOM file, with or without its Part-10 preamble; `pixels=False` stops before the pixel data.

    Elements that name a person are passed over unless `also` asks for them by keyword.

    Raises:
        BadSliceError: it is no DICOM, is damaged or cut short, or unpacks to more than it may.
    """
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        with quiet() as said:
            dataset = dcmread(
                _inflate(handle),
                force=True,
                stop_before_pixels=not pixels,
                specific_tags=[*_TAGS, *_PIXEL_TAGS, *also],
            )
        # Compressed pixel data without an end is dropped with this warning, as if there had been none.
        if any("End of file reached" in text for text in said):
            raise BadSliceError("its pixel data is cut short", "truncated")
    except BadSliceError:
        raise
    except EOFError as error:
        raise BadSliceError("it ends in the middle of a data element", "truncated") from error
    except InvalidDicomError as error:
        raise BadSliceError("it is no DICOM file", "not-an-image") from error
    except (
        Exception
    ) as error:  # the parser meets damaged bytes in many ways: struct.error, KeyError, RecursionError ...
        raise BadSliceError(f"its DICOM header is damaged ({brief(error)})") from error
    if not len(dataset) and not getattr(dataset, "file_meta", None):
        raise BadSliceError("it is no DICOM file", "not-an-image")
    return dataset


def complete(dataset: Dataset) -> list[str]:
    """Fill in what a file left out and the standard leaves little choice about; returns the names of those elements.

    Raises:
        BadSliceError: the size of the picture is not there, is no number, or is more than a slice can have.
    """
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    assumed = []
    rows, columns = integer(dataset, "Rows"), integer(dataset, "Columns")
    if not rows or not columns or rows < 0 or columns < 0:
        raise BadSliceError("it does not say how many rows and columns its picture has")
    frames = integer(dataset, "NumberOfFrames") or 1
    if frames < 0:
        raise BadSliceError(f"it says that it has {frames} frames")
    if rows * columns > MAX_FRAME_PIXELS or rows * columns * frames > _MAX_PIXELS:
        raise BadSliceError(f"it has too many pixels ({columns} x {rows}, {frames} frames)", "too-large")
    bits = integer(dataset, "BitsAllocated")
    if bits == 12:
        raise BadSliceError("its pixels are packed, two in three bytes (BitsAllocated 12)", "unsupported")
    if bits not in (1, 8, 16, 32, 64):
        raise BadSliceError("it does not say how many bits a pixel has")
    samples = integer(dataset, "SamplesPerPixel") or 1
    defaults = {
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2" if samples == 1 else "RGB",
        "BitsStored": bits,
        "PixelRepresentation": 0,
    } | ({"PlanarConfiguration": 0} if samples > 1 else {})
    for keyword, value in defaults.items():
        if element(dataset, keyword) in (None, ""):
            setattr(dataset, keyword, value)
            assumed.append(keyword)
    if not integer(dataset, "NumberOfFrames"):  # mostly absent where it is one; 0 has been seen
        dataset.NumberOfFrames = frames
    meta = dataset.file_meta
    if not meta.get("TransferSyntaxUID"):
        implicit, little = dataset.original_encoding
        # None: a data set that was made in memory, where pydicom keeps pixels in little endian.
        explicit = ExplicitVRBigEndian if little is False else ExplicitVRLittleEndian
        meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
        assumed.append("TransferSyntaxUID")
    return assumed


def integer(dataset: Dataset, keyword: str) -> int | None:
    """A whole number of the data set, or None where there is none or it is no number."""
    try:
        return int(element(dataset, keyword))
    except (TypeError, ValueError, OverflowError):
        return None


def check_codestreams(dataset: Dataset) -> None:
    """Refuse compressed frames whose own header says another size of the picture than the data set does.

    Raises:
        BadSliceError: a decoder would be made to unpack more than is stated, or to lay out rows of another length.
    """
    from pydicom.encaps import generate_fragments

    stated = (int(dataset.Columns), int(dataset.Rows))
    for fragment in generate_fragments(dataset.PixelData):
        size = codestream_size(fragment)
        if size and all(size) and size != stated:
            raise BadSliceError(
                f"a compressed frame has {size[0]} x {size[1]} pixels where {stated[0]} x {stated[1]} are stated"
            )


def check_rows(dataset: Dataset, native: bool) -> None:
    """Refuse uncompressed grey pixels that are more than the stated rows have room for.

    Decoders take what they need and leave the rest, so a part of the slice would be taken for the whole.

    Raises:
        BadSliceError: at least one row is left over.
    """
    content = element(dataset, "PixelData")
    if not native or not content or dataset.SamplesPerPixel != 1:
        return
    row = int(dataset.Columns) * int(dataset.BitsAllocated) / 8
    rows = int(dataset.Rows) * int(dataset.NumberOfFrames)
    if len(content) >= (rows + 1) * row:
        raise BadSliceError(f"its pixel data fill {len(content) / row:,.0f} rows where {rows:,} are stated")


def are_rows_torn(values: np.ndarray) -> bool:
    """Whether a slice in HU, shape (rows, columns), looks as if its rows were of another length than stated.

    Then neighbours from row to row are none, and a pixel resembles another one more than that below it: the one that
    follows after as many pixels as there are rows (rows and columns were swapped), or half or twice the columns.
    """
    rows, columns = values.shape
    flat = np.clip(values.ravel(), np.float32(-1000), np.float32(400))

    def step(lag: int) -> float:
        return float(np.abs(flat[lag:] - flat[:-lag]).mean())

    others = {rows, columns // 2, 2 * columns} - {columns}
    stated = step(columns) if rows > 1 else 0.0
    return any(0 < lag < flat.size and step(lag) < _TORN * stated for lag in others)


def codestream_size(data: bytes) -> tuple[int, int] | None:
    """Width and height as a JPEG or JPEG-LS (ISO 10918-1, 14495-1: SOF) or JPEG 2000 (15444-1: SIZ) stream says."""
    at = data[:256].find(b"\xff\x4f\xff\x51")
    if at >= 0:
        numbers = [int.from_bytes(data[at + 8 + 4 * i : at + 12 + 4 * i], "big") for i in range(4)]
        return max(numbers[0] - numbers[2], 0), max(numbers[1] - numbers[3], 0)
    at = 2 if data[:2] == b"\xff\xd8" else len(data)
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _inflate(handle: BinaryIO) -> BinaryIO:
    """The file, or for the deflated transfer syntax one whose unpacked size is known to be bearable.

    pydicom unpacks without a limit, so it must be asked, and in the way in which it will read, what it will unpack.
    """
    from pydicom.filereader import _read_file_meta_info, read_preamble

    try:
        read_preamble(handle, force=True)
        is_deflated = _read_file_meta_info(handle).get("TransferSyntaxUID") == _DEFLATED.decode()
    except Exception:  # reading it for good fails in the same way, and says why
        is_deflated = False
    start = handle.tell()
    handle.seek(0)
    if not is_deflated:
        return handle
    meta, packed = handle.read(start), handle.read()
    limit = min(_MAX_INFLATED, max(_FREE_INFLATED, _MAX_RATIO * len(packed)))
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        body = unpacker.decompress(packed, limit)
    except zlib.error as error:
        raise BadSliceError(f"its deflated part is damaged ({brief(error)})") from error
    if unpacker.unconsumed_tail:
        raise BadSliceError(f"it unpacks to more than {limit / 2**20:,.0f} MB", "too-large")
    if not unpacker.eof:
        raise BadSliceError("its deflated part ends too early", "truncated")
    # What was deflated is Explicit VR Little Endian (PS3.5 section A.5); a UID may be padded with zero bytes.
    return io.BytesIO(meta.replace(_DEFLATED, _DEFLATED[:-3] + b"\0\0\0") + body)
