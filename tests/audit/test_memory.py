"""Memory grows with the number of slices, not with its square."""

from __future__ import annotations

import re
import sys

import pytest

from helpers import ROOT, run


@pytest.mark.slow
def test_memory_grows_linearly() -> None:
    """20,000 slices take about 1 GiB; 6,000 that were compared in one matrix would need more than that."""
    peaks = []
    for slices in (2000, 6000):
        command = [sys.executable, str(ROOT / "benchmarks/audit_memory.py"), "--slices", str(slices), "--size", "64"]
        done = run(command, PYTHONPATH=str(ROOT))
        found = re.search(r"peak (\d+) MiB", done.stdout)
        assert found, done.stdout + done.stderr
        peaks.append(int(found[1]))
    assert peaks[1] - peaks[0] < 4000 * 0.08, peaks  # 80 KiB per slice
