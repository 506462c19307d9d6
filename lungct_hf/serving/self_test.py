"""Whether a loaded model still gives the logits that its repo recorded when it was released.

The record is `canaries/canaries.json`, {"tolerance": 1e-4, "slices": [{"file", "sha256", "logits"}]}, beside the
pictures it names.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import BadSliceError, LungCTError
from ..runtime import LungCT
from ..slices.read import read_slice

FILES = ["canaries/*"]


class SelfTestError(LungCTError):
    """The model loads, but it is not the model that was released."""


@dataclass(frozen=True)
class SelfTest:
    """`slices` known answers were compared, the largest difference of a logit was `deviation`; none: no record."""

    slices: int = 0
    deviation: float | None = None

    @property
    def state(self) -> str:
        """ "passed", or "no-record" where the repo has no known answers."""
        return "passed" if self.slices else "no-record"


def self_test(model: LungCT, folder: Path) -> SelfTest:
    """Compare the model with the known answers in its folder.

    Raises SelfTestError when a logit is further from the recorded one than the record tolerates, is not finite, or
    the record is damaged.
    """
    known = _known_answers(folder, len(model.labels))
    if known is None:
        size = model.contract.preprocessing.size
        logits, _, _ = model.predict_images(np.zeros((1, size, size, 3), np.uint8))  # the first call is slow
        if not np.isfinite(logits).all():
            raise SelfTestError(
                "The self-test failed: the model answers a blank slice with numbers that are not finite."
            )
        return SelfTest()
    pictures, golden, tolerance = known
    logits, _, _ = model.predict_images(model.contract.preprocessing.squares([read_slice(one) for one in pictures]))
    deviation = float(np.abs(logits - golden).max())
    if not deviation <= tolerance:
        raise SelfTestError(
            f"The self-test failed: the logits of {len(golden)} known slices are up to {deviation:.2g} away from "
            f"those of its release (limit {tolerance:g}), so this model's answers cannot be trusted."
        )
    return SelfTest(len(golden), deviation)


def _known_answers(folder: Path, classes: int) -> tuple[list[bytes], np.ndarray, float] | None:
    """Pictures, their logits (N, classes), and the tolerance of the record; None where there is no record."""
    path = folder / "canaries" / "canaries.json"
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        pictures = [(path.parent / Path(row["file"]).name).read_bytes() for row in record["slices"]]
        hashes = [hashlib.sha256(one).hexdigest() for one in pictures]
        golden = np.array([row["logits"] for row in record["slices"]], np.float32).reshape(len(pictures), classes)
        if not pictures or hashes != [row["sha256"] for row in record["slices"]] or not np.isfinite(golden).all():
            raise ValueError("a picture or a logit is not the recorded one")
        return pictures, golden, float(record["tolerance"])
    except (OSError, KeyError, TypeError, ValueError, BadSliceError) as error:
        raise SelfTestError(
            f"The self-test failed: the model's record of known answers is damaged ({error})."
        ) from None
