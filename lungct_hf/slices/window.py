"""Hounsfield units to 8-bit grey with a fixed display window."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import UsageError


@dataclass(frozen=True)
class Window:
    """A linear CT display window: `center` and `width` in HU (DICOM PS3.3 C.11.2.1.2, the LINEAR_EXACT form)."""

    center: float
    width: float

    @classmethod
    def parse(cls, text: str) -> Window:
        """Read "CENTRE,WIDTH" in HU. Raises UsageError."""
        try:
            center, width = (float(part) for part in text.split(","))
            if math.isfinite(center) and math.isfinite(width) and width >= 1:
                return cls(center, width)
        except ValueError:
            pass
        raise UsageError(f'The window is "{text}"; CENTRE,WIDTH in HU is needed, for example -485,1500.')

    def apply(self, hu: np.ndarray) -> np.ndarray:
        """Map HU (any float or integer array) to uint8: the window's lower end is 0, its upper end 255."""
        lower = self.center - self.width / 2
        scaled = (np.asarray(hu, dtype=np.float32) - lower) * (255.0 / self.width)
        return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


# The window of IQ-OTH/NCCD, estimated from its grey levels: air about 41, fat about 194, muscle about 218.
LUNG_WINDOW = Window(center=-485.0, width=1500.0)

# What readers of scans look with; the model is always given its own.
VIEWING: dict[str, Window] = {
    "lung": Window(center=-600.0, width=1500.0),
    "mediastinum": Window(center=40.0, width=400.0),
    "bone": Window(center=400.0, width=1800.0),
}
