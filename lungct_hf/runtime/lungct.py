"""LungCT: a published model, from a directory or from the Hub at one commit, that answers for slices and studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..contract import ONNX_FILE, Contract
from ..errors import UsageError, require
from ..hub.source import FetchedModel, warn_if_it_can_move
from .answers import Answers, fetch
from .session import OnnxSession, Outputs, Session

BACKENDS = ("auto", "onnx", "torch")
_JSON = ["config.json", "lungct.json"]


class LungCT(Answers):
    """A lung CT slice model with 2 to 100 classes. Research only, never a medical device.

    `predict` takes slices as files, bytes, PIL images, arrays or DICOM data sets, `predict_study` those of one case.
    Several threads may share one object. `contract` is the model's lungct.json; `repo_id` and `revision` (the 40-hex
    commit) say what was loaded and are None for a directory; `backend` is "onnx" or "torch".
    """

    def __init__(self, session: Session, contract: Contract, source: FetchedModel) -> None:
        self.contract, self._source = contract, source
        self._session, self.backend = session, session.backend

    @classmethod
    def from_pretrained(
        cls,
        repo_or_dir: str | Path,
        revision: str | None = None,
        *,
        backend: str = "auto",
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        threads: int | None = None,
    ) -> LungCT:
        """Load a directory that training wrote or a Hub repo ("owner/name" or "owner/name@revision").

        Only what the backend needs is downloaded. `backend="auto"` is "onnx" where lungct.json records an ONNX file
        and "torch" where it does not. A revision that can move, like a branch, is loaded at the commit it has now, and
        a warning on the logger `lungct_hf` names that commit once. `threads`: cores for one call, by default all.

        Raises UsageError for a call that means nothing, LungCTError with the fix when the repo or revision does not
        exist, a file is missing or damaged, or the backend is not installed.
        """
        if backend not in BACKENDS:
            raise UsageError(f"Unknown backend {backend!r}; needed is one of {', '.join(BACKENDS)}.")
        if threads is not None and threads < 1:
            raise UsageError(f"threads must be at least 1, got {threads}.")

        access: dict[str, Any] = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
        weights = "model.safetensors" if backend == "torch" else ONNX_FILE
        source = fetch(repo_or_dir, revision, [*_JSON, weights], **access)
        contract = Contract.read(source.path)
        session: Session
        if backend == "onnx" or (backend == "auto" and contract.has_onnx):
            session = OnnxSession(source.path, contract, threads)
        else:
            require("torch", "torch")
            if source.repo_id is not None and weights == ONNX_FILE:
                fetch(source.repo_id, source.revision, [*_JSON, "model.safetensors"], **access)
            from .torch_session import load_session

            session = load_session(source.path, threads)
        warn_if_it_can_move(source)
        return cls(session, contract, source)

    def _run(self, squares: np.ndarray) -> Outputs:
        return self._session.run(squares)
