"""The errors a user can meet: one clear sentence (what came, what is needed, the fix) and an exit code."""

from __future__ import annotations

import errno
import importlib.util
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


class LungCTError(Exception):
    """Something failed for a reason the user can act on. Exit code 1."""

    exit_code = 1


class UsageError(LungCTError):
    """The call itself cannot be carried out as it was typed. Exit code 2."""

    exit_code = 2


class RefusedError(LungCTError):
    """A gate said no. Exit code 3."""

    exit_code = 3


class BadSliceError(LungCTError):
    """One file is not a readable slice; in a batch it becomes a row with this reason.

    `reason` is one of the codes of `slices.report.SENTENCES`.
    """

    def __init__(self, message: str, reason: str = "damaged") -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[BadSliceError], tuple[str, str]]:
        return type(self), (str(self), self.reason)  # so that it crosses from a worker process whole


def brief(error: BaseException) -> str:
    """What another library's error says, in at most one line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return shown(lines[0], 160)


def shown(text: object, limit: int = 64) -> str:
    """What a file says of itself (a UID, a name in a header), fit for a message: short, and nothing that steers a
    terminal."""
    line = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in str(text))
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def require(module: str, extra: str) -> None:
    """Raise if `module` is not installed, naming the extra that brings it."""
    if importlib.util.find_spec(module) is None:
        raise LungCTError(f"This needs {module}, which is not installed. Fix: pip install 'lungct-hf[{extra}]'")


@contextmanager
def exit_on_error() -> Iterator[None]:
    """For entry points: turn what a user can act on into one line on stderr and an exit code, never a traceback.

    What a terminal cannot show (a name in Chinese on a Latin-1 terminal) is shown as question marks.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace" if stream is sys.stderr else "replace")
    try:
        yield
    except LungCTError as error:
        _leave(str(error), error.exit_code)
    except KeyboardInterrupt:
        _leave("stopped by Ctrl-C", 130)
    except OSError as error:
        # A full or read-only disk can strike at any write; other OSErrors are bugs and keep their traceback.
        found = disk_error(error)
        if found is None:
            raise
        _leave(str(found), found.exit_code)
    except ImportError as error:  # a package that another library asks for late, as httpx does for SOCKS proxies
        _leave(f"A package is missing or does not load: {brief(error).rstrip('.')}. Fix: install it with pip.", 1)
    except RuntimeError as error:
        if not is_homeless(error):
            raise
        _leave("There is no home folder for caches. Fix: set HOME to a folder that you may write to.", 1)


def is_homeless(error: BaseException) -> bool:
    """Whether a library failed because it looked for a home folder where there is none."""
    return isinstance(error, RuntimeError) and "home directory" in str(error)


def disk_error(error: OSError) -> LungCTError | None:
    """What to tell of a disk that is full, read-only or closed to this user; None for any other OSError."""
    if error.errno == errno.ENOENT and "temporary directory" in str(error):  # `tempfile` has tried all that it knows
        return LungCTError(
            "There is no folder for temporary files: none of the usual ones exists, may be written to and has room. "
            "Fix: set TMPDIR to a folder that does."
        )
    fix = _DISK_FIXES.get(error.errno or 0)
    if fix is None:
        return None
    where = f" at {error.filename}" if error.filename else ""
    return LungCTError(f"{error.strerror}{where}. Fix: {fix.format(folder=_choice(error.filename))}.")


def _choice(path: object) -> str:
    """How to get another folder than that of `path`: by a variable for caches and temporary files."""
    text = os.path.abspath(str(path)) if path else ""
    if "huggingface" in text.split(os.sep) or _is_below(text, os.environ.get("HF_HOME")):
        return "set HF_HOME to a folder that you may write to"
    temporary = os.path.abspath(os.environ.get("TMPDIR") or "/tmp")
    if _is_below(text, temporary) and os.path.relpath(text, temporary).startswith(_OURS):
        return "set TMPDIR to a folder that you may write to and that has room"
    return "choose a folder that you may write to (--output-dir, --output)"


def _is_below(path: str, folder: str | None) -> bool:
    return bool(folder) and path.startswith(os.path.join(os.path.abspath(str(folder)), ""))


_OURS = ("lungct-", "tmp", "torchinductor_")  # what temporary folders of ours and of the libraries begin with
_DISK_FIXES = {
    errno.ENOSPC: "free some space; what was written before is intact (training continues with --resume), or {folder}",
    errno.EDQUOT: "your disk quota is used up; free some space (training continues with --resume), or {folder}",
    errno.EACCES: "{folder}",
    errno.EPERM: "{folder}",
    errno.EROFS: "the file system is read-only; {folder}",
    errno.ENOTDIR: "a part of that path is a file, not a folder; {folder}",
}


def _leave(sentence: str, code: int) -> NoReturn:
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    sys.exit(code)
