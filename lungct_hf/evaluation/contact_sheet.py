"""The worst errors as one picture: what the model was surest of and wrong about."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..files import write_atomic
from .report import Report

_SIDE, _TEXT, _COLUMNS = 120, 44, 4
_GREYS = 16  # palette of the file; finer steps cannot be seen at this size


def worst_errors(report: Report, count: int = 12) -> list[int]:
    """Rows of the headline's test sample that are wrong, the most confident first, one per group.

    One per group, because the neighbours of a slice that is wrong are wrong for the same reason.
    """
    sample = report.parts[report.headline].test
    assert sample.probabilities is not None
    order = np.argsort(-sample.probabilities.max(axis=1), kind="stable")
    chosen: list[int] = []
    seen: set[int] = set()
    for row in order[sample.named[order] != sample.labels[order]].tolist():
        if sample.group_of[row] not in seen:
            seen.add(int(sample.group_of[row]))
            chosen.append(row)
    return chosen[:count]


def write_contact_sheet(report: Report, read: Callable[[str], Image.Image], path: Path) -> Path | None:
    """Write the worst errors as a grid; `read` gives the slice of an id. None when nothing was named wrongly."""
    rows = worst_errors(report)
    if not rows:
        return None
    part = report.parts[report.headline]
    assert part.test.probabilities is not None
    lines = -(-len(rows) // _COLUMNS)
    sheet = Image.new("L", (min(len(rows), _COLUMNS) * (_SIDE + 8) + 8, lines * (_SIDE + _TEXT + 8) + 8), 255)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=10)
    for place, row in enumerate(rows):
        left, top = 8 + place % _COLUMNS * (_SIDE + 8), 8 + place // _COLUMNS * (_SIDE + _TEXT + 8)
        sheet.paste(ImageOps.pad(read(str(part.ids[row])).convert("L"), (_SIDE, _SIDE), color=0), (left, top))
        confidence = part.test.probabilities[row].max()
        name = str(part.ids[row]).rpartition("/")[2]
        caption = (
            name if len(name) <= 21 else f"{name[:9]}...{name[-9:]}",
            f"is {part.test.classes[part.test.labels[row]]}",
            f"named {part.test.classes[part.test.named[row]]} {confidence:.2f}",
        )
        for line, text in enumerate(caption):
            pen.text((left, top + _SIDE + 1 + 14 * line), text, fill=0, font=font)
    drawn = io.BytesIO()
    sheet.convert("RGB").quantize(_GREYS, dither=Image.Dither.NONE).save(drawn, format="PNG", optimize=True)
    write_atomic(path, drawn.getvalue())
    return path
