"""Write a file or a folder so that nobody ever sees half of it; read and hash what was written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from .errors import LungCTError, UsageError

LFS_POINTER = b"version https://git-lfs"  # what the small file begins with that Git keeps in place of a large one


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write `content` under a temporary name beside `path`, flush it to the disk, then rename.

    Raises OSError (disk full, no permission, ...) with the old file untouched and the temporary one removed.
    """
    with file_in_one_step(path) as handle:
        handle.write(content.encode("utf-8") if isinstance(content, str) else content)


def check_place(path: Path) -> None:
    """Raises UsageError where something lies that is no file: renaming over a device or a pipe would replace it."""
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a device or a pipe"
        raise UsageError(f"{path} is {kind}; the name of a file is needed.")


@contextmanager
def file_in_one_step(path: Path) -> Iterator[BinaryIO]:
    """Yield a temporary file that becomes `path` when the block ends well: `write_atomic` for what fits no memory."""
    check_place(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` of pretty JSON; NaN and infinity are refused, they are not JSON."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, missing: str) -> dict[str, Any]:
    """A JSON object. Raises LungCTError: `missing` where there is no such file, else what is wrong with it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LungCTError(missing) from error
    except (OSError, ValueError) as error:
        raise LungCTError(f"{path.name} cannot be read ({error}). Fix: write or fetch the model again.") from error
    if not isinstance(value, dict):
        raise LungCTError(
            f"{path.name} must hold a JSON object, found {type(value).__name__}. Fix: write or fetch the model again."
        )
    return value


def check_no_pointer(path: Path) -> Path:
    """`path`. Raises LungCTError where Git LFS has left its pointer in place of the content of a file."""
    if path.is_file() and path.stat().st_size < 1024:
        with path.open("rb") as stream:
            if stream.read(len(LFS_POINTER)) == LFS_POINTER:
                raise LungCTError(
                    f"{path.name} is a Git LFS pointer, not the file itself. Fix: `git lfs pull` where it was cloned."
                )
    return path


def sha256_of(path: Path) -> str:
    """The hex sha256 of a file, read piece by piece."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def folder_in_one_step(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling folder that becomes `path`, replacing what was there, when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def publishable(words: Iterable[str]) -> list[str]:
    """A command line without the folders of this machine, which may name a person: /home/x/DATA becomes DATA."""
    return [_without_folders(word) for word in words]


def _without_folders(word: str) -> str:
    flag, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    path = Path(value)
    tells = path.is_absolute() or value.startswith("~") or ".." in path.parts
    return f"{flag}{equals}{path.name}" if tells else word
