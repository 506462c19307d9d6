"""Arrays in JSON: base64 of the little-endian float32 numbers, a third of what decimals take, and exact."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np


def packed(values: np.ndarray) -> dict[str, Any]:
    """{"shape": [...], "float32": "..."} of an array of any shape."""
    content = np.ascontiguousarray(values, dtype="<f4")
    return {"shape": list(content.shape), "float32": base64.b64encode(content.tobytes()).decode("ascii")}


def unpacked(record: Mapping[str, Any]) -> np.ndarray:
    """`packed` back, as float64. Raises KeyError, TypeError or ValueError where it is none or not finite."""
    flat = np.frombuffer(base64.b64decode(record["float32"], validate=True), dtype="<f4")
    values = flat.reshape(record["shape"]).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a stored array holds values that are not finite")
    return values
