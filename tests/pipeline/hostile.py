"""`lungct predict` whose readers meet files that no reader survives: run as a program, or imported by tests."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

from lungct_hf.pipeline import reader, readers

_open_slices = reader.open_slices


def _hostile_open(source: Any, **options: Any) -> Iterator[Any]:
    name = os.path.basename(str(source))
    if name.startswith("crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if name.startswith("memory"):
        os.kill(os.getpid(), signal.SIGKILL)
    if name.startswith("hang"):
        time.sleep(600)
    for number, found in enumerate(_open_slices(source, **options)):
        if name.startswith("half") and number == 2:
            os.kill(os.getpid(), signal.SIGABRT)
        yield found
    if name.startswith("bug"):
        raise RuntimeError("nobody foresaw this")


def read_for(*arguments: Any) -> None:
    """What a reader process runs."""
    reader.open_slices = _hostile_open
    reader.read_for(*arguments)


if __name__ == "__main__":
    import hostile
    from lungct_hf.cli import main

    readers.read_for = hostile.read_for  # type: ignore[attr-defined]
    readers._POLL, readers._MAX_DEATHS = 0.2, int(os.environ.get("MAX_DEATHS", "20"))  # type: ignore[attr-defined]
    defaults = readers.Readers.__init__.__kwdefaults__
    defaults["patience"] = float(os.environ.get("PATIENCE", "300"))
    sys.argv[0] = "lungct"
    main()
