"""Text in a picture: blocks of thin strokes in two flat levels, which no tissue has."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from .measure import flood, reduced

_SIDE = 800
_ROWS, _COLUMNS = 16, 32  # a block: two or three letters of burned-in text
_STEP = 70  # grey levels between neighbours at the edge of a stroke
_EDGES = 56  # such edges in a block: a rib or a table has about two a row, letters four or more
_CONTRAST = 110
_FLAT = 24  # grey levels from a block's darkest or brightest: strokes and their ground are flat, noise is not
_TWO_LEVELS = 0.75  # fraction of a block's pixels at either level
_AROUND = 8  # pixels around a block within which a letter ends
_ENDING = 0.3  # of a block's bright strokes: the edges of a scanner's table run on, at most 0.2 of them end


def text_blocks(picture: Image.Image, *, letters_only: bool = True) -> tuple[int, float]:
    """How many blocks of a picture, L or RGB, look like text; which fraction of pixels equals its right neighbour.

    Without `letters_only` bright strokes that run on beyond a block count too, as models of schema 1 count them.
    """
    small = reduced(picture, _SIDE)
    grey = np.asarray(small if small.mode == "L" else small.getchannel(1))
    down, across = grey.shape[0] // _ROWS, (grey.shape[1] - 1) // _COLUMNS
    if not down or not across:
        return 0, 0.0
    here = grey[: down * _ROWS, : across * _COLUMNS]
    # Every second row is enough to find where to look.
    left, right = here[::2], grey[: down * _ROWS : 2, 1 : across * _COLUMNS + 1]
    step = np.maximum(left, right) - np.minimum(left, right)
    edges = (step > _STEP).view(np.uint8).reshape(down, _ROWS // 2, -1).sum(1, dtype=np.uint8)
    found = np.nonzero(edges.reshape(down, across, _COLUMNS).sum(2, dtype=np.uint16) >= _EDGES // 2)
    flat = (step.size - np.count_nonzero(step)) / step.size
    blocks = here.reshape(down, _ROWS, across, _COLUMNS).transpose(0, 2, 1, 3)[found]
    if not len(blocks):
        return 0, flat
    # Letters have strokes in both directions, a cable or the rail of a table has one.
    upright, level = (np.abs(np.diff(blocks.astype(np.int16), axis=axis)) > _STEP for axis in (2, 1))
    is_text = level.sum((1, 2)) >= 0.3 * upright.sum((1, 2))
    blocks = blocks.reshape(-1, _ROWS * _COLUMNS)
    low, high = blocks.min(1, keepdims=True), blocks.max(1, keepdims=True)
    dark, bright = (blocks - low <= _FLAT).mean(1), (high - blocks <= _FLAT).mean(1)
    is_text &= (high - low)[:, 0] >= _CONTRAST
    is_text &= (dark + bright >= _TWO_LEVELS) & (np.minimum(dark, bright) > 0.06)
    if letters_only:
        for place in np.flatnonzero(is_text & (dark > bright)):
            is_text[place] = _has_letters(grey, int(found[0][place]) * _ROWS, int(found[1][place]) * _COLUMNS)
    return int(is_text.sum()), flat


def _has_letters(grey: np.ndarray, top: int, left: int) -> bool:
    """Whether the bright strokes of the block at (`top`, `left`) end within or near it, as letters do."""
    block = grey[top : top + _ROWS, left : left + _COLUMNS]
    first_row, first_column = max(top - _AROUND, 0), max(left - _AROUND, 0)
    around = grey[first_row : top + _ROWS + _AROUND, first_column : left + _COLUMNS + _AROUND]
    strokes = around > (int(block.min()) + int(block.max())) / 2
    frame = np.ones(strokes.shape, bool)
    frame[1:-1, 1:-1] = False
    ending = strokes & ~flood(frame, strokes)
    here = slice(top - first_row, top - first_row + _ROWS), slice(left - first_column, left - first_column + _COLUMNS)
    return bool(np.count_nonzero(ending[here]) > _ENDING * np.count_nonzero(strokes[here]))


def is_page(picture: Image.Image) -> bool:
    """Whether a picture without lungs is a page: an even bright ground with thin dark strokes on it.

    Slower than `text_blocks` (some milliseconds), but it sees a page in uneven light, and small or pale print.
    """
    grey = reduced(picture, _SIDE).convert("L")
    ground = grey.filter(ImageFilter.BoxBlur(8))
    strokes = ImageChops.subtract(ground, grey).point(lambda value: 255 if value > 25 else 0)
    share, thick = _share(strokes), _share(strokes.filter(ImageFilter.MinFilter(5)))
    even = _share(ImageChops.difference(ground, grey).point(lambda value: 255 if value < 20 else 0))
    return 0.01 < share < 0.35 and thick < 0.2 * share and even > 0.5


def _share(mask: Image.Image) -> float:
    return mask.histogram()[255] / (mask.width * mask.height)
