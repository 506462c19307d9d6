"""Runs that are killed, stopped or lose their readers end with exactly the rows of an unbroken run."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import run
from lungct_hf.pipeline.reader import ReadSlice, Settings
from lungct_hf.pipeline.readers import Readers
from lungct_hf.pipeline.units import list_units
from lungct_hf.slices.preprocess import Preprocessing
from lungct_hf.slices.window import LUNG_WINDOW
from predict_runs import Predict, predict_command

HOSTILE = Path(__file__).with_name("hostile.py")


def journaled(output: Path) -> int:
    """Rows in a run's journal."""
    journal = output.with_name(f"{output.name}.journal")
    lines = journal.read_bytes().splitlines()[1:] if journal.exists() else []
    return sum(line.endswith(b"}]") for line in lines)


def start_and_wait(command: list[str], output: Path, rows: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while journaled(output) < rows:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.01)
    return process


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to see the reader processes")
def test_kill_and_restart_gives_the_rows_of_an_unbroken_run(
    predict: Predict, many: Path, tmp_path: Path, model_dir: Path
) -> None:
    whole, broken = tmp_path / "whole.csv", tmp_path / "broken.csv"
    assert predict(many, "-o", whole, "--batch-size", "8", "--workers", "2").returncode == 0
    command = predict_command(model_dir, many, "-o", broken, "--batch-size", "8", "--workers", "2")
    before = 0
    for rows in (1, 60):
        process = start_and_wait(command, broken, rows)
        readers = children(process.pid)
        process.send_signal(signal.SIGSTOP)
        time.sleep(1)  # the readers have filled all that there is to fill, and wait
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert journaled(broken) >= max(rows, before) and not broken.exists()
        before = journaled(broken)
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{pid}/stat").exists() for pid in readers) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not [pid for pid in readers if Path(f"/proc/{pid}/stat").exists()]  # no reader outlives the run
    with broken.with_name("broken.csv.journal").open("ab") as journal:
        journal.write(b'["0123", {"file": "torn')  # as a power cut leaves it
    done = run(command)
    assert done.returncode == 0, done.stderr
    assert broken.read_bytes() == whole.read_bytes()
    manifest = json.loads((tmp_path / "broken.csv.manifest.json").read_text())
    assert manifest["rows_before"] == before and f"{before} of them before" in done.stderr
    assert not broken.with_name("broken.csv.journal").exists()


def test_control_c_says_how_to_go_on(predict: Predict, many: Path, tmp_path: Path, model_dir: Path) -> None:
    output = tmp_path / "rows.csv"
    command = predict_command(model_dir, many, "-o", output, "--batch-size", "4", "--workers", "1")
    process = start_and_wait(command, output, 4)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command goes on" in said and "Traceback" not in said
    assert run(command).returncode == 0
    assert len(output.read_text().splitlines()) == 1 + len(list(many.iterdir()))


def test_changed_files_are_done_again_and_others_are_not(
    predict: Predict, many: Path, tmp_path: Path, model_dir: Path
) -> None:
    folder, output = tmp_path / "slices", tmp_path / "rows.json"
    shutil.copytree(many, folder)
    command = predict_command(model_dir, folder, "-o", output, "--batch-size", "4", "--workers", "1")
    process = start_and_wait(command, output, 4)
    process.kill()
    process.wait()
    kept = journaled(output)
    (folder / "0.png").write_text("no picture any more")
    assert run(command).returncode == 0
    rows = json.loads(output.read_text())
    assert {Path(row["file"]).name: row for row in rows}["0.png"]["decision"] == "error"
    assert len(rows) == len(list(folder.iterdir()))
    assert json.loads(output.with_name("rows.json.manifest.json").read_text())["rows_before"] == kept


def test_another_run_does_not_take_over(predict: Predict, many: Path, tmp_path: Path, model_dir: Path) -> None:
    output = tmp_path / "rows.csv"
    command = predict_command(model_dir, many, "-o", output, "--batch-size", "4", "--workers", "1")
    process = start_and_wait(command, output, 1)
    process.send_signal(signal.SIGSTOP)  # so that it is not done before the other has begun
    second = run(command)
    assert second.returncode == 1 and "Another run is writing rows.csv.journal" in second.stderr
    process.kill()
    process.wait()
    other = predict(many, "-o", output, "--force")
    assert other.returncode == 1 and "other settings" in other.stderr and "delete it" in other.stderr


@pytest.fixture
def hostile_folder(folder: Path, tmp_path: Path) -> Path:
    place = tmp_path / "hostile"
    shutil.copytree(folder / "a", place)
    for name in ("crash 1.png", "crash 2.png", "memory.png", "bug.png"):
        shutil.copy(folder / "b" / "slice 0.png", place / name)
    shutil.copy(folder / "pages.tif", place / "half.tif")
    return place


def hostile(model_dir: Path, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HOSTILE), "predict", *map(str, arguments), "--model", str(model_dir)]
    paths = os.pathsep.join([str(HOSTILE.parent), os.environ.get("PYTHONPATH", "")])
    return run(command, **({"PYTHONPATH": paths} | environment))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_dying_reader_costs_its_file_alone(hostile_folder: Path, model_dir: Path, workers: str) -> None:
    done = hostile(model_dir, hostile_folder, "--format", "json", "--workers", workers)
    assert done.returncode == 0, done.stderr
    rows: dict[str, list[dict]] = {}
    for row in json.loads(done.stdout):
        rows.setdefault(Path(row["file"]).name, []).append(row)
    assert "SIGSEGV" in rows["crash 1.png"][0]["detail"] and "SIGSEGV" in rows["crash 2.png"][0]["detail"]
    assert "memory runs out" in rows["memory.png"][0]["detail"]
    assert "nobody foresaw this" in rows["bug.png"][1]["detail"]
    assert [row["decision"] != "error" for row in rows["half.tif"]] == [True, True, False]
    assert all(len(rows[name]) == 1 for name in ("crash 1.png", "crash 2.png", "memory.png"))
    good = [rows[f"slice {number}.png"] for number in range(4)]
    assert all(len(found) == 1 and found[0]["p_normal"] is not None for found in good)


@pytest.mark.slow
def test_a_reader_that_hangs_is_replaced(hostile_folder: Path, model_dir: Path) -> None:
    shutil.copy(hostile_folder / "slice 0.png", hostile_folder / "hang.png")
    done = hostile(model_dir, hostile_folder, "--format", "csv", "--workers", "2", PATIENCE="8")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [row["decision"] for row in rows if row["file"].endswith("hang.png")] == ["error"]
    assert sum(row["file"].endswith(".tif") for row in rows) == 3


def test_a_run_that_slept_blames_no_slice(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lungct_hf.pipeline.readers._POLL", 0.4)
    units = [unit for group in list_units([str(folder / "a")]) for unit in group]
    tasks = iter([(number, unit, 0) for number, unit in enumerate(units)])
    with Readers(Settings(LUNG_WINDOW, None, Preprocessing(size=64)), 1, slots=1, patience=2.0) as pool:
        (reader,) = pool._readers
        found = pool.read(tasks)
        first = next(found)
        os.kill(reader.process.pid, signal.SIGSTOP)  # as Ctrl-Z stops all of a run
        time.sleep(3.0)
        os.kill(reader.process.pid, signal.SIGCONT)
        rows = [first, *found]
    assert [type(row.found) for row in rows if row.found is not None] == [ReadSlice] * len(units)


def test_readers_that_only_die_end_the_run(tmp_path: Path, model_dir: Path) -> None:
    (tmp_path / "slices").mkdir()
    for number in range(12):
        (tmp_path / "slices" / f"crash {number}.png").write_bytes(b"x")
    done = hostile(model_dir, tmp_path / "slices", "--workers", "1", MAX_DEATHS="4")
    assert done.returncode == 1 and "4 reader processes in a row died (SIGSEGV)" in done.stderr
    assert "Traceback" not in done.stderr
