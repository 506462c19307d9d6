"""A container with the time of two cores has two, however many the machine shows."""

import math
from pathlib import Path

import pytest

from lungct_hf.cores import quota_of_cores, usable_cores


def tree(root: Path, groups: str, **files: str) -> Path:
    """A file system with this /proc/self/cgroup, and files below /sys/fs/cgroup (__ for a slash, cpu_ for cpu.)."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("cpu_", "cpu.", 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {"cpu_max": "200000 100000\n"}, 2.0),
        ("0::/\n", {"cpu_max": "max 100000\n"}, math.inf),
        ("0::/pod/one\n", {"pod__one__cpu_max": "max 100000\n", "pod__cpu_max": "150000 100000\n"}, 1.5),
        ("0::/seen/outside\n", {"cpu_max": "50000 100000\n"}, 0.5),
        ("4:cpu,cpuacct:/\n", {"cpu__cpu_cfs_quota_us": "400000\n", "cpu__cpu_cfs_period_us": "100000\n"}, 4.0),
        ("4:cpu,cpuacct:/\n", {"cpu__cpu_cfs_quota_us": "-1\n", "cpu__cpu_cfs_period_us": "100000\n"}, math.inf),
        ("3:memory:/\n", {"cpu_max": "nonsense"}, math.inf),
    ],
)
def test_the_quota_of_either_version(tmp_path: Path, groups: str, files: dict[str, str], cores: float) -> None:
    assert quota_of_cores(tree(tmp_path, groups, **files)) == cores


def test_no_groups_grant_everything(tmp_path: Path) -> None:
    assert quota_of_cores(tmp_path) == math.inf and usable_cores() >= 1
