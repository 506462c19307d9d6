"""LungCTClassifier: the network, its preprocessing and its contract, loaded from and pushed to the Hub."""

from __future__ import annotations

from ..model.network import ARCHITECTURE, build_network, load_strictly  # before torch: it says so when that is missing

# isort: split

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from ..classes import Classes
from ..contract import Contract
from ..errors import LungCTError
from ..files import write_atomic, write_json
from ..hub import PushResult, push_folder, write_card, write_eval_results
from ..hub.model_repo import CONFIG, LUNGCT, WEIGHTS, ModelRepo
from ..slices.preprocess import Preprocessing
from .answers import Answers
from .session import Outputs
from .torch_session import TorchSession

_EVIDENCE = ("evaluation", ".eval_results", "onnx")  # all of it is about these very weights


class LungCTClassifier(Answers, nn.Module):
    """A lung CT slice classifier as a torch module. Research only, never a medical device.

    `forward` takes a normalised float tensor (N, 3, size, size) and gives logits (N, C) in the order of `labels`.
    `predict`, `predict_study` and `decide` are those of LungCT, with the same input check, refusals and answers; they
    run where the module is. After `from_pretrained`, `repo_id` and `revision` (the 40-hex commit) say what was loaded;
    both are None for a local directory.
    """

    backend = "torch"

    def __init__(self, network: nn.Module, contract: Contract) -> None:
        super().__init__()
        self.network = network
        self.contract = contract
        self.repo: ModelRepo | None = None

    @classmethod
    def create(
        cls,
        classes: Classes,
        architecture: str = ARCHITECTURE,
        preprocessing: Preprocessing | None = None,
        *,
        drop_rate: float = 0.0,
    ) -> LungCTClassifier:
        """A classifier with random weights; nothing is downloaded."""
        contract = Contract(architecture, classes, preprocessing or Preprocessing())
        return cls(build_network(architecture, len(classes), drop_rate=drop_rate), contract)

    @property
    def preprocessing(self) -> Preprocessing:
        """From a slice to the input tensor."""
        return self.contract.preprocessing

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(N, 3, size, size) normalised float to (N, C) logits."""
        return self.network(pixel_values)

    def _run(self, squares: np.ndarray) -> Outputs:
        return TorchSession(self.network, self.contract).run(squares)

    @classmethod
    def from_pretrained(
        cls,
        repo_or_dir: str | Path,
        revision: str | None = None,
        *,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> LungCTClassifier:
        """Load a run, a model directory or a Hub repo ("owner/name" or "owner/name@revision").

        Weights are loaded strictly from safetensors. Raises LungCTError with the fix when the repo or revision does
        not exist, a file is damaged, or weights are missing, extra or of another shape.
        """
        repo = ModelRepo.open(
            repo_or_dir, revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only
        )
        contract = repo.contract
        classifier = cls(build_network(contract.architecture, len(contract.classes)), contract)
        load_strictly(classifier.network, _read_weights(repo.file(WEIGHTS)), str(repo_or_dir))
        repo.warn_if_it_can_move()
        classifier.repo = repo
        return classifier.eval()

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the model repo: weights, config.json, lungct.json and the card.

        When the weights are those that were loaded, their evaluation and ONNX files go along; after a change these
        would be about other weights and are left out like the calibration, and lungct.json says `modified`.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / WEIGHTS, save({name: value.contiguous() for name, value in self._state().items()}))
        contract = self.contract
        source = self.repo.path if self.repo else None
        if source is not None and source.resolve() != folder.resolve():
            if self._is_unchanged(source):
                _copy_evidence(source, folder)
            else:
                provenance = {**contract.provenance, "modified": True}
                contract = replace(contract, provenance=provenance, calibration=None, onnx=None)
                _remove_evidence(folder)
        write_json(folder / CONFIG, contract.config())
        write_json(folder / LUNGCT, contract.lungct())
        write_eval_results(folder)
        write_card(folder)
        return folder

    def push_to_hub(
        self,
        repo_id: str,
        *,
        message: str = "Push a lungct_hf model",
        private: bool = False,
        token: str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
    ) -> PushResult:
        """Push this model and its card as one commit, creating the repo if it is not there.

        Text that a person wrote between the card's author markers survives. Raises LungCTError with the fix for a
        wrong or missing token, no write access, or a Hub that cannot be reached.
        """
        with tempfile.TemporaryDirectory(prefix="lungct-push-") as temporary:
            folder = self.save_pretrained(Path(temporary) / "model")
            return push_folder(
                folder,
                repo_id,
                message=message,
                private=private,
                token=token,
                revision=revision,
                create_pr=create_pr,
            )

    def _state(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().cpu() for name, value in self.network.state_dict().items()}

    def _is_unchanged(self, source: Path) -> bool:
        stored = _read_weights(source / WEIGHTS)
        return all(torch.equal(value, stored[name]) for name, value in self._state().items())


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise LungCTError(f"The model has no {WEIGHTS}. Only safetensors are loaded, never a pickle.") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise LungCTError(f"{WEIGHTS} is damaged ({error}). Fix: download or write it again.") from error


def _copy_evidence(source: Path, folder: Path) -> None:
    for name in _EVIDENCE:
        if (source / name).is_dir():
            shutil.copytree(source / name, folder / name, dirs_exist_ok=True)
    if (source / "README.md").is_file() and not (folder / "README.md").exists():
        shutil.copyfile(source / "README.md", folder / "README.md")  # carries the author's text


def _remove_evidence(folder: Path) -> None:
    for name in _EVIDENCE:
        shutil.rmtree(folder / name, ignore_errors=True)
