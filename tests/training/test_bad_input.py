"""Whatever is wrong is one sentence with the fix, an exit code, and no damage. Run through the real script."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from helpers import TINY, train, write_cohort


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    return write_cohort(tmp_path / "data", patients=5, slices=1)


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    for word in words:
        assert word in sentence


def test_one_corrupt_image_is_named_and_skipped_only_on_request(cohort: Path, tmp_path: Path) -> None:
    victim = sorted((cohort / "malignant").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:200])
    flags = ["--data", cohort, "--output-dir", tmp_path / "run", *TINY, "--epochs", "1", "--fold-count", "3"]
    refused(train(*flags), 1, f"malignant/{victim.name}", "--on-bad-file skip")
    assert not (tmp_path / "run" / "model").exists()
    done = train(*flags, "--on-bad-file", "skip", "--output-dir", tmp_path / "second")
    assert done.returncode == 0 and victim.name in done.stdout + done.stderr


def test_fewer_groups_than_folds(cohort: Path, tmp_path: Path) -> None:
    for path in sorted((cohort / "benign").iterdir())[2:]:
        path.unlink()
    (cohort / "metadata.csv").unlink()
    done = train("--data", cohort, "--output-dir", tmp_path / "run", *TINY)
    refused(done, 1, "benign", "2", "5")


def test_no_such_data_no_such_init_no_such_precision(cohort: Path, tmp_path: Path) -> None:
    refused(train("--data", tmp_path / "none"), 2, "none")
    done = train("--data", cohort, "--init", "weights.pth", "--output-dir", tmp_path / "run")
    refused(done, 2, "weights.pth")


def test_a_push_without_a_token_is_refused_before_training(cohort: Path, tmp_path: Path) -> None:
    done = train("--data", cohort, "--output-dir", tmp_path / "run", *TINY, "--push-to-hub", "me/lungct")
    refused(done, 1, "hf auth login")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_an_output_folder_that_cannot_be(cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = train("--data", cohort, "--output-dir", tmp_path / "file" / "run", *TINY)
    refused(done, 1, "--output-dir")


@pytest.mark.slow
def test_a_full_disk_keeps_what_there_was(cohort: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and os.geteuid() == 0
    if not mounted or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=7m", "tmpfs", str(disk)]).returncode:
        pytest.skip("a small file system can only be mounted by root")
    try:
        flags = ["--output-dir", disk / "run", *TINY, "--epochs", "30", "--patience", "0"]
        done = train("--data", cohort, *flags, "--fold-count", "3")
        refused(done, 1, "No space left", "free some space")
        assert not list(disk.rglob("*.tmp"))
        subprocess.run(["mount", "-o", "remount,size=300m", str(disk)], check=True)
        assert train("--resume", disk / "run").returncode == 0
        assert (disk / "run" / "model" / "README.md").exists()
    finally:
        subprocess.run(["umount", str(disk)], check=False)
