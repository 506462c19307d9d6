"""The model behind a server: loaded in the background, checked, loaded again after a failure, in several versions."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..cores import usable_cores
from ..errors import LungCTError, UsageError
from ..hub.model_repo import COMMIT, ModelRepo, local_folder
from ..runtime import LungCT
from .record import EVIDENCE, Evidence, read_evidence
from .self_test import FILES, SelfTest, self_test

_KEPT = 3  # versions in memory besides the one that is served; one takes about 40 MB
_PAUSES = (2.0, 5.0, 10.0, 20.0, 40.0, 60.0)  # seconds between attempts, the last one for ever


class NotReady(LungCTError):
    """There is no model to answer with, yet or at the moment; the text says why."""


@dataclass(frozen=True, eq=False)
class Served:
    """A model that passed its self-test, and the version's name where it has one."""

    model: LungCT
    self_test: SelfTest
    version: str | None = None


class Keeper:
    """Loads `name` (a directory, OWNER/NAME or OWNER/NAME@REVISION) and goes on trying where that may still work.

    `start` returns at once. A failure that no waiting mends (a directory that is no model, a name that means nothing,
    a network that was switched off) ends the attempts; `failed_for_good` then holds it. All methods are thread-safe.
    """

    def __init__(self, name: str, revision: str | None = None) -> None:
        self.name = name
        self.revision = revision
        self.failed_for_good: LungCTError | None = None
        self._served: Served | None = None
        self._problem: str | None = None
        self._versions: dict[str, str] = {}
        self._others: OrderedDict[str, Served] = OrderedDict()
        self._evidence: dict[str | None, Evidence] = {}
        self._lock = threading.Lock()
        self._tried, self._ready = threading.Event(), threading.Event()

    def start(self) -> None:
        """Begin to load."""
        threading.Thread(target=self._load, name="lungct-model", daemon=True).start()

    def wait(self, seconds: float | None = None) -> None:
        """Until the first attempt has ended, well or not."""
        self._tried.wait(seconds)

    def wait_until_ready(self) -> None:
        """Until there is a model, however many attempts that takes; for ever where none can succeed."""
        self._ready.wait()

    def served(self, version: str | None = None) -> Served:
        """The model, or another version of it: one of `versions`, or its commit.

        Raises NotReady while there is none, UsageError for a version that the repo does not list.
        """
        first = self._served
        if first is None:
            raise NotReady(self.problem or "The model is still loading.")
        wanted = (version or "").strip()
        if not wanted or wanted in (first.version, first.model.revision):
            return first
        tags = self._versions
        tag = wanted if wanted in tags else next((name for name, sha in tags.items() if sha == wanted), None)
        if tag is None:
            known = ", ".join(list(tags)[:20]) or "none"
            raise UsageError(f"There is no version {wanted[:60]!r} of this model. Its versions: {known}.")
        with self._lock:  # one version at a time: each is a download
            if tag not in self._others:
                self._others[tag] = self._fetch(first.model.repo_id or self.name, tags[tag], tag)
                while len(self._others) > _KEPT:
                    self._others.popitem(last=False)
            self._others.move_to_end(tag)
            return self._others[tag]

    def evidence(self, served: Served) -> Evidence:
        """What the repo says about this version: figures and plots."""
        key = served.model.revision
        if key not in self._evidence:
            self._evidence[key] = read_evidence(served.model, _with(served.model, EVIDENCE))
        return self._evidence[key]

    @property
    def versions(self) -> dict[str, str]:
        """{tag: commit} of the repo, newest first as the Hub lists them; empty for a directory."""
        return dict(self._versions)

    @property
    def problem(self) -> str | None:
        """Why there is no model, in a sentence; None when there is one or the first attempt goes on."""
        return None if self._served else self._problem

    @property
    def status(self) -> str:
        """ "ready", "loading" or "failed"; a server that failed is trying again unless it failed for good."""
        return "ready" if self._served else "failed" if self._problem else "loading"

    def health(self) -> dict[str, Any]:
        """For a health check; JSON-able."""
        served = self._served
        # A directory's path is nobody's business.
        name = self.name.partition("@")[0] if served is None and self._is_repo else None
        return {
            "status": self.status,
            "problem": self.problem,
            "model": served.model.repo_id or served.model.name if served else name,
            "revision": served.model.revision if served else None,
            "self_test": served.self_test.state if served else None,
            "package_version": __version__,
        }

    @property
    def _is_repo(self) -> bool:
        return not Path(self.name).expanduser().exists()

    def _load(self) -> None:
        for attempt in range(1_000_000):
            try:
                served = self._fetch(self.name, self.revision, None)
                self._versions = _versions(served.model)
                name = next((tag for tag, sha in self._versions.items() if sha == served.model.revision), None)
                self._served = Served(served.model, served.self_test, name)
                self._ready.set()
                break
            except LungCTError as error:
                self._problem = str(error)
                if self._is_final(error):
                    self.failed_for_good = error
                    break
            except Exception as error:  # this thread's end would leave a page that waits for ever
                self._problem = f"The model could not be loaded ({type(error).__name__})."
            finally:
                self._tried.set()
            time.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])

    def _is_final(self, error: LungCTError) -> bool:
        if isinstance(error, UsageError):
            return True
        from .self_test import SelfTestError

        try:
            is_directory = local_folder(self.name, self.revision) is not None
        except LungCTError:
            return True
        if is_directory:
            return not isinstance(error, SelfTestError)  # a directory can be written anew
        from huggingface_hub import constants

        return bool(constants.is_offline_mode())

    def _fetch(self, name: str, revision: str | None, version: str | None) -> Served:
        # The other half of the cores reads what the next visitors sent.
        threads = max(1, usable_cores() // 2)
        model = LungCT.from_pretrained(name, revision, threads=threads)
        return Served(model, self_test(model, _with(model, FILES).path), version)


def _with(model: LungCT, files: list[str]) -> ModelRepo:
    """The model's repo with these files of it fetched as well, as far as it has them."""
    return ModelRepo.open(model.repo_id, model.revision, files=files) if model.repo_id else model.repo


def _versions(model: LungCT) -> dict[str, str]:
    """{tag: commit}; empty for a directory, and where the Hub cannot be asked (it serves the cached model then)."""
    if model.repo_id is None:
        return {}
    from huggingface_hub import HfApi, constants

    from ..hub.failures import HUB_ERRORS

    if constants.is_offline_mode():
        return {}
    try:
        refs = HfApi(endpoint=constants.ENDPOINT).list_repo_refs(model.repo_id)
    except HUB_ERRORS:
        return {}
    return {ref.name: ref.target_commit for ref in reversed(refs.tags) if COMMIT.fullmatch(ref.target_commit)}
