"""A model repo: a folder, or a Hub repo at one commit, and all that this package knows to lie in it.

Loads nothing heavy: no Hub client for a folder, no parquet reader for the names of files.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..classes import Classes
from ..contract import ONNX_FILE, Contract, classes_of
from ..errors import LungCTError, UsageError
from ..files import check_no_pointer, read_json
from .folder import list_files

logger = logging.getLogger("lungct_hf")

CONFIG, LUNGCT, WEIGHTS = "config.json", "lungct.json", "model.safetensors"
CARD, CHANGELOG, EVAL_RESULTS = "README.md", "CHANGELOG.md", ".eval_results/lungct.yaml"
GITATTRIBUTES = ".gitattributes"  # the Hub writes it into every repo; nothing that loads a model reads it
SEAL, ATTESTATION = "seal.json", "attestation.json"  # what a release says of every file, and how it was made
METRICS, PREDICTIONS, SPLIT = "evaluation/metrics.json", "evaluation/predictions.parquet", "evaluation/split.csv"
EXTERNAL, EXTERNAL_FOLDER = "evaluation/external.json", "evaluation/external"  # tests on other data
MODEL = (CONFIG, LUNGCT, WEIGHTS)  # without these there is none
# Patterns of what is fetched for a purpose: to know what a model is, and to judge it.
CONTRACT_FILES = (CONFIG, LUNGCT)
EVIDENCE_FILES = (*CONTRACT_FILES, "evaluation/*")

COMMIT = re.compile(r"[0-9a-f]{40}")
_VERSION = re.compile(r"v?\d+(\.\d+)+([-+.].*)?")  # what a release's tag looks like; a tag is not meant to move
_warned: set[tuple[str, str]] = set()
# What it means that a file is missing, and the fix; for the three of a model the fix depends on where it lies.
_MISSING = {
    PREDICTIONS: ("so nothing can be judged or checked", "train it again, every run stores them"),
    SPLIT: ("so nobody can tell which slices it learned from", "train it again, every run stores it"),
    METRICS: ("so no figure is recorded", "`lungct evaluate --model MODEL` computes them from its predictions"),
    ONNX_FILE: ("so it takes torch to run it", "`lungct export RUN --data DATA` writes it"),
}


@dataclass(frozen=True)
class ModelRepo:
    """The files of a model in `path`; of a Hub repo, `repo_id` and the 40-hex commit `revision` that they are.

    `requested_revision` is what the caller typed. Every file is parsed when it is asked for, and once.
    """

    path: Path
    repo_id: str | None = None
    revision: str | None = None
    requested_revision: str | None = None

    @classmethod
    def open(
        cls,
        model: str | Path,
        revision: str | None = None,
        *,
        files: Iterable[str] | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> ModelRepo:
        """A run, a model directory, "owner/name" or "owner/name@revision"; a directory that exists wins.

        Of a Hub repo only the `files` are fetched (patterns; default: all), at one commit. Raises UsageError for a
        name or combination that means nothing, LungCTError for a path that is no directory and for everything that
        the Hub or the network refuses (fetch.py).
        """
        folder = local_folder(model, revision)
        if folder is not None:
            return cls(model_folder(folder))
        from .fetch import fetch  # the Hub client takes longer to load than a slice to classify

        return fetch(
            str(model), revision, files=files, token=token, cache_dir=cache_dir, local_files_only=local_files_only
        )

    @classmethod
    def in_folder(cls, folder: Path) -> ModelRepo:
        """The model of a run, or in a model directory, on this disk. Raises UsageError where there is none."""
        if not folder.is_dir():
            raise UsageError(f"There is no directory {folder}. Fix: name the run that training wrote (runs/NAME).")
        return cls(model_folder(folder)).need(*MODEL)

    @property
    def name(self) -> str:
        """How to call the model in front of a reader: "owner/name@revision" or the directory's name."""
        if self.repo_id is not None:
            return f"{self.repo_id}@{self.revision}"
        folder = self.path.resolve()  # the whole of it would tell about its owner
        return folder.name if folder.name != "model" else f"{folder.parent.name}/model"  # runs/NAME/model

    # --- files

    @cached_property
    def files(self) -> dict[str, Path]:
        """{path in the repo: file} of all that is here, sorted. Raises LungCTError for an empty or absent folder."""
        return list_files(self.path)

    def has(self, name: str) -> bool:
        """Whether the file `name` is here."""
        return (self.path / name).is_file()

    def need(self, *names: str) -> ModelRepo:
        """Itself, when all these files are here.

        Raises LungCTError with the missing ones and the fix; UsageError where a folder is no model at all.
        """
        missing = [name for name in names if not self.has(name)]
        if not missing:
            return self
        said = f"{self.name} has no {' and no '.join(missing)}"
        if not set(missing) & set(MODEL):
            meaning, fix = _MISSING.get(missing[0], ("which this needs", "fetch or write the model again"))
            raise LungCTError(f"{said}, {meaning}. Fix: {fix}.")
        if self.repo_id is not None:
            raise LungCTError(f"{said}, so it is not a lungct_hf model. Fix: name a repo that `lungct push` wrote.")
        raise UsageError(
            f"{said}, so it is not a lungct_hf model. Fix: name the run that training wrote (runs/NAME), or the model "
            "directory in it."
        )

    def file(self, name: str) -> Path:
        """The file `name`. Raises as `need` does, and LungCTError where it is the pointer of one."""
        return check_no_pointer(self.need(name).path / name)

    # --- what the files say

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json. Raises LungCTError when it is missing or no JSON object; so do all that follow."""
        return self._json(CONFIG)

    @cached_property
    def lungct(self) -> dict[str, Any]:
        """lungct.json as it stands; `contract` is what it means."""
        return self._json(LUNGCT)

    @cached_property
    def metrics(self) -> dict[str, Any] | None:
        """evaluation/metrics.json, None where there is none."""
        return self._json(METRICS) if self.has(METRICS) else None

    @cached_property
    def external(self) -> dict[str, Any] | None:
        """evaluation/external.json, None for a model that was never tested outside the data it was made from."""
        return self._json(EXTERNAL) if self.has(EXTERNAL) else None

    @cached_property
    def contract(self) -> Contract:
        """What a runtime must do to reproduce the model's answers."""
        return Contract.of(self.config, self.lungct, self.name)

    @cached_property
    def classes(self) -> Classes:
        """The classes in the order of the logits; for these lungct.json is enough."""
        try:
            return classes_of(self.lungct)
        except (KeyError, TypeError, UsageError) as error:
            raise LungCTError(
                f"The lungct.json of {self.name} does not say which classes it has ({error}). Fix: write or fetch the "
                "model again."
            ) from error

    @property
    def is_schema_1(self) -> bool:
        """Whether it was written before models said which classes they have."""
        return self.lungct.get("schema_version") == 1

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the weights come from, as training noted it; empty where it did not."""
        return self.lungct.get("provenance") or {}

    @property
    def release(self) -> dict[str, Any] | None:
        """The record that a release left in lungct.json (release/record.py); None where no release wrote this."""
        found = self.lungct.get("release")
        return found if isinstance(found, dict) and "version" in found else None

    def _json(self, name: str) -> dict[str, Any]:
        return read_json(self.file(name), f"{self.name} has no {name}.")

    def warn_if_it_can_move(self) -> None:
        """Say once, on the logger `lungct_hf`, which commit a branch was when it was loaded."""
        asked = self.requested_revision or "main"
        if self.repo_id is None or COMMIT.fullmatch(asked) or _VERSION.fullmatch(asked):
            return
        if (self.repo_id, asked) not in _warned:
            _warned.add((self.repo_id, asked))
            logger.warning(
                "%s@%s can change at any time; loaded is commit %s. Name it to get the same answers tomorrow.",
                self.repo_id,
                asked,
                self.revision,
            )


# --- from what a caller typed to a place


def split_revision(repo: str) -> tuple[str, str | None]:
    """("owner/name", "rev") from "owner/name@rev"; the second is None when there is no "@"."""
    name, at, revision = repo.partition("@")
    if at and not (name and revision):
        raise UsageError(f"{repo!r} is not a model: write OWNER/NAME or OWNER/NAME@REVISION.")
    return name, revision or None


def model_folder(folder: Path) -> Path:
    """The model directory that `folder` is or, being a run, holds."""
    inner = folder / "model"
    return inner if not (folder / CONFIG).is_file() and inner.is_dir() else folder


def local_folder(model: str | Path, revision: str | None = None) -> Path | None:
    """The directory that `model` names, or None where the name must mean a Hub repo.

    Raises UsageError for a directory with a revision, LungCTError for a path that is no directory.
    """
    text = str(model)
    directory = Path(model).expanduser()
    if directory.is_dir():
        if revision is not None:
            raise UsageError(f"{text} is a local directory, which has no revisions: drop {revision!r}.")
        return directory
    repo_id, at = split_revision(text)
    if at and Path(repo_id).expanduser().is_dir():
        raise UsageError(f"{repo_id} is a local directory, which has no revisions: drop '@{at}'.")
    if at and revision and at != revision:
        raise UsageError(f"Two revisions were given, {at!r} and {revision!r}: give one.")
    _not_a_path(text, directory)
    return None


def _not_a_path(text: str, directory: Path) -> None:
    if directory.is_file():
        raise LungCTError(
            f"{text} is a file; a model is a directory (with config.json and model.safetensors) or a Hub repo."
        )
    name = text.partition("@")[0]
    if text.startswith((".", "/", "~", "\\")) or name.count("/") > 1 or "\\" in name or name.endswith("/"):
        raise LungCTError(
            f"There is no directory {text}. Give an existing model directory, or a Hub repo as OWNER/NAME."
        )
