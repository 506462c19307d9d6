"""What a file is, told by its first bytes and never by its name."""

from __future__ import annotations

import re
from typing import Literal

# What holds a scan in one file, beside DICOM.
VOLUMES: tuple[str, ...] = ("nifti", "metaimage", "nrrd", "numpy")
VOLUME_SUFFIXES: tuple[str, ...] = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr", ".npy")
HEAD = 560  # bytes needed: a NIfTI-2 header has 540

_IMAGES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM")
_METAIMAGE = re.compile(rb"\s*(ObjectType|ObjectSubType|NDims|Comment|Name)[ \t]*=[ \t]*[^\r\n]*\r?\n")
_NAMED = (
    (b"GIF8", "a GIF animation"),
    (b"%PDF", "a PDF document"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 codestream"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"8BPS", "a Photoshop file"),
    (b"\0\0\x01\0", "an icon"),
    (b"version https://git-lfs", "a Git LFS pointer in place of a file (`git lfs pull` fetches that)"),
)


def sniff(head: bytes) -> str:
    """One of "image", "dicom", "zip", "gzip", the `VOLUMES`, or "" for none; "named:..." says what else it is."""
    if head[128:132] == b"DICM":
        return "dicom"
    if head.startswith(_IMAGES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return "image"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0"):
        return "nifti"
    if head.startswith(b"NRRD000"):
        return "nrrd"
    if head.startswith(b"\x93NUMPY"):
        return "numpy"
    if _METAIMAGE.match(head):
        return "metaimage"
    if head[4:12] in (b"ftypavif", b"ftypheic", b"ftypmif1"):
        return "named:an AVIF or HEIC image"
    for magic, name in _NAMED:
        if head.startswith(magic):
            return f"named:{name}"
    return "dicom" if _starts_with_an_element(head) else ""


def _starts_with_an_element(head: bytes) -> bool:
    """Whether this may be DICOM without its preamble: a first data element of group 2 or 8, of a believable length."""
    orders: tuple[Literal["little", "big"], ...] = ("little", "big")
    for order in orders:
        group = int.from_bytes(head[:2], order)
        if group in (2, 8) and int.from_bytes(head[2:4], order) <= 0x3000:
            explicit = head[4:6].isalpha() and head[4:6].isupper()
            if explicit or int.from_bytes(head[4:8], order) <= 1024:
                return True
    return False
