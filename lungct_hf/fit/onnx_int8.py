"""An 8-bit copy of `onnx/model.onnx`, kept only where it answers as well and is really faster on this machine."""

from __future__ import annotations

import hashlib
import logging
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..cohort import Cohort
from ..contract import ONNX_FILE, ONNX_INPUT
from ..cores import usable_cores
from ..errors import require
from ..evaluation import score
from ..files import write_atomic
from ..slices.preprocess import Preprocessing

INT8_FILE = "onnx/model_int8.onnx"
LARGEST_DROP = 0.01  # of balanced accuracy on the stored evaluation slices
LEAST_GAIN = 1.1  # times faster; less is noise of the machine and not worth a second file
_CALIBRATION_SLICES = 128
# The stem and the first block. In 8 bits too, they change the class of three times as many slices and save no time.
_FLOAT_CONVOLUTIONS = 3
_BATCH = 16
_WARM_UP, _PAIRS = 5, 41


@dataclass(frozen=True, eq=False)
class Slices8Bit:
    """Rows of `cohort`: training slices that may calibrate, evaluation slices (`labels`, in `groups`) to judge."""

    cohort: Cohort
    calibration: np.ndarray
    evaluation: np.ndarray
    labels: np.ndarray
    groups: int


def add_int8(folder: Path, preprocessing: Preprocessing, slices: Slices8Bit) -> dict[str, Any]:
    """Write `onnx/model_int8.onnx` beside `onnx/model.onnx` in `folder` if it passes; the record says so either way.

    Weights are quantised per channel and activations per tensor (static QDQ), calibrated on training slices. The first
    convolutions, the last layer and the class-activation map stay in float.
    """
    require("onnx", "train")
    content = quantise(folder / ONNX_FILE, preprocessing, slices)
    exact, quick = _session((folder / ONNX_FILE).read_bytes()), _session(content)
    balanced, answers = {}, {}
    for name, session in (("float", exact), ("int8", quick)):
        batches = _inputs(preprocessing, slices.cohort, slices.evaluation)
        logits = np.concatenate([session.run(["logits"], {ONNX_INPUT: batch})[0] for batch in batches])
        balanced[name] = score(slices.labels, logits, slices.cohort.classes)["balanced_accuracy"]
        answers[name] = logits.argmax(axis=1)
    same = float(np.mean(answers["float"] == answers["int8"]))
    drop = balanced["float"] - balanced["int8"]
    gain, milliseconds = compare_speed(exact, quick, preprocessing.size)
    passed = drop < LARGEST_DROP and gain >= LEAST_GAIN
    if passed:
        write_atomic(folder / INT8_FILE, content)
    seen = int(np.isin(slices.evaluation, slices.calibration).sum())
    trained = f"; {seen} of them were trained on" if seen else ""
    figures = (
        f"balanced accuracy {balanced['float']:.3f} in float and {balanced['int8']:.3f} in 8 bits on the "
        f"{len(slices.labels)} evaluation slices ({slices.groups} groups{trained}), the same class on "
        f"{100 * same:.1f} % of them; {gain:.2f} times as fast, one slice at a time on {usable_cores()} cores of the "
        "machine that wrote it"
    )
    needed = f"needed: a drop below {LARGEST_DROP:.2f} and at least {LEAST_GAIN:.1f} times"
    record: dict[str, Any] = {
        "written": passed,
        "sentence": f"{INT8_FILE} was {'' if passed else 'not '}written: {figures}; {needed}.",
        "balanced_accuracy": balanced,
        "same_class": same,
        "slices": len(slices.labels),
        "groups": slices.groups,
        "trained_on": seen,
        "calibration_slices": int(min(_CALIBRATION_SLICES, len(slices.calibration))),
        "speed": {"times_as_fast": gain, "milliseconds": milliseconds, "pairs": _PAIRS, "cores": usable_cores()},
    }
    named = {"file": INT8_FILE, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    return record | (named if passed else {})


def quantise(model: Path, preprocessing: Preprocessing, slices: Slices8Bit) -> bytes:
    """The 8-bit copy of the ONNX file `model`."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    rows = slices.calibration
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, _CALIBRATION_SLICES).astype(int))]

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = _inputs(preprocessing, slices.cohort, rows)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._batches, None)
            return None if batch is None else {ONNX_INPUT: batch}

    graph = onnx.load(model).graph
    first = [node.name for node in graph.node if node.op_type == "Conv"][:_FLOAT_CONVOLUTIONS]
    last = [node.name for node in graph.node if {"logits", "cam"} & set(node.output)]
    with tempfile.TemporaryDirectory(prefix="lungct-int8-") as scratch, _quiet():
        path = Path(scratch) / "model_int8.onnx"
        quantize_static(
            model,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*first, *last],
        )
        return _without_leftovers(onnx.load(path)).SerializeToString()


def compare_speed(exact: Any, quick: Any, size: int) -> tuple[float, dict[str, float]]:
    """How many times as fast `quick` is on one slice, and both medians in milliseconds.

    The first is the median over pairs of runs, one right after the other, so that a busy machine slows both.
    """
    inputs = {ONNX_INPUT: np.random.default_rng(0).normal(size=(1, 3, size, size)).astype(np.float32)}

    def seconds(session: Any) -> float:
        started = time.perf_counter()
        session.run(None, inputs)
        return time.perf_counter() - started

    pairs = [(seconds(exact), seconds(quick)) for _ in range(_WARM_UP + _PAIRS)][_WARM_UP:]
    gain = statistics.median(slow / fast for slow, fast in pairs)
    medians = [statistics.median(values) * 1e3 for values in zip(*pairs, strict=True)]
    return round(gain, 3), {"float": round(medians[0], 3), "int8": round(medians[1], 3)}


def _without_leftovers(model: Any) -> Any:
    """The clips' limits go into the scales and leave constants behind, each of which the runtime would warn about."""
    used = {name for node in model.graph.node for name in node.input}
    kept = [node for node in model.graph.node if node.op_type != "Constant" or used & set(node.output)]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without onnxruntime's warnings about unused constants, and its advice to prepare a graph that needs none."""
    import onnxruntime

    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(3)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(2)
        logging.disable(disabled)


def _inputs(preprocessing: Preprocessing, cohort: Cohort, rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), _BATCH):
        batch = [cohort.read(row) for row in rows[start : start + _BATCH].tolist()]
        yield preprocessing.normalise(preprocessing.squares(batch))


def _session(content: bytes) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
