"""Every way of loading a model repo that its card names, each answering the canaries.

    python -m lungct_hf.release.loaders OWNER/NAME COMMIT     # fetches into a cache of its own, prints JSON

As a program it is the fresh process in which a release loads back what it has published.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import LungCTError, brief
from ..hub.model_repo import SEAL, ModelRepo

Loader = Callable[[Path, Sequence[Image.Image]], np.ndarray]


def loaders(repo: ModelRepo) -> dict[str, Loader]:
    """The loaders that this model and this installation have, by name."""
    found: dict[str, Loader] = {}
    if repo.contract.has_onnx:
        found["onnx"] = _onnx
    if all(find_spec(name) for name in ("torch", "timm", "safetensors")):
        found |= {"lungct_hf": _classifier, "timm": _timm}
        if find_spec("transformers"):
            found["transformers"] = _transformers
    return found


def score(
    repo: ModelRepo, images: Sequence[Image.Image], only: Sequence[str] | None = None
) -> dict[str, np.ndarray | str]:
    """{loader: logits (N, C)}; a loader that fails has a sentence instead. `only`: of these what there is.

    Raises LungCTError when there is no loader at all.
    """
    ways = {name: load for name, load in loaders(repo).items() if only is None or name in only}
    if not ways:
        raise LungCTError(
            "Nothing here can load this model: it has no ONNX file, and torch and timm are not installed. "
            "Fix: pip install 'lungct-hf[train]'"
        )
    found: dict[str, np.ndarray | str] = {}
    for name, load in ways.items():
        try:
            found[name] = np.asarray(load(repo.path, images), np.float32)
        except Exception as error:  # four libraries, and whatever they raise is the finding
            found[name] = f"{type(error).__name__}: {brief(error)}"
    return found


def _onnx(folder: Path, images: Sequence[Image.Image]) -> np.ndarray:
    from ..runtime import LungCT

    return _answer(LungCT.from_pretrained(folder, backend="onnx", threads=1), images)


def _classifier(folder: Path, images: Sequence[Image.Image]) -> np.ndarray:
    from ..runtime import LungCT

    return _answer(LungCT.from_pretrained(folder, backend="torch"), images)


def _answer(model: Any, images: Sequence[Image.Image]) -> np.ndarray:
    logits, _, _ = model.predict_images(model.contract.preprocessing.squares(list(images)))
    return np.asarray(logits)


def _timm(folder: Path, images: Sequence[Image.Image]) -> np.ndarray:
    import timm
    import torch

    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    steps = timm.data.create_transform(**timm.data.resolve_data_config(model=network), is_training=False)
    with torch.inference_mode():
        return network(torch.stack([steps(image) for image in images])).numpy()


def _transformers(folder: Path, images: Sequence[Image.Image]) -> np.ndarray:
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # which of its image backends it takes is no news
    logging.disable_progress_bar()
    try:
        processor = AutoImageProcessor.from_pretrained(str(folder))
        network = AutoModelForImageClassification.from_pretrained(str(folder)).eval()
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
    with torch.inference_mode():
        return network(**processor(list(images), return_tensors="pt")).logits.numpy()


def main(repo: str, commit: str) -> None:
    """Fetch the model at `commit`, compare every file with the release record, score the canaries, print the outcome.

    Prints JSON: {"wrong_files": [paths], "golden": logits, "logits": {loader: logits or sentence}}.
    """
    from .canaries import read_canaries
    from .record import file_hashes
    from .seal import changes, every_file, hashes, read_seal

    with tempfile.TemporaryDirectory(prefix="lungct-back-") as cache:
        fetched = ModelRepo.open(repo, commit, cache_dir=cache)
        here, listed = file_hashes(fetched), (fetched.release or {}).get("files") or {}
        wrong = sorted(name for name, digest in listed.items() if here.get(name) != digest)
        if fetched.has(SEAL):
            found_seal = read_seal(fetched.file(SEAL))
            sealed = changes(found_seal, hashes(every_file(fetched.path, downloaded=False)))
            wrong = sorted({*wrong, *sealed.changed, *sealed.added, *sealed.missing})
        canaries = read_canaries(fetched.path)
        # The gate asked every loader about these very bytes. Whether they arrived, the first one can say.
        first = next(iter(loaders(fetched)), "lungct_hf")
        found = score(fetched, canaries.images, only=(first,))
        logits = {name: v if isinstance(v, str) else v.tolist() for name, v in found.items()}
        sys.stdout.write(
            json.dumps({"wrong_files": wrong, "golden": canaries.golden.tolist(), "logits": logits}) + "\n"
        )


if __name__ == "__main__":
    from ..errors import exit_on_error

    with exit_on_error():
        main(*sys.argv[1:])
