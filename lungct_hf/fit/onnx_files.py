"""The ONNX files of a model repo: written at the end of a run, and again for a finished one by `lungct export`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..cohort import Cohort, Split
from ..errors import LungCTError, UsageError
from ..evaluation import read_predictions
from ..files import folder_in_one_step, write_json
from ..hub import ModelRepo, write_card
from ..hub.model_repo import LUNGCT, PREDICTIONS, SPLIT
from ..model.onnx_export import export_onnx
from ..runtime.classifier import LungCTClassifier
from ..slices.preprocess import Preprocessing
from .onnx_int8 import Slices8Bit, add_int8

_PARITY_SLICES = 32


def parity_squares(cohort: Cohort, preprocessing: Preprocessing) -> np.ndarray:
    """Letterboxed slices from all over the cohort, uint8 (at most 32, size, size, 3)."""
    rows = np.unique(np.linspace(0, len(cohort) - 1, _PARITY_SLICES).astype(int))
    return preprocessing.squares([cohort.read(row) for row in rows.tolist()])


def try_export(network: nn.Module, preprocessing: Preprocessing, cohort: Cohort, folder: Path) -> dict[str, Any]:
    """`export_onnx` at the end of a run, which is not lost for it: where it fails, the record says why."""
    try:
        return export_onnx(network, preprocessing, parity_squares(cohort, preprocessing), folder)
    except LungCTError as error:
        return {"sentence": str(error)}


def export_again(model: Path, cohort: Cohort, slices: Slices8Bit | None = None) -> dict[str, Any]:
    """Write the ONNX files of the model directory `model` anew, in one step, and return their record.

    With `slices` the 8-bit copy is tried as well. An earlier one does not stay: it belongs to the earlier file.

    Raises LungCTError when the model cannot be loaded or torch and ONNX Runtime disagree; nothing changes then.
    """
    classifier = LungCTClassifier.from_pretrained(model)
    preprocessing = classifier.preprocessing
    lungct = ModelRepo(model).lungct
    with folder_in_one_step(model) as fresh:
        shutil.copytree(model, fresh, dirs_exist_ok=True)
        shutil.rmtree(fresh / "onnx", ignore_errors=True)
        record = export_onnx(classifier.network, preprocessing, parity_squares(cohort, preprocessing), fresh)
        if slices is not None:
            record["int8"] = add_int8(fresh, preprocessing, slices)
        write_json(fresh / LUNGCT, {**lungct, "onnx": record})
        write_card(fresh)
    return record


def slices_for_int8(model: Path, cohort: Cohort) -> Slices8Bit:
    """The slices that calibrate an 8-bit copy (training) and those that judge it (the stored evaluation).

    Raises UsageError when `cohort` is not the data that the model was trained and evaluated on.
    """
    repo = ModelRepo(model)
    if missing := [name for name in (SPLIT, PREDICTIONS) if not repo.has(name)]:
        raise UsageError(
            f"The model stores no {missing[0]}, so it is not known which slices may calibrate and judge "
            "an 8-bit copy. Fix: leave out --int8, or train again."
        )
    split = Split.read(repo.file(SPLIT), repo.classes)
    table, labels, _ = read_predictions(repo.file(PREDICTIONS))
    place = {str(sha): row for row, sha in enumerate(cohort.sha256.tolist())}
    judged = np.array([side == "test" for side in table["split"].to_pylist()])
    _, first = np.unique(np.array(table["id"].to_pylist())[judged], return_index=True)  # seeds predict a slice anew
    hashes = np.array(table["sha256"].to_pylist())[judged][first]
    training = [str(sha) for sha, side in zip(split.sha256, split.split, strict=True) if side == "train"]
    absent = [sha for sha in [*hashes.tolist(), *training] if sha not in place]
    if absent or not len(hashes) or not training:
        raise UsageError(
            f"{cohort.source} lacks {len(absent)} of the {len(hashes) + len(training)} slices that the model was "
            "trained and evaluated on (compared by sha256). Fix: --data with the very data of the run."
        )
    return Slices8Bit(
        cohort=cohort,
        calibration=np.array([place[sha] for sha in training]),
        evaluation=np.array([place[sha] for sha in hashes.tolist()]),
        labels=labels[judged][first],
        groups=len({table["group"][int(row)].as_py() for row in np.flatnonzero(judged)[first]}),
    )
