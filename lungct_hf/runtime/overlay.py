"""A class-activation map as a picture to lay over its slice."""

from __future__ import annotations

import numpy as np
from PIL import Image

_SIDE = 160  # pixels of the longer side: the map has 7 x 7 cells, and a browser scales it smoothly
# From transparent over purple and orange to pale yellow: brighter is more, also in grey and to the colour-blind.
_STOPS = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
_COLOURS = np.array([[30, 12, 80], [130, 30, 110], [215, 70, 60], [250, 150, 30], [252, 240, 150]], float)


def heat_layer(cam: np.ndarray, width: int, height: int) -> Image.Image:
    """RGBA of the aspect ratio of a slice of `width` x `height` pixels; opaque where the map (h, w), 0..1, is 1.

    The map covers the letterboxed square, so the part that lies on the slice itself is cut out of it.
    """
    longer = max(width, height)
    square = Image.fromarray(np.asarray(cam, np.float32)).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    shape = max(1, round(_SIDE * width / longer)), max(1, round(_SIDE * height / longer))
    left, top = (_SIDE - shape[0]) // 2, (_SIDE - shape[1]) // 2
    level = np.clip(np.asarray(square)[top : top + shape[1], left : left + shape[0]], 0.0, 1.0)
    colours = [np.interp(level, _STOPS, _COLOURS[:, channel]) for channel in range(3)]
    return Image.fromarray(np.dstack([*colours, 255.0 * np.sqrt(level)]).round().astype(np.uint8), "RGBA")
