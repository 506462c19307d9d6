"""LungCTClassifier: the network, its preprocessing and its contract, loaded from and pushed to the Hub."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from ..classes import Classes
from ..contract import Contract
from ..decision import Calibration, Decision, decide
from ..errors import LungCTError, UsageError
from ..files import write_atomic, write_json
from ..hub import FetchedModel, PushResult, fetch_model, push_folder, write_card, write_eval_results
from ..hub.source import warn_if_it_can_move
from ..slices.preprocess import Preprocessing
from ..slices.read import read_slice
from .network import ARCHITECTURE, build_network, load_strictly, logits_and_features

WEIGHTS = "model.safetensors"
_EVIDENCE = ("evaluation", ".eval_results", "onnx")  # all of it is about these very weights
Slice = Image.Image | str | Path | bytes


class LungCTClassifier(nn.Module):
    """Three-class lung CT slice classifier. Research only, never a medical device.

    `forward` takes a normalised float tensor (N, 3, size, size) and gives logits (N, 3) in the order of `labels`;
    `predict` takes slices and gives probabilities, `decide` a label or the reason for none. After `from_pretrained`,
    `repo_id` and `revision` (the 40-hex commit) say what was loaded; both are None for a local directory.
    """

    def __init__(self, network: nn.Module, contract: Contract) -> None:
        super().__init__()
        self.network = network
        self.contract = contract
        self.repo_id: str | None = None
        self.revision: str | None = None
        self._source: Path | None = None

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
    def labels(self) -> tuple[str, ...]:
        """The classes in the order of the logits."""
        return self.contract.classes.names

    @property
    def preprocessing(self) -> Preprocessing:
        """From a slice to the input tensor."""
        return self.contract.preprocessing

    @property
    def name(self) -> str:
        """How to call the loaded model in front of a reader: "owner/name@revision" or the directory's name."""
        if self._source is None:
            return self.repo_id or "an unsaved model"
        return FetchedModel(self._source, self.repo_id, self.revision).name

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(N, 3, size, size) normalised float to (N, 3) logits."""
        return self.network(pixel_values)

    @torch.inference_mode()
    def predict(self, slices: Slice | Sequence[Slice], *, batch_size: int = 32) -> np.ndarray:
        """Probabilities, float32 of shape (N, 3), for one slice or a list: PIL images, file paths or encoded bytes.

        Raises BadSliceError for a slice that cannot be read.
        """
        rows = [np.empty((0, len(self.labels)), np.float32)]
        rows += [self(inputs).float().softmax(dim=1).cpu().numpy() for inputs in self._batches(slices, batch_size)]
        return np.concatenate(rows)

    @torch.inference_mode()
    def decide(self, slices: Slice | Sequence[Slice], *, batch_size: int = 32) -> list[Decision]:
        """For each slice a label, or none and the reason to abstain, by the rule that is stored with the weights.

        Reasons: unlike-training-data, low-confidence, not-finite. A model without a stored rule answers always.
        Raises BadSliceError for a slice that cannot be read.
        """
        calibration, found = self.contract.calibration or Calibration(), []
        for inputs in self._batches(slices, batch_size):
            logits, features = (values.cpu().numpy() for values in logits_and_features(self.network, inputs))
            found += decide(calibration, self.contract.classes, logits, features)
        return found

    def _batches(self, slices: Slice | Sequence[Slice], batch_size: int) -> Iterator[torch.Tensor]:
        """Input tensors on the network's device, the network in evaluation mode until the last one is used."""
        items = list(slices) if isinstance(slices, (list, tuple)) else [slices]
        was_training, device = self.training, next(self.parameters()).device
        self.eval()
        try:
            for start in range(0, len(items), batch_size):
                batch = [self.preprocessing(self._open(item)) for item in items[start : start + batch_size]]
                yield torch.from_numpy(np.stack(batch)).to(device)
        finally:
            self.train(was_training)

    @staticmethod
    def _open(item: object) -> Image.Image:
        if isinstance(item, Image.Image):
            return item
        if isinstance(item, (str, Path, bytes)):
            return read_slice(item)
        raise UsageError(f"A slice must be a PIL image, a path or bytes, got {type(item).__name__}.")

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
        """Load a directory that training wrote or a Hub repo ("owner/name" or "owner/name@revision").

        Weights are loaded strictly from safetensors. Raises LungCTError with the fix when the repo or revision does
        not exist, a file is damaged, or weights are missing, extra or of another shape.
        """
        fetched = fetch_model(
            repo_or_dir, revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only
        )
        contract = Contract.read(fetched.path)
        classifier = cls(build_network(contract.architecture, len(contract.classes)), contract)
        load_strictly(classifier.network, _read_weights(fetched.path / WEIGHTS), str(repo_or_dir))
        warn_if_it_can_move(fetched)
        classifier.repo_id, classifier.revision, classifier._source = fetched.repo_id, fetched.revision, fetched.path
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
        if self._source is not None and self._source.resolve() != folder.resolve():
            if self._is_unchanged(self._source):
                _copy_evidence(self._source, folder)
            else:
                provenance = {**contract.provenance, "modified": True}
                contract = replace(contract, provenance=provenance, calibration=None, onnx=None)
                _remove_evidence(folder)
        write_json(folder / "config.json", contract.config())
        write_json(folder / "lungct.json", contract.lungct())
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
