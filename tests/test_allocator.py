"""Freed memory stays with the process where glibc can be told so, and nowhere else is anything touched."""

import os
import platform
import subprocess
import sys

import pytest

FREE_AND_ASK = """
import resource, sys
import numpy as np
from lungct_hf.allocator import keep_freed_memory
print(keep_freed_memory() if "keep" in sys.argv else None)
np.ones(4_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(4_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def answers(*flags: str, **variables: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | variables
    done = subprocess.run(
        [sys.executable, "-c", FREE_AND_ASK, *flags], capture_output=True, text=True, env=environment, check=True
    )
    return done.stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_the_kernel_is_asked_once_instead_of_every_time() -> None:
    kept, faults = answers("keep")
    usual = answers()
    assert kept == "True" and int(faults) < int(usual[1]) / 5


def test_variables_of_the_user_win() -> None:
    assert answers("keep", MALLOC_ARENA_MAX="4")[0] == "False"
