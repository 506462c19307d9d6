"""What a model is loaded from: a directory or a Hub repo at a commit. Loads nothing heavy, and no Hub client."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import LungCTError, UsageError

logger = logging.getLogger("lungct_hf")

COMMIT = re.compile(r"[0-9a-f]{40}")
_VERSION = re.compile(r"v?\d+(\.\d+)+([-+.].*)?")  # what a release's tag looks like; a tag is not meant to move
_warned: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class FetchedModel:
    """Where the files are and exactly which ones they are.

    `revision` is the 40-hex commit, None for a local directory; `requested_revision` is what the caller typed.
    """

    path: Path
    repo_id: str | None = None
    revision: str | None = None
    requested_revision: str | None = None

    @property
    def name(self) -> str:
        """How to call the model in front of a reader: "owner/name@revision" or the directory's name."""
        if self.repo_id is not None:
            return f"{self.repo_id}@{self.revision}"
        folder = self.path.resolve()
        return folder.name if folder.name != "model" else f"{folder.parent.name}/model"  # runs/NAME/model


def split_revision(repo: str) -> tuple[str, str | None]:
    """("owner/name", "rev") from "owner/name@rev"; the second is None when there is no "@"."""
    name, at, revision = repo.partition("@")
    if at and not (name and revision):
        raise UsageError(f"{repo!r} is not a model: write OWNER/NAME or OWNER/NAME@REVISION.")
    return name, revision or None


def local_model(repo_or_dir: str | Path, revision: str | None = None) -> FetchedModel | None:
    """The model in a directory that exists, or None where the name must mean a Hub repo.

    Raises UsageError for a directory with a revision, LungCTError for a path that is no directory.
    """
    text = str(repo_or_dir)
    directory = Path(repo_or_dir).expanduser()
    if directory.is_dir():
        if revision is not None:
            raise UsageError(f"{text} is a local directory, which has no revisions: drop {revision!r}.")
        return FetchedModel(directory)
    repo_id, at = split_revision(text)
    if at and Path(repo_id).expanduser().is_dir():
        raise UsageError(f"{repo_id} is a local directory, which has no revisions: drop '@{at}'.")
    if at and revision and at != revision:
        raise UsageError(f"Two revisions were given, {at!r} and {revision!r}: give one.")
    _not_a_path(text, directory)
    return None


def warn_if_it_can_move(source: FetchedModel) -> None:
    """Say once, on the logger `lungct_hf`, which commit a branch was when it was loaded."""
    asked = source.requested_revision or "main"
    if source.repo_id is None or COMMIT.fullmatch(asked) or _VERSION.fullmatch(asked):
        return
    if (source.repo_id, asked) not in _warned:
        _warned.add((source.repo_id, asked))
        logger.warning(
            "%s@%s can change at any time; loaded is commit %s. Name it to get the same answers tomorrow.",
            source.repo_id,
            asked,
            source.revision,
        )


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
