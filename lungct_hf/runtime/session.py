"""The network on ONNX Runtime: squares in, logits, class-activation maps and features out."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..contract import ONNX_FILE, ONNX_INPUT, Contract
from ..cores import usable_cores
from ..errors import LungCTError, brief
from ..files import check_no_pointer
from ..slices.preprocess import Preprocessing

# Slices in one run of the network by all cores, or one per core where there are more. The intermediate results of
# larger batches leave the cache: on one core a slice took 4.2 ms in batches of 1 to 4, 5.2 ms in 16 and 6.0 ms in 32
# (224 pixels).
_BATCH = 4
# From so many slices on, each core takes slices of its own, two by two, instead of its share of every operation: no
# core waits for another. A slice took 0.83 of the time on two cores; to prepare it takes 0.04 s and 50 MB.
_MANY, _PAIR = 16, 2


class Outputs(NamedTuple):
    """float32 `logits` (N, C), `features` (N, D) that the abstain rule measures, and `cam` (N, C, h, w), unscaled."""

    logits: np.ndarray
    features: np.ndarray
    cam: np.ndarray


class Session(Protocol):
    """What runs the network. Several threads may call `run` at once."""

    backend: str

    def run(self, squares: np.ndarray) -> Outputs:
        """uint8 squares (N, size, size, 3) to the network's outputs."""


class OnnxSession:
    """`onnx/model.onnx` of a model directory, checked against the sha256 in its lungct.json.

    `threads` is the number of cores one call may use (default: all this process may).
    """

    backend = "onnx"

    def __init__(self, folder: Path, contract: Contract, threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise LungCTError(
                f"onnxruntime cannot be imported ({brief(error)}). Fix: pip install --force-reinstall onnxruntime"
            ) from error

        content = _checked(folder, contract)
        self._cores = threads or usable_cores()
        try:
            self._session = _open(content, self._cores)
            shapes = {output.name: output.shape[1:] for output in self._session.get_outputs()}
        except Exception as error:  # the runtime's own exceptions have no common base below this
            raise LungCTError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load {ONNX_FILE} ({brief(error)}). "
                "Fix: pip install --upgrade onnxruntime, or use backend='torch'."
            ) from error
        features = contract.measured_output or ("source" if "source" in shapes else "features")
        self._outputs = ["logits", features, "cam"]  # in the order of Outputs
        if missing := [name for name in self._outputs if name not in shapes]:
            raise LungCTError(
                f"{ONNX_FILE} lacks the output {missing[0]} (it has: {', '.join(sorted(shapes))}). Fix: write it "
                "again with `lungct export RUN --data DATA`, or use backend='torch'."
            )
        self._none = [np.empty((0, *shapes[name]), np.float32) for name in self._outputs]
        self._content = content
        self._preprocessing: Preprocessing = contract.preprocessing

    def run(self, squares: np.ndarray) -> Outputs:
        """uint8 squares (N, size, size, 3) to the network's outputs."""
        if self._cores > 1 and len(squares) >= _MANY:
            session, side_by_side = self._lanes
            parts = list(side_by_side.map(lambda part: self._part(session, part), _split(squares, _PAIR)))
        else:
            size = max(_BATCH, self._cores)
            parts = [self._part(self._session, part) for part in _split(squares, size)] or [self._none]
        return Outputs(
            *(np.concatenate(values) if len(parts) > 1 else values[0] for values in zip(*parts, strict=True))
        )

    def _part(self, session: Any, squares: np.ndarray) -> list[np.ndarray]:
        found: list[np.ndarray] = session.run(self._outputs, {ONNX_INPUT: self._preprocessing.normalise(squares)})
        return found

    @cached_property
    def _lanes(self) -> tuple[Any, ThreadPoolExecutor]:
        """A session that runs in the thread that calls it, and a thread for each core."""
        return _open(self._content, 1), ThreadPoolExecutor(self._cores, thread_name_prefix="lungct-lane")


def _open(content: bytes, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin while they wait take the cores from the decoding of the next slice, and from everyone else.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _split(squares: np.ndarray, size: int) -> list[np.ndarray]:
    return [squares[start : start + size] for start in range(0, len(squares), size)]


def _checked(folder: Path, contract: Contract) -> bytes:
    record = contract.onnx or {}
    if not contract.has_onnx:
        reason = f" ({record['sentence']})" if "sentence" in record else ""
        raise LungCTError(
            f"This model has no {ONNX_FILE} that its lungct.json vouches for{reason}. Fix: write one with "
            "`lungct export RUN --data DATA`, or use backend='torch'."
        )
    try:
        content = check_no_pointer(folder / ONNX_FILE).read_bytes()
    except FileNotFoundError as error:
        raise LungCTError(
            f"{ONNX_FILE} is missing, though lungct.json names it. Fix: take the whole model from the same revision "
            "(from the local cache: connect once)."
        ) from error
    except OSError as error:
        raise LungCTError(f"{ONNX_FILE} cannot be read ({brief(error)}).") from error
    if hashlib.sha256(content).hexdigest() != record["sha256"]:
        raise LungCTError(
            f"{ONNX_FILE} is damaged or not this model's: its sha256 is not the one in lungct.json. "
            "Fix: take both files from the same revision, or write it again with `lungct export RUN --data DATA`."
        )
    return content
