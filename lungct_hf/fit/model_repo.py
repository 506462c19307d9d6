"""Write what a run publishes: `model/`, complete or absent."""

from __future__ import annotations

import platform
import subprocess
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import __version__
from ..cohort import Cohort, Split
from ..contract import Contract
from ..decision import Calibration
from ..files import folder_in_one_step
from ..runtime.classifier import LungCTClassifier
from .evidence import Answers, fold_into, write_evidence
from .onnx_files import try_export
from .options import Options

_PACKAGES = ("torch", "torchvision", "timm", "transformers", "accelerate", "datasets", "huggingface_hub")


def split_record(split: Split) -> dict[str, Any]:
    """The entry for lungct.json that says which assignment of slices the figures rest on."""
    return {
        "protocol": split.protocol,
        "grouping": split.grouping,
        "rule": split.rule,
        "hash": split.hash,
        "fold": split.fold,
        "folds": split.folds,
        "seed": split.seed,
        "margin": split.margin,
        "dropped": len(split.indices("dropped")),
    }


def data_record(cohort: Cohort, kind: str) -> dict[str, Any]:
    """The entry for lungct.json that says which slices were used, without naming a folder of the author's."""
    return {
        "kind": kind,
        "source": cohort.source,
        **({"known_set": cohort.known_set.name} if cohort.known_set else {}),
        "fingerprint": cohort.fingerprint(),
        "slices": len(cohort),
        "groups": len(set(cohort.groups)),
        "counts": cohort.counts(),
        "skipped": len(cohort.bad_files),
    }


def chosen_by(options: Options, *, has_validation: bool) -> str:
    """For lungct.json and the card: how the number of epochs came about."""
    if options.recipe.choose == "last":
        return "the recipe's last" + (
            "" if has_validation or options.folds else ", trained anew with the validation fold"
        )
    if options.folds:
        return "median of the folds' best"
    return "best on the validation fold" + ("" if has_validation else ", then trained anew on it as well")


def software_record() -> dict[str, Any]:
    """Versions that influence a number, and the commit of this package where it runs from a checkout."""
    versions = {name: version(name) for name in _PACKAGES}
    return {
        "package_version": __version__,
        "git_commit": _git_commit(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {"python": platform.python_version(), **versions},
    }


def write_model_repo(
    folder: Path,
    network: nn.Module,
    contract: Contract,
    *,
    cohort: Cohort,
    split: Split,
    answers: Answers,
    calibration: Calibration,
) -> dict[str, Any]:
    """Write weights, ONNX file, configs, evaluation, split and card into `folder` in one step; gives the metrics.

    `network` and `answers` are from before calibration, which is folded into the last layer here.
    """
    fold_into(network, calibration)
    contract = replace(contract, calibration=calibration)
    with folder_in_one_step(folder) as fresh:
        metrics = write_evidence(fresh / "evaluation", cohort, split, answers, calibration)
        write_weights(fresh, network, contract, cohort)
    return metrics


def write_weights(folder: Path, network: nn.Module, contract: Contract, cohort: Cohort) -> None:
    """Weights, their ONNX copy, configs and card into the model directory `folder`, which may hold the evaluation."""
    network = network.to(memory_format=torch.contiguous_format)
    contract = replace(contract, onnx=try_export(network, contract.preprocessing, cohort, folder))
    LungCTClassifier(network, contract).save_pretrained(folder)


def _git_commit() -> str | None:
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
