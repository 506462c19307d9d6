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
from ..model import LungCTClassifier
from .evidence import Answers, fold_into, write_evidence

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
        "fingerprint": cohort.fingerprint(),
        "slices": len(cohort),
        "groups": len(set(cohort.groups)),
        "counts": cohort.counts(),
        "skipped": len(cohort.bad_files),
    }


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
    """Write weights, configs, evaluation, split and card into `folder` in one step; the metrics are returned.

    `network` and `answers` are from before the temperature, which is folded into the last layer here.
    """
    fold_into(network, calibration)
    published = LungCTClassifier(
        network.to(memory_format=torch.contiguous_format), replace(contract, calibration=calibration)
    )
    with folder_in_one_step(folder) as fresh:
        metrics = write_evidence(fresh / "evaluation", cohort, split, answers, calibration)
        published.save_pretrained(fresh)
    return metrics


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
