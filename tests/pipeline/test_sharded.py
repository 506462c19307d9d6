"""One run on two processes: every id once, also when one is killed and the job is started again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers import run
from lungct_hf import LungCTError
from lungct_hf.pipeline.sharded import join_parts, part_of
from predict_runs import Predict

MODULE = "lungct_hf.pipeline.sharded"


def test_parts_are_joined_only_when_all_are_there(predict: Predict, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "rows.json"
    for rank in (0, 1):
        with pytest.raises(LungCTError, match="is not finished"):
            join_parts(output, "json", 2, [])
        assert predict(folder, "-o", part_of(output, rank, 2), "--shard", f"{rank}/2").returncode == 0
    whole = join_parts(output, "json", 2, ["x"])
    rows = json.loads(output.read_text())
    assert len(rows) == whole["rows"] == len(json.loads(predict(folder, "--format", "json").stdout))
    assert {path.name for path in tmp_path.iterdir()} == {"rows.json", "rows.json.manifest.json"}


def test_parts_of_different_listings_are_not_joined(predict: Predict, folder: Path, tmp_path: Path) -> None:
    data, output = tmp_path / "data", tmp_path / "rows.json"
    shutil.copytree(folder / "a", data)
    for rank in (0, 1):
        assert predict(data, "-o", part_of(output, rank, 2), "--shard", f"{rank}/2").returncode == 0
        shutil.copy(folder / "drawn.png", data / "0.png")  # sorts first, so it moves what the next process takes
    with pytest.raises(LungCTError, match="files were changed while"):
        join_parts(output, "json", 2, [])
    assert not output.exists()


def worker(launcher: int, rank: int) -> int | None:
    """The process that torchrun started as `rank`."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if f"\0RANK={rank}\0".encode() in b"\0" + Path(f"/proc/{child}/environ").read_bytes():
            return int(child)
    return None


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find the process to kill")
def test_two_processes_one_killed_and_started_again(
    predict: Predict, many: Path, tmp_path: Path, model_dir: Path
) -> None:
    files = sorted(many.glob("*.png"))[:160]
    table = tmp_path / "slices.parquet"
    pictures = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    pq.write_table(pa.table({"image": pictures}), table, row_group_size=10)
    output = tmp_path / "rows.parquet"
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", "-m", MODULE]
    launch += [str(table), "-m", str(model_dir), "-o", str(output), "--batch-size", "4", "--workers", "1"]
    journal = part_of(output, 1, 2).with_name(f"{part_of(output, 1, 2).name}.journal")
    job = subprocess.Popen(launch, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 150
    while not journal.exists() or len(journal.read_bytes().splitlines()) < 10:
        assert job.poll() is None and time.monotonic() < deadline, job.communicate()[1]
        time.sleep(0.02)
    victim = worker(job.pid, 1)
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    job.communicate(timeout=100)
    assert job.returncode != 0 and not output.exists() and journal.exists()
    again = run(launch)
    assert again.returncode == 0, again.stderr[-2000:]
    rows = pq.read_table(output).to_pylist()
    names = [row["file"] for row in rows]
    assert sorted(names) == sorted(f"{table}/{number}/{file.name}" for number, file in enumerate(files))
    alone = tmp_path / "alone.parquet"
    assert predict(table, "-o", alone).returncode == 0
    expected = {row["file"]: row["decision"] for row in pq.read_table(alone).to_pylist()}
    assert {row["file"]: row["decision"] for row in rows} == expected
    manifest = json.loads(output.with_name("rows.parquet.manifest.json").read_text())
    assert manifest["processes"] == 2 and sum(part["rows_before"] for part in manifest["parts"]) > 0
