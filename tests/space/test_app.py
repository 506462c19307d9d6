"""The Space's app: /predict answers what the classifier answers, bad uploads get one sentence, a bad start exits."""

from __future__ import annotations

import runpy
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from helpers import ROOT
from hub_server import HubServer
from lungct_hf import LungCTClassifier
from space_server import APP, LUNGCT, Server, environment

NOTICE = "Research only. Not a medical device. Never use it for a diagnosis."


@pytest.fixture(scope="module")
def client(server: Server, tmp_path_factory) -> Client:
    return Client(server.url, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))


def expected(model: Path, file: Path) -> dict[str, float]:
    classifier = LungCTClassifier.from_pretrained(model)
    return dict(zip(classifier.labels, map(float, classifier.predict(file)[0]), strict=True))


def test_predict_is_the_classifier_on_the_very_bytes(client: Client, run_dir: Path, slices: dict[str, Path]) -> None:
    for name, file in slices.items():
        answer = client.predict(handle_file(str(file)), api_name="/predict")
        assert answer["probabilities"] == pytest.approx(expected(run_dir / "model", file), abs=1e-6), name
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-6)
        assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)
        assert (answer["revision"], answer["notice"]) == (None, NOTICE)
        assert answer["model"] and str(run_dir.parent) not in answer["model"], "no path of the server's disk"


def test_predict_is_the_only_public_endpoint(client: Client) -> None:
    api = client.view_api(return_format="dict", print_info=False)
    assert list(api["named_endpoints"]) == ["/predict"]
    assert not api["unnamed_endpoints"]


def test_several_users_at_once_get_their_own_answers(server: Server, run_dir: Path, slices: dict[str, Path]) -> None:
    files = [file for name, file in slices.items() if name in ("grey.png", "wide.tif")] * 4

    def ask(file: Path) -> dict[str, float]:
        answer = Client(server.url, verbose=False).predict(handle_file(str(file)), api_name="/predict")
        return answer["probabilities"]

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, files))
    wanted = {file: expected(run_dir / "model", file) for file in set(files)}
    for file, answer in zip(files, answers, strict=True):
        assert answer == pytest.approx(wanted[file], abs=1e-6)


@pytest.mark.parametrize("kind", ["text", "empty", "cut short", "too small", "nothing"])
def test_a_bad_upload_gets_one_sentence_and_no_traceback(
    client: Client, server: Server, slices: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    from PIL import Image

    file = tmp_path / "upload.png"
    if kind == "text":
        file.write_text("not a picture")
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "cut short":
        file.write_bytes(slices["grey.png"].read_bytes()[:400])
    elif kind == "too small":
        Image.new("L", (8, 8)).save(file)
    with pytest.raises(AppError) as caught:
        client.predict(None if kind == "nothing" else handle_file(str(file)), api_name="/predict")
    message = str(caught.value)
    assert ("No slice was given" if kind == "nothing" else "This file cannot be used") in message
    assert "PNG, JPEG, TIFF, WebP or BMP" in message and "\n" not in message
    assert "Traceback" not in server.log.read_text()


def test_a_model_on_a_hub_is_served_at_the_revision_that_was_asked_for(
    serving, run_dir: Path, slices: dict[str, Path], tmp_path: Path
) -> None:
    other = LungCTClassifier.from_pretrained(run_dir / "model")
    other.network.classifier.bias.data += 1.0
    other.save_pretrained(tmp_path / "other")
    with HubServer() as hub:
        access = {
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": hub.add_user("alice"),
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1",
        }
        for folder in (run_dir, tmp_path / "other"):
            command = [*LUNGCT, "push", str(folder), "alice/tiny", "--message", "A model"]
            done = subprocess.run(command, capture_output=True, text=True, env=environment(**access), timeout=120)
            assert done.returncode == 0, done.stderr
            assert done.stdout.startswith(f"{hub.endpoint}/alice/tiny\ncommit "), done.stdout
            if folder == run_dir:
                first = done.stdout.split()[-1]
        with serving(APP, LUNGCT_MODEL="alice/tiny", LUNGCT_REVISION=first, **access) as server:
            client = Client(server.url, verbose=False)
            answer = client.predict(handle_file(str(slices["grey.png"])), api_name="/predict")
    page = str(client.config["components"])
    assert first in page and f"{hub.endpoint}/alice/tiny/tree/{first}" in page
    assert (answer["model"], answer["revision"]) == ("alice/tiny", first)
    assert len(first) == 40
    assert answer["probabilities"] == pytest.approx(expected(run_dir / "model", slices["grey.png"]), abs=1e-6)


def test_a_model_that_cannot_be_loaded_ends_the_start_with_one_sentence(tmp_path: Path) -> None:
    cases = [
        ({}, 2, "LUNGCT_MODEL is not set"),
        ({"LUNGCT_MODEL": "./no/such/model"}, 1, "no directory"),
        ({"LUNGCT_MODEL": "alice/tiny", "HF_HUB_OFFLINE": "1"}, 1, "alice/tiny"),
    ]
    started = [
        subprocess.Popen(APP, stderr=subprocess.PIPE, text=True, env=environment(**settings), cwd=tmp_path)
        for settings, _, _ in cases
    ]
    for process, (_, code, says) in zip(started, cases, strict=True):
        _, err = process.communicate(timeout=120)
        assert process.returncode == code, err
        assert err.startswith("error: ") and says in err
        assert len(err.splitlines()) == 1, "one line, no traceback"


def test_the_page_warns_by_what_the_model_says_of_its_training() -> None:
    header = runpy.run_path(APP[1])["_header"]
    assert "does not say what it was trained on" in header({})
    assert "useless on patients" in header({"data": {"kind": "phantom"}})
    real = header({"data": {"kind": "folder", "source": "slices"}})
    assert "lc-warning" not in real and "Research only" in real


def test_the_space_folder_is_what_a_space_needs() -> None:
    import yaml

    space = ROOT / "space"
    front = yaml.safe_load((space / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert front["sdk"] == "gradio" and (space / front["app_file"]).is_file()
    assert len(front["short_description"]) <= 60, "the Hub refuses longer ones"
    lines = [line for line in (space / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(">=" in line and "<" in line for line in lines), "both bounds"
    assert any(line.startswith("gradio>=") for line in lines) and any(line.startswith("hugging") for line in lines)
