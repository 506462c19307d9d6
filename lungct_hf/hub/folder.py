"""Which files of a model folder are published, and which never are."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import LungCTError, RefusedError

# Endings of pickles, packed or not: who loads one runs what it holds.
PICKLE = re.compile(r"(?i)\.(?:bin|pt|pth|pkl|pickle|ckpt|joblib|dill)(?:\.(?:gz|bz2|xz|zst|z|lz4|zip))?$")


def files_to_publish(folder: Path) -> dict[str, Path]:
    """Path in the repo -> file, sorted; refuses a folder that is missing, empty, or holds pickles."""
    found = list_files(folder)
    refuse_links(folder, found)
    pickles = [name for name in found if PICKLE.search(name)]
    if pickles:
        raise RefusedError(
            f"{folder} holds {', '.join(pickles[:5])}: pickled weights can run code on the machine that loads them, "
            "so they are not uploaded. Keep the weights as model.safetensors and remove the pickles."
        )
    return found


def list_files(folder: Path) -> dict[str, Path]:
    """As `files_to_publish`, with pickles and links to elsewhere, as the Hub client's cache is made of."""
    if not folder.is_dir():
        raise LungCTError(
            f"There is no directory {folder} to push. Give the directory that training wrote (.../model)."
        )
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        parts = name.split("/")
        hidden = any(part.startswith(".") for part in parts[parts[0] == ".eval_results" :])
        if path.is_file() and not hidden and path.suffix != ".tmp" and "__pycache__" not in parts:
            found[name] = path
    if not found:
        raise LungCTError(f"{folder} holds no files to push. Give the directory that training wrote (.../model).")
    return found


def refuse_links(folder: Path, files: dict[str, Path]) -> None:
    """Raise RefusedError for a file that is a link to somewhere outside `folder`."""
    for name, path in files.items():
        if not path.resolve().is_relative_to(folder.resolve()):
            raise RefusedError(f"{name} is a link to a file outside {folder}. Copy the file, or remove the link.")
