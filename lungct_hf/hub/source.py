"""Transitional: the names that rooms use which do not open a ModelRepo yet."""

from __future__ import annotations

from pathlib import Path

from .model_repo import COMMIT, ModelRepo, local_folder, split_revision

FetchedModel = ModelRepo
__all__ = ["COMMIT", "FetchedModel", "local_model", "split_revision", "warn_if_it_can_move"]


def local_model(repo_or_dir: str | Path, revision: str | None = None) -> ModelRepo | None:
    folder = local_folder(repo_or_dir, revision)
    return None if folder is None else ModelRepo(folder)


def warn_if_it_can_move(source: ModelRepo) -> None:
    source.warn_if_it_can_move()
