"""One file, however large it says it is, takes less than 1 GB: in a process of its own, whose peak is measured."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_slices import ct_dataset, dicom_bytes, phantom_hu
from PIL import Image

GB = 1_000  # MB
SIDE = 5_600  # 31 million pixels: as many as are decoded
PEAK = """
import re, sys
from pathlib import Path
from lungct_hf.slices.source import Frame, open_slices
for number, row in enumerate(open_slices(sys.argv[1])):
    if number == 20:
        break
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())  # ru_maxrss knows its parent's too
print(isinstance(row, Frame), getattr(row, "reason", ""), int(peak[1]) // 1024)
"""


def picture(*shape: int, form: str, kind: type = np.uint8, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.zeros(shape, kind)).save(out, form, **options)
    return out.getvalue()


def multi_frame() -> bytes:
    """570 MB of slices."""
    dataset = ct_dataset(np.zeros((1, 512, 512), np.int16), NumberOfFrames=1_140)
    dataset.PixelData = (phantom_hu(size=512) + 1024).astype(np.uint16).tobytes() * 1_140
    return dicom_bytes(dataset)


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("1.dcm", multi_frame())
    return out.getvalue()


MADE: dict[str, tuple[Callable[[], bytes], str]] = {
    "png": (lambda: picture(SIDE, SIDE, 3, form="PNG"), "True"),
    "deep png": (lambda: picture(SIDE, SIDE, form="PNG", kind=np.uint16), "True"),
    "webp": (lambda: picture(SIDE, SIDE, 4, form="WEBP", lossless=True), "True"),
    "too large png": (lambda: picture(1, 64_000_000, form="PNG"), "False too-large"),
    "too large webp": (lambda: picture(7_900, 7_900, 3, form="WEBP", lossless=True), "False too-large"),
    "dicom": (multi_frame, "True"),
    "dicom in an archive": (zipped, "True"),
    "large dicom": (lambda: dicom_bytes(ct_dataset(np.zeros((SIDE, SIDE), np.int16))), "True"),
}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak of a process")
@pytest.mark.parametrize("name", MADE)
def test_no_file_takes_a_gigabyte(tmp_path: Path, name: str) -> None:
    make, outcome = MADE[name]
    path = tmp_path / "file"
    path.write_bytes(make())
    done = subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, text=True)
    path.unlink()
    said, _, peak = done.stdout.strip().rpartition(" ")
    assert said.strip() == outcome and int(peak) < GB, (done.stdout, done.stderr)
