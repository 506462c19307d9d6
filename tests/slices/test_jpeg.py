"""JPEG files with lost parts: decoders paint something there, and it must not be taken for a slice."""

import io
from typing import Any

import numpy as np
import pytest
from made_slices import only, phantom_hu, reason
from PIL import Image

from lungct_hf.slices.window import LUNG_WINDOW


def jpeg(grey: np.ndarray, mode: str = "L", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(grey).convert(mode).save(out, "JPEG", **options)
    return out.getvalue()


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(("begin", "end"), [(0.5, 1.0), (0.9, 1.0), (0.4, 0.5), (0.6, 0.62)])
def test_parts_overwritten_with_zeros_are_noticed(mode: str, begin: float, end: float) -> None:
    whole = jpeg(LUNG_WINDOW.apply(phantom_hu(size=512)), mode, quality=95)
    low, high = int(begin * len(whole)), int(end * len(whole))
    lost = whole[:low] + bytes(high - low) + whole[high:]
    assert reason(lost) == ("truncated" if end == 1.0 else "damaged")
    assert only(whole).report.codes == ()


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}, {"quality": 10}])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_even_areas_are_no_damage(mode: str, options: dict[str, Any]) -> None:
    padded = np.zeros((1024, 1024), np.uint8)
    padded[:128, :128] = LUNG_WINDOW.apply(phantom_hu())
    for grey in (padded, padded[::-1], np.zeros_like(padded), np.full_like(padded, 255)):
        only(jpeg(np.ascontiguousarray(grey), mode, **options))


def scan(content: bytes) -> tuple[int, int]:
    """Where the picture data of a JPEG begin and end."""
    at = content.rfind(b"\xff\xda")
    return at + 2 + int.from_bytes(content[at + 2 : at + 4], "big"), content.rfind(b"\xff\xd9")


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"restart_marker_rows": 2}, {"quality": 95}])
@pytest.mark.parametrize(("begin", "end"), [(0.3, 1.0), (0.6, 1.0), (0.4, 0.5), (0.7, 0.8)])
def test_another_pictures_data_are_damage(begin: float, end: float, options: dict[str, Any]) -> None:
    one, other = (jpeg(LUNG_WINDOW.apply(phantom_hu(seed, size=512)), **options) for seed in (0, 1))
    low, high = scan(one)
    start, stop = low + int(begin * (high - low)), low + int(end * (high - low))
    foreign = other[scan(other)[0] :][: stop - start]
    assert reason(one[:start] + foreign + one[start + len(foreign) :]) in ("damaged", "truncated")
    assert reason(one[:start] + one[stop:]) in ("damaged", "truncated")  # or a part is missing
    assert only(one).report.codes == ()


def test_restart_markers_out_of_turn_are_damage() -> None:
    whole = jpeg(LUNG_WINDOW.apply(phantom_hu(size=256)), restart_marker_rows=1)
    third = whole.index(b"\xff\xd3")
    assert reason(whole[:third] + b"\xff\xd6" + whole[third + 2 :]) == "damaged"


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}, {"subsampling": 0}])
def test_every_kind_of_jpeg_is_whole(mode: str, options: dict[str, Any]) -> None:
    only(jpeg(LUNG_WINDOW.apply(phantom_hu(size=200)), mode, **options))


def test_what_follows_the_end_does_not_matter() -> None:
    whole = jpeg(LUNG_WINDOW.apply(phantom_hu()))
    assert only(whole + bytes(5000)).report.codes == only(whole).report.codes == ()
