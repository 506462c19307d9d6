"""A run that is stopped, killed or fails goes on bit for bit; nothing of it is lost."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from helpers import TINY, train, train_command, write_cohort

FLAGS = [*TINY, "--epochs", "4", "--head-epochs", "1", "--checkpoint-every", "2", "--hflip"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("data") / "clinic", patients=6, slices=6)


@pytest.fixture(scope="module")
def unbroken(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("unbroken") / "run"
    done = train("--data", cohort, "--output-dir", run_dir, *FLAGS)
    assert done.returncode == 0, done.stderr
    return run_dir


def start(*flags: str | Path, **environment: str) -> subprocess.Popen[str]:
    command, out = train_command(*flags), subprocess.PIPE
    return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, text=True, env=os.environ | environment)


def wait_for_checkpoint(run_dir: Path, process: subprocess.Popen[str], step: int) -> None:
    """Until the run is past `step`, which with two-step checkpoints is in the middle of an epoch."""
    deadline = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        steps = [int(path.stem[5:]) for path in run_dir.glob("checkpoints/step-*.pt")]
        if steps and max(steps) >= step:
            return
        time.sleep(0.01)
    raise AssertionError(f"no checkpoint of step {step}: {process.communicate()[0]}")


def weights(run_dir: Path) -> bytes:
    return (run_dir / "model" / "model.safetensors").read_bytes()


def test_killed_in_mid_epoch_and_resumed_is_the_unbroken_run(cohort: Path, unbroken: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = start("--data", cohort, "--output-dir", run_dir, *FLAGS)
    wait_for_checkpoint(run_dir, process, 10)
    process.kill()
    process.wait()
    assert not (run_dir / "model").exists()
    done = train("--resume", run_dir)
    assert done.returncode == 0, done.stderr
    assert "Continuing at step" in done.stdout
    assert weights(run_dir) == weights(unbroken)
    assert (run_dir / "logs" / "metrics.csv").read_text().count("\n") == 5  # header and one row per epoch
    left = [path.name for path in run_dir.rglob("*") if path.name.endswith(".tmp")]
    assert left == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_stop_writes_a_checkpoint_and_says_how_to_go_on(
    cohort: Path, unbroken: Path, tmp_path: Path, number: signal.Signals
) -> None:
    run_dir = tmp_path / "run"
    process = start("--data", cohort, "--output-dir", run_dir, *FLAGS, "--checkpoint-every", "1000")
    wait_for_checkpoint(run_dir, process, 8)  # written at the end of the first epoch
    process.send_signal(number)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number and f"--resume {run_dir}" in said and "Traceback" not in said
    if number == signal.SIGTERM:
        done = train("--resume", run_dir)
        assert done.returncode == 0, done.stderr
        assert weights(run_dir) == weights(unbroken)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("average", [True, False], ids=["average", "no average"])
def test_a_compiled_run_goes_on_plain_and_the_other_way_round(
    cohort: Path, unbroken: Path, tmp_path: Path, average: bool
) -> None:
    """torch.compile wraps the network; names, checkpoints and model are those of the network within.

    The backend "eager" runs the same operations, so the bits are the same as well.
    """
    flags, whole = ["--data", cohort, *FLAGS], unbroken
    if not average:
        flags, whole = [*flags, "--ema-decay", "0"], tmp_path / "whole"
        assert train(*flags, "--output-dir", whole).returncode == 0
    for name, first, second in (("compiled", "EAGER", "NO"), ("plain", "NO", "EAGER")):
        run_dir = tmp_path / name
        process = start(*flags, "--output-dir", run_dir, ACCELERATE_DYNAMO_BACKEND=first)
        wait_for_checkpoint(run_dir, process, 10)
        process.kill()
        process.wait()
        done = train("--resume", run_dir, ACCELERATE_DYNAMO_BACKEND=second)
        assert done.returncode == 0, done.stderr
        assert weights(run_dir) == weights(whole)
        record = json.loads((run_dir / "model" / "lungct.json").read_text())["provenance"]["training"]
        assert record["compiled"] == (None if second == "NO" else "eager")


@pytest.mark.slow
def test_a_machine_that_cannot_compile_says_so(cohort: Path, tmp_path: Path) -> None:
    flags = ["--data", cohort, "--output-dir", tmp_path / "run", *FLAGS]
    done = train(*flags, ACCELERATE_DYNAMO_BACKEND="INDUCTOR", CXX="/nonexistent/c++")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "compile" in done.stderr and "ACCELERATE_DYNAMO_BACKEND=no" in done.stderr


@pytest.mark.slow
def test_a_stop_at_the_end_of_an_epoch_does_not_skip_its_judgement(cohort: Path, tmp_path: Path) -> None:
    flags = ["--data", cohort, *FLAGS, "--epochs", "40", "--batch-size", "16"]  # an epoch is one step
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train(*flags, "--output-dir", whole).returncode == 0
    process = start(*flags, "--output-dir", stopped)
    wait_for_checkpoint(stopped, process, 3)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert train("--resume", stopped).returncode == 0
    rows = [(run / "logs" / "metrics.csv").read_text().splitlines() for run in (whole, stopped)]
    columns = rows[0][0].split(",")
    judged = [[line.split(",")[columns.index("validation/log_loss")] for line in lines] for lines in rows]
    assert judged[0] == judged[1] and weights(whole) == weights(stopped)


@pytest.mark.slow
def test_killing_the_launcher_ends_the_run_behind_it(cohort: Path, unbroken: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    import sys

    command = [str(Path(sys.executable).with_name("accelerate")), "launch", *train_command()[1:]]
    launcher = subprocess.Popen(
        [*command, "--data", str(cohort), "--output-dir", str(run_dir), *FLAGS],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for_checkpoint(run_dir, launcher, 2)
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.wait()
    done = train("--resume", run_dir)  # waits for the orphan, which notices and leaves
    assert done.returncode == 0, done.stderr
    assert weights(run_dir) == weights(unbroken)


@pytest.mark.slow
def test_killed_again_and_again(cohort: Path, unbroken: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    for step in (3, 7, 12, 18):
        process = start("--data", cohort, "--output-dir", run_dir, *FLAGS, "--resume")
        wait_for_checkpoint(run_dir, process, step)
        process.kill()
        process.wait()
    assert train("--resume", run_dir).returncode == 0
    assert weights(run_dir) == weights(unbroken)


def test_resume_before_anything_was_written_starts_afresh_and_other_data_are_refused(
    cohort: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    process = start("--data", cohort, "--output-dir", run_dir, "--resume", *FLAGS)
    wait_for_checkpoint(run_dir, process, 2)
    process.kill()
    process.wait()
    extra = next((cohort / "benign").glob("*.png"))
    moved = extra.rename(tmp_path / extra.name)
    try:
        (cohort / "metadata.csv").write_text(
            "\n".join(line for line in (cohort / "metadata.csv").read_text().splitlines() if extra.name not in line)
        )
        done = train("--resume", run_dir)
    finally:
        moved.rename(extra)
    assert done.returncode == 2 and "bring back the same data" in done.stderr and "Traceback" not in done.stderr
