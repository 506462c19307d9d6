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


def test_what_follows_the_end_does_not_matter() -> None:
    whole = jpeg(LUNG_WINDOW.apply(phantom_hu()))
    assert only(whole + bytes(5000)).report.codes == only(whole).report.codes == ()
