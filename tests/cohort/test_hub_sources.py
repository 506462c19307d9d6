"""Data sets on a Hub: pictures and parquet, public and private, pinned to the commit that was read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from huggingface_hub import HfApi

from hub_server import HubServer
from lungct_hf.cohort import load_cohort

from .conftest import draw, save

# The libraries read HF_ENDPOINT when they are imported, so the cohorts are loaded in a process of its own.
LOAD_EACH = """
import json, sys
from lungct_hf.cohort import load_cohort
from lungct_hf.errors import LungCTError
out = {}
for name in sys.argv[1:]:
    try:
        c = load_cohort(name, progress=False)
        out[name] = dict(kind=c.kind, source=c.source, grouping=c.grouping, fingerprint=c.fingerprint(),
                         ids=c.ids.tolist(), splits=c.given_splits.tolist(), size=c.read(0).size)
    except LungCTError as error:
        out[name] = {"error": f"{type(error).__name__}: {error}"}
print(json.dumps(out))
"""


def load_all(hub: HubServer, home: Path, *names: str, token: str = "") -> dict[str, Any]:
    environment = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "HF_TOKEN": token}
    command = [sys.executable, "-c", LOAD_EACH, *names]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_data_sets_on_the_hub(
    make_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # the loopback Hub has no xet storage
    folder = make_folder(people=3, slices=1)
    local = load_cohort(str(folder), progress=False)
    with HubServer() as hub:
        token = hub.add_user("alice")
        api = HfApi(endpoint=hub.endpoint, token=token)

        def create(name: str, source: Path, private: bool = False) -> str:
            api.create_repo(f"alice/{name}", repo_type="dataset", private=private)
            return api.upload_folder(repo_id=f"alice/{name}", repo_type="dataset", folder_path=source).oid

        pictures = create("pictures", folder)
        api.create_tag("alice/pictures", repo_type="dataset", tag="v1")
        save(draw(77, 0), folder / "Normal cases" / "later.png")
        later = api.upload_folder(repo_id="alice/pictures", repo_type="dataset", folder_path=folder).oid
        (tmp_path / "tables" / "data").mkdir(parents=True)
        features = datasets.Features(
            {
                "image": datasets.Image(),
                "label": datasets.ClassLabel(names=list(local.classes)),
                "group": datasets.Value("string"),
            }
        )
        for name, start in (("train", 0), ("test", 1)):
            rows = slice(start, 9, 2)
            embedded = [{"path": Path(i).name, "bytes": (folder / i).read_bytes()} for i in local.ids[rows]]
            columns = {"image": embedded, "label": local.labels[rows], "group": local.groups[rows]}
            part = datasets.Dataset.from_dict(columns, features=features)
            part.to_parquet(tmp_path / "tables" / "data" / f"{name}-00000-of-00001.parquet")
        tables = create("tables", tmp_path / "tables", private=True)
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty" / "README.md").write_text("nothing")
        create("empty", tmp_path / "empty")

        names = [
            "alice/pictures",
            "alice/pictures@v1",
            "alice/tables",
            "alice/empty",
            "alice/none",
            "alice/pictures@v9",
        ]
        found = load_all(hub, tmp_path / "home", *names, token=token)
        public = load_all(hub, tmp_path / "other", "alice/tables")

    assert found["alice/pictures"]["source"] == f"alice/pictures@{later}"
    assert len(found["alice/pictures"]["ids"]) == 10
    tagged = found["alice/pictures@v1"]
    assert tagged["source"] == f"alice/pictures@{pictures}" and tagged["kind"] == "hub"
    assert tagged["ids"] == local.ids.tolist() and tagged["fingerprint"] == local.fingerprint()
    stored = found["alice/tables"]
    assert stored["source"] == f"alice/tables@{tables}" and stored["grouping"] == "column:group"
    assert sorted(stored["splits"]) == ["test"] * 4 + ["train"] * 5
    assert stored["fingerprint"] == local.fingerprint() and stored["size"] == [48, 48]
    assert found["alice/empty"]["error"].startswith("LungCTError: ")
    assert found["alice/none"]["error"].startswith("UsageError: There is no file or folder")
    assert 'has no revision "v9"' in found["alice/pictures@v9"]["error"]
    assert "hf auth login" in public["alice/tables"]["error"]
    assert token not in json.dumps([found, public])


@pytest.mark.parametrize("offline", [True, False])
def test_a_hub_that_cannot_be_asked(offline: bool) -> None:
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": str(int(offline))}
    done = subprocess.run(
        [sys.executable, "-c", LOAD_EACH, "somebody/lung-ct"],
        capture_output=True, text=True, env=environment, timeout=120, check=True,
    )  # fmt: skip
    error = json.loads(done.stdout.splitlines()[-1])["somebody/lung-ct"]["error"]
    assert 'no file or folder "somebody/lung-ct" here' in error
    assert ("HF_HUB_OFFLINE" in error) == offline and error.startswith("LungCTError")
