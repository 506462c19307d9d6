"""LungCT: a published model, from a directory or from the Hub at one commit, that answers for slices and studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..contract import ONNX_FILE
from ..errors import UsageError, require
from ..hub.model_repo import CONTRACT_FILES, METRICS, WEIGHTS, ModelRepo
from .answers import Answers
from .session import OnnxSession, Outputs, Session

BACKENDS = ("auto", "onnx", "torch")


class LungCT(Answers):
    """A lung CT slice model with 2 to 100 classes. Research only, never a medical device.

    `predict` takes slices as files, bytes, PIL images, arrays or DICOM data sets, `predict_study` those of one case.
    Several threads may share one object. `contract` is the model's lungct.json; `repo_id` and `revision` (the 40-hex
    commit) say what was loaded and are None for a directory; `backend` is "onnx" or "torch". `worth` says in one
    line what its answers are worth, `note` what must be known of its training.
    """

    repo: ModelRepo

    def __init__(self, session: Session, repo: ModelRepo) -> None:
        self.contract, self.repo = repo.contract, repo
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
        """Load a run, a model directory or a Hub repo ("owner/name" or "owner/name@revision").

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
        weights = WEIGHTS if backend == "torch" else ONNX_FILE
        repo = ModelRepo.open(repo_or_dir, revision, files=[*CONTRACT_FILES, METRICS, weights], **access)
        session: Session
        if backend == "onnx" or (backend == "auto" and repo.contract.has_onnx):
            session = OnnxSession(repo.path, repo.contract, threads)
        else:
            require("torch", "torch")
            if repo.repo_id is not None and weights == ONNX_FILE:
                ModelRepo.open(repo.repo_id, repo.revision, files=[*CONTRACT_FILES, WEIGHTS], **access)
            from .torch_session import load_session

            session = load_session(repo.path, threads)
        repo.warn_if_it_can_move()
        return cls(session, repo)

    def _run(self, squares: np.ndarray) -> Outputs:
        return self._session.run(squares)
