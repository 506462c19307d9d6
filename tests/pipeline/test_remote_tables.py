"""Parquet files on a Hub: read piece by piece, the same rows as from the disk, and a Hub that goes away."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi
from PIL import Image

from helpers import run
from hub_server import HubServer
from hub_wire import Faults, Request
from predict_runs import predict_command

ROWS, ROW_GROUP = 24, 4


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory, phantoms: list[Image.Image]) -> Path:
    """Two parquet files; one row holds no picture and one holds what is none."""
    folder = tmp_path_factory.mktemp("tables") / "data"
    folder.mkdir()
    for half in (0, 1):
        pictures = []
        for number in range(ROWS // 2):
            content = io.BytesIO()
            phantoms[number % 4].rotate(number + 20 * half).save(content, "PNG", compress_level=1)
            pictures.append({"bytes": content.getvalue(), "path": f"{number}.png"})
        pictures[3] = {"bytes": None, "path": "elsewhere.png"} if half else {"bytes": b"no picture", "path": "bad.png"}
        pq.write_table(pa.table({"image": pictures}), folder / f"half-{half}.parquet", row_group_size=ROW_GROUP)
    return folder


@pytest.fixture
def hub(
    tables: Path, phantoms: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HubServer]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # the loopback Hub has no xet storage
    with HubServer() as server:
        api = HfApi(endpoint=server.endpoint, token=server.add_user("alice"))
        for name in ("tables", "hidden"):
            api.create_repo(f"alice/{name}", repo_type="dataset", private=name == "hidden")
            api.upload_folder(repo_id=f"alice/{name}", repo_type="dataset", folder_path=tables.parent)
        pictures = tmp_path / "pictures"
        pictures.mkdir()
        for number in range(3):
            phantoms[number].save(pictures / f"{number}.png")
        api.create_repo("alice/pictures", repo_type="dataset")
        api.upload_folder(repo_id="alice/pictures", repo_type="dataset", folder_path=pictures)
        server.requests.clear()
        yield server


def access(hub: HubServer, home: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "HF_TOKEN": "", "HF_HUB_OFFLINE": "0"}


def ask(hub: HubServer, home: Path, model: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run(predict_command(model, *arguments), **access(hub, home))


def without_file(rows: list[dict[str, object]]) -> list[tuple[object, ...]]:
    return [(row["decision"], row["reason"], row["p_normal"], row["p_malignant"]) for row in rows]


def test_the_rows_are_those_of_the_files_and_no_file_is_kept(
    hub: HubServer, tables: Path, model_dir: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    done = ask(hub, home, model_dir, "alice/tables@main", "--format", "json", "--batch-size", "8")
    assert done.returncode == 0, done.stderr
    remote = json.loads(done.stdout)
    local = json.loads(run(predict_command(model_dir, tables, "--format", "json")).stdout)
    commit = hub.repo("alice/tables", "dataset").resolve("main").sha
    assert [row["file"] for row in remote][:2] == [
        f"alice/tables@{commit}/data/half-0.parquet/{number}/{number}.png" for number in (0, 1)
    ]
    assert len(remote) == ROWS and without_file(remote[:15]) == without_file(local[:15])
    assert remote[15]["decision"] == "error" and "does not hold the picture" in remote[15]["detail"]
    assert not [path for path in home.rglob("*") if path.is_file() and path.stat().st_size > 10_000]
    assert hub.seen("GET", "half-0.parquet")


def test_a_hub_that_goes_away_ends_the_run_and_no_slice_is_blamed(
    hub: HubServer, model_dir: Path, tmp_path: Path
) -> None:
    source, home = ("alice/tables@main", "--batch-size", "4", "--workers", "1"), tmp_path / "home"
    whole = ask(hub, home, model_dir, *source, "--output", tmp_path / "whole.csv")
    assert whole.returncode == 0, whole.stderr
    enough = len(hub.seen("GET", "/objects/")) // 2
    hub.requests.clear()

    def go_away(request: Request, when: str) -> None:
        if when == "after" and len(hub.seen("GET", "/objects/")) == enough:
            hub.faults.add("GET", "/objects/", times=10_000, action="status:403")

    hub.watch = go_away
    output = tmp_path / "rows.csv"
    broken = ask(hub, home, model_dir, *source, "--output", output)
    assert broken.returncode == 1 and not output.exists()
    assert "could not be read from the Hub" in broken.stderr and "same command" in broken.stderr
    assert "Traceback" not in broken.stderr
    hub.watch, hub.faults = None, Faults()
    again = ask(hub, home, model_dir, *source, "--output", output)
    assert again.returncode == 0, again.stderr
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert json.loads((tmp_path / "rows.csv.manifest.json").read_text())["rows_before"] > 0


def test_pictures_are_fetched_and_what_may_not_be_read_is_one_sentence(
    hub: HubServer, model_dir: Path, tmp_path: Path
) -> None:
    done = ask(hub, tmp_path / "home", model_dir, "alice/pictures", "--format", "json")
    commit = hub.repo("alice/pictures", "dataset").resolve("main").sha
    assert [row["file"] for row in json.loads(done.stdout)] == [f"alice/pictures@{commit}/{n}.png" for n in range(3)]
    for name, words in (("alice/hidden", "no data set of that name"), ("alice/tables@v9", 'no revision "v9"')):
        done = ask(hub, tmp_path / "home", model_dir, name, "--format", "json")
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_two_processes_share_a_data_set_on_the_hub(hub: HubServer, model_dir: Path, tmp_path: Path) -> None:
    output = tmp_path / "rows.parquet"
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    launch += ["-m", "lungct_hf.pipeline.sharded", "alice/tables@main", "--model", str(model_dir)]
    launch += ["-o", str(output), "--batch-size", "4", "--workers", "1"]
    done = run(launch, **access(hub, tmp_path / "home"))
    assert done.returncode == 0, done.stderr[-2000:]
    rows = pq.read_table(output).to_pylist()
    assert len(rows) == len({row["file"] for row in rows}) == ROWS
    parts = json.loads((tmp_path / "rows.parquet.manifest.json").read_text())["parts"]
    assert [part["rows"] for part in parts] == [ROWS // 2, ROWS // 2]
