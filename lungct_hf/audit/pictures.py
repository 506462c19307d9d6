"""The pictures and curves of the page: PNG data URIs for slices, inline SVG for curves that follow the theme."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

from PIL import Image

from .slices import Slices

_GAP = 3  # pixels between the pictures of a strip
_WIDTH, _HEIGHT, _BOTTOM = 640, 200, 24


def picture(slices: Slices, row: int, side: int = 192) -> str:
    """One slice as a PNG data URI, its longer side at most `side` pixels."""
    image = slices.read(row).convert("L")
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return _png(image)


def strip(slices: Slices, rows: Sequence[int]) -> str:
    """The thumbnails of `rows` side by side, as a PNG data URI."""
    tall, wide = slices.thumbnails.shape[1:]
    sheet = Image.new("L", (len(rows) * (wide + _GAP) - _GAP, tall), 128)
    for place, row in enumerate(rows):
        sheet.paste(Image.fromarray(slices.thumbnails[row]), (place * (wide + _GAP), 0))
    return _png(sheet)


def curves(
    edges: Sequence[float],
    series: Mapping[str, Sequence[float]],
    ticks: Sequence[float],
    title: str,
    mark: tuple[float, str] | None = None,
) -> str:
    """Histograms as stepped outlines of equal area in one inline SVG; colours are the classes line-0, line-1, ...

    `edges` has one entry more than each series; `mark` is a place on the axis and its words; `ticks`
    are the places that get a number.
    """
    low, high = edges[0], edges[-1]
    top = max((max(values, default=0) for values in series.values()), default=0) or 1
    plot = _HEIGHT - _BOTTOM

    def x(value: float) -> float:
        return round((value - low) / (high - low) * _WIDTH, 1)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">']
    parts.append(f'<line class="axis" x1="0" y1="{plot}" x2="{_WIDTH}" y2="{plot}"/>')
    for tick in ticks:
        anchor = "start" if tick == ticks[0] else "end" if tick == ticks[-1] else "middle"
        parts.append(f'<text class="tick" x="{x(tick)}" y="{_HEIGHT - 6}" text-anchor="{anchor}">{tick:g}</text>')
    if mark is not None:
        parts.append(f'<line class="mark" x1="{x(mark[0])}" y1="0" x2="{x(mark[0])}" y2="{plot}"/>')
        parts.append(f'<text x="{x(mark[0]) - 6}" y="18" text-anchor="end">{escape(mark[1])}</text>')
    for number, values in enumerate(series.values()):
        points = [f"{x(low)},{plot}"]
        for left, right, value in zip(edges[:-1], edges[1:], values, strict=True):
            y = round(plot - value / top * (plot - 18), 1)
            points += [f"{x(left)},{y}", f"{x(right)},{y}"]
        parts.append(f'<polyline class="line-{number % 8}" points="{" ".join(points)} {x(high)},{plot}"/>')
    return "".join([*parts, "</svg>"])


def shares(counts: Sequence[float]) -> list[float]:
    """`counts` divided by their sum; zeros if there are none."""
    total = float(sum(counts)) or 1.0
    return [float(count) / total for count in counts]


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
