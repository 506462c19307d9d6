"""Train on a data set of a Hub, push, and load it back in clean processes: the main job, on loopback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from helpers import TINY, run, train, write_cohort
from hub_server import HubServer

# Plain transformers and timm: this package is not imported.
STRANGER = """
import json, sys
from PIL import Image
import timm, torch
from transformers import pipeline
repo, revision, path = sys.argv[1:]
rows = pipeline("image-classification", model=repo, revision=revision)(path)
network = timm.create_model(f"hf-hub:{repo}@{revision}", pretrained=True).eval()
steps = timm.data.create_transform(**timm.data.resolve_data_config(model=network), is_training=False)
with torch.inference_mode():
    timms = network(steps(Image.open(path).convert("RGB"))[None]).softmax(1)[0].tolist()
assert not any(name.startswith("lungct_hf") for name in sys.modules)
names = network.pretrained_cfg["label_names"]
print(json.dumps([{row["label"]: row["score"] for row in rows}, dict(zip(names, timms))]))
"""
OURS = """
import json, sys
from lungct_hf import LungCTClassifier
model = LungCTClassifier.from_pretrained(sys.argv[1], revision=sys.argv[2])
print(json.dumps([model.revision, model.predict(sys.argv[3], force=True)[0].probabilities]))
"""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("data") / "clinic", patients=5, slices=2)


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server
    assert not server.crashes, server.crashes[0]


@pytest.fixture(scope="module")
def pushed(cohort: Path, hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that took its slices from the Hub and pushed its model there; and the token."""
    token = hub.add_user("alice")
    api = HfApi(endpoint=hub.endpoint, token=token)
    api.create_repo("alice/clinic", repo_type="dataset")
    for path in sorted(path for path in cohort.rglob("*") if path.is_file()):
        # File objects go by plain HTTP, which is all this Hub speaks, whatever is installed.
        with path.open("rb") as handle:
            name = path.relative_to(cohort).as_posix()
            api.upload_file(path_or_fileobj=handle, path_in_repo=name, repo_id="alice/clinic", repo_type="dataset")
    run_dir = tmp_path_factory.mktemp("runs") / "pushed"
    flags = ["--data", "alice/clinic", "--output-dir", run_dir, *TINY, "--epochs", "1", "--fold-count", "3"]
    done = train(*flags, "--push-to-hub", "alice/lungct", HF_ENDPOINT=hub.endpoint, HF_TOKEN=token)
    assert done.returncode == 0, done.stderr
    assert token not in done.stdout + done.stderr
    return run_dir, token


def load(code: str, hub: HubServer, home: Path, *argv: str) -> list:  # type: ignore[type-arg]
    done = run([sys.executable, "-c", code, *argv], HF_ENDPOINT=hub.endpoint, HF_HOME=str(home))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_one_commit_holds_the_model_as_it_was_written(pushed: tuple[Path, str], hub: HubServer) -> None:
    model = pushed[0] / "model"
    here = {path.relative_to(model).as_posix(): path.read_bytes() for path in model.rglob("*") if path.is_file()}
    there = hub.files("alice/lungct")
    there.pop(".gitattributes", None)
    assert {name: content for name, content in there.items() if name != "README.md"} == {
        name: content for name, content in here.items() if name != "README.md"
    }
    assert b"alice/lungct" in there["README.md"]  # the card's examples name the repo
    assert len(hub.seen("POST", "/api/models/alice/lungct/commit/")) == 1
    source = json.loads(here["lungct.json"])["provenance"]["data"]["source"]
    assert re.fullmatch("alice/clinic@[0-9a-f]{40}", source)


def test_strangers_and_we_get_the_same_answer(
    pushed: tuple[Path, str], hub: HubServer, cohort: Path, tmp_path: Path
) -> None:
    sha = hub.repo("alice/lungct").resolve("main").sha
    path = str(sorted(cohort.glob("malignant/*.png"))[0])
    piped, timms = load(STRANGER, hub, tmp_path, "alice/lungct", sha, path)
    revision, ours = load(OURS, hub, tmp_path, "alice/lungct", "main", path)
    assert revision == sha and list(ours) == ["normal", "benign", "malignant"]
    assert piped == pytest.approx(ours, abs=1e-5) and timms == pytest.approx(ours, abs=1e-5)


@pytest.mark.parametrize("xet", ["present", "off"])
def test_pushing_again_changes_nothing_and_keeps_what_a_person_wrote(
    pushed: tuple[Path, str], hub: HubServer, tmp_path: Path, xet: str
) -> None:
    model, token = pushed
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": token, "HF_HOME": str(tmp_path)}
    environment |= {"HF_HUB_DISABLE_XET": "1"} if xet == "off" else {}
    lungct = str(Path(sys.executable).with_name("lungct"))
    command = [lungct, "push", str(model), f"alice/copy-{xet}", "--private"]
    assert run(command, **environment).returncode == 0
    readme = hub.files(f"alice/copy-{xet}")["README.md"].decode()
    api = HfApi(endpoint=hub.endpoint, token=token)
    written = readme.replace("<!-- author:end -->", "Seen by Dr. Alice.\n<!-- author:end -->").encode()
    api.upload_file(path_or_fileobj=written, path_in_repo="README.md", repo_id=f"alice/copy-{xet}")
    again = run(command, **environment)
    assert again.returncode == 0 and token not in again.stdout + again.stderr
    assert "Seen by Dr. Alice." in hub.files(f"alice/copy-{xet}")["README.md"].decode()
    assert hub.repo(f"alice/copy-{xet}").private


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"HF_TOKEN": "hf_wrong"}, ["token"]),
        ({"HF_TOKEN": ""}, ["token", "hf auth login"]),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, ["http://127.0.0.1:9"]),
    ],
)
def test_a_push_that_cannot_be_loses_nothing(
    pushed: tuple[Path, str], hub: HubServer, tmp_path: Path, environment: dict[str, str], words: list[str]
) -> None:
    model, token = pushed
    before = {path: path.read_bytes() for path in (model / "model").rglob("*") if path.is_file()}
    usual = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": token, "HF_HOME": str(tmp_path)}
    done = run(
        [str(Path(sys.executable).with_name("lungct")), "push", str(model), "alice/none"], **usual | environment
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert all(word in done.stderr for word in words) and "hf_wrong" not in done.stderr
    assert {path: path.read_bytes() for path in (model / "model").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("repo", "revision", "word"), [("alice/nothing", "main", "alice/nothing"), ("alice/lungct", "v9", "v9")]
)
def test_a_repo_or_revision_that_is_not_there_is_one_sentence(
    pushed: tuple[Path, str], hub: HubServer, tmp_path: Path, repo: str, revision: str, word: str
) -> None:
    lungct = str(Path(sys.executable).with_name("lungct"))
    environment = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": pushed[1], "HF_HOME": str(tmp_path)}
    command = [lungct, "demo", repo, "--revision", revision]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert word in done.stderr.strip().splitlines()[-1]
