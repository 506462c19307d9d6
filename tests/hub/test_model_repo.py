"""A model repo: a run, a folder or a commit on the Hub; it knows its files and says which one is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from samples import LUNGCT, METRICS, write_model

from hub_server import HubServer
from lungct_hf.contract import Contract
from lungct_hf.errors import LungCTError, UsageError
from lungct_hf.hub import ModelRepo
from lungct_hf.hub.model_repo import CONTRACT_FILES, PREDICTIONS, SPLIT, WEIGHTS
from lungct_hf.hub.model_repo import METRICS as METRICS_FILE
from lungct_hf.known_sets import phantoms, schema_1_classes


def test_a_run_stands_for_the_model_in_it(tmp_path: Path) -> None:
    model = write_model(tmp_path / "run" / "model")
    for place in (tmp_path / "run", model, str(model)):
        repo = ModelRepo.open(place)
        assert (repo.path, repo.name, repo.repo_id, repo.revision) == (model, "run/model", None, None)
        assert ModelRepo.in_folder(Path(place)).path == model
    assert ModelRepo.open(model).metrics == METRICS and ModelRepo.open(model).lungct == LUNGCT
    assert ModelRepo.open(model).provenance == LUNGCT["provenance"] and ModelRepo.open(model).release is None


def test_a_folder_has_no_revision_and_a_path_is_no_repo(tmp_path: Path) -> None:
    model = write_model(tmp_path / "run" / "model")
    for words in ((str(model), "v1"), (f"{model}@v1",), ("a/b@v1", "v2"), ("@v1",)):
        with pytest.raises(UsageError):
            ModelRepo.open(*words)
    for path in ("./nothing", f"{tmp_path}/nothing", "a/b/c", str(model / WEIGHTS)):
        with pytest.raises(LungCTError, match="director"):
            ModelRepo.open(path)


@pytest.mark.parametrize("name", ["config.json", "lungct.json", "model.safetensors"])
def test_a_folder_that_is_no_model_is_a_wrong_call(tmp_path: Path, name: str) -> None:
    model = write_model(tmp_path / "run" / "model")
    (model / name).unlink()
    with pytest.raises(UsageError, match=f"run/model has no {name}, so it is not a lungct_hf model. Fix: "):
        ModelRepo.in_folder(model)
    with pytest.raises(UsageError, match="There is no directory"):
        ModelRepo.in_folder(tmp_path / "nothing")


def test_missing_evidence_is_named_with_the_fix(tmp_path: Path) -> None:
    repo = ModelRepo.open(write_model(tmp_path / "m"))
    (repo.path / PREDICTIONS).unlink()
    with pytest.raises(LungCTError, match="m has no evaluation/predictions.parquet and no evaluation/split.csv, "):
        repo.need(PREDICTIONS, SPLIT)
    assert repo.need(METRICS_FILE) is repo and repo.file(METRICS_FILE) == repo.path / METRICS_FILE
    assert not repo.has(SPLIT) and not isinstance(pytest.raises(LungCTError, repo.file, SPLIT).value, UsageError)


def test_every_file_is_parsed_once(tmp_path: Path) -> None:
    repo = ModelRepo.open(write_model(tmp_path / "m"))
    before = repo.lungct, repo.metrics, repo.config
    for name in (*CONTRACT_FILES, METRICS_FILE):
        (repo.path / name).write_text("{")
    assert (repo.lungct, repo.metrics, repo.config) == before
    with pytest.raises(LungCTError, match="lungct.json cannot be read"):
        _ = ModelRepo.open(repo.path).lungct


def test_classes_and_contract(tmp_path: Path) -> None:
    old = ModelRepo.open(write_model(tmp_path / "old"))
    assert old.is_schema_1 and old.classes == schema_1_classes()
    contract = Contract("mobilenetv2_100", phantoms().classes)
    folder = write_model(tmp_path / "new", contract.lungct())
    (folder / "config.json").write_text(json.dumps(contract.config()))
    new = ModelRepo.open(folder)
    assert not new.is_schema_1 and new.contract.classes == new.classes
    assert new.classes.names == phantoms().classes.names and new.contract.config() == contract.config()
    (folder / "config.json").write_text(json.dumps(contract.config() | {"label_names": ["a", "b", "c"]}))
    with pytest.raises(LungCTError, match="config.json has the labels"):
        _ = ModelRepo.open(folder).contract


def test_of_a_hub_repo_only_what_is_asked_for_is_here(hub: HubServer, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    hub.store.create_repo("alice/lung")
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    head = hub.store.put("alice/lung", files)
    repo = ModelRepo.open("alice/lung", files=CONTRACT_FILES)
    assert (repo.repo_id, repo.revision, repo.name) == ("alice/lung", head, f"alice/lung@{head}")
    assert set(repo.files) == set(CONTRACT_FILES) and repo.lungct == LUNGCT and repo.metrics is None
    with pytest.raises(LungCTError, match=f"alice/lung@{head} has no model.safetensors, so it is not") as caught:
        repo.need(WEIGHTS)
    assert not isinstance(caught.value, UsageError)
    assert ModelRepo.open(f"alice/lung@{head}").need(WEIGHTS).requested_revision == head


def test_a_folder_needs_no_hub_client(tmp_path: Path) -> None:
    write_model(tmp_path / "m")
    code = (
        "import sys; from lungct_hf.hub import ModelRepo\n"
        "repo = ModelRepo.open(sys.argv[1]); repo.classes, repo.metrics, repo.files\n"
        "print([n for n in ('huggingface_hub', 'yaml', 'jinja2', 'pyarrow', 'torch') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "m")], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
