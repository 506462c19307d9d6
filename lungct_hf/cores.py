"""How many cores there really are: what this process may run on, and what its container has time of."""

from __future__ import annotations

import math
import os
from pathlib import Path


def usable_cores() -> int:
    """How many cores this process may use: those it may run on, and not more than its container has time of."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, quota_of_cores(Path("/")))))


def cores_per_process() -> int:
    """`usable_cores`, shared among the processes that torchrun or accelerate started on this machine."""
    return max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def quota_of_cores(root: Path) -> float:
    """How many cores' time the Linux control groups of this process grant, of either version; infinite without one.

    `root` is where /proc and /sys are looked for. A group has no more than the groups around it.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    granted = [math.inf]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        own = top / path.lstrip("/")
        granted += [_granted(folder) for folder in (own, *own.parents) if folder.is_relative_to(top)]
    return min(granted)


def _granted(group: Path) -> float:
    try:
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return float(quota) / float(period) if quota.strip() != "max" and float(quota) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):  # a group that says nothing grants everything
        return math.inf
