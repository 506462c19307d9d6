"""The Space's endpoints: one contract with the runtime, typed, for many at once; and what the folder must hold."""

from __future__ import annotations

import ast
import asyncio
import base64
import json
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from mcp.types import CallToolResult

from helpers import ROOT
from lungct_hf import LungCT, __version__
from lungct_hf.known_sets import schema_1_classes
from space_server import APP, LUNGCT, RUNNING, Server, environment, free_port

NOTICE = "Research only. Not a medical device. Never use it for a diagnosis."
NUMBERS = ("p_normal", "p_benign", "p_malignant", "confidence", "distance")


def expected(model: Path, file: Path, *, force: bool = False) -> dict[str, object]:
    return LungCT.from_pretrained(model).predict(file, force=force)[0].to_json() | {"file": file.name}


def same(answer: dict[str, object], wanted: dict[str, object]) -> bool:
    numbers = {key: wanted[key] for key in NUMBERS if wanted[key] is not None}
    assert {key: answer[key] for key in numbers} == pytest.approx(numbers, abs=1e-5)
    return {k: answer[k] for k in wanted if k not in numbers} == {k: v for k, v in wanted.items() if k not in numbers}


def test_predict_is_the_runtime_on_the_very_bytes(client: Client, run_dir: Path, slices: dict[str, Path]) -> None:
    decisions = set()
    for name, file in slices.items():
        if name == "study.zip":
            continue
        answer = client.predict(handle_file(str(file)), api_name="/predict")
        assert same(answer, expected(run_dir / "model", file)), name
        assert (answer["revision"], answer["notice"]) == (None, NOTICE)
        assert str(run_dir.parent) not in json.dumps(answer), "no path of the server's disk"
        decisions.add(answer["decision"])
    assert "refused" in decisions and decisions - {"refused"}, "both kinds were asked"


def test_force_answers_what_is_refused(client: Client, run_dir: Path, slices: dict[str, Path]) -> None:
    photo = slices["colour photo.webp"]
    assert client.predict(handle_file(str(photo)), api_name="/predict")["p_normal"] is None
    answer = client.predict(handle_file(str(photo)), "", True, api_name="/predict")
    assert answer["forced"] and answer["reason"] == "colour-photograph"
    assert same(answer, expected(run_dir / "model", photo, force=True))


def test_predict_study_orders_and_pools_as_the_runtime(client: Client, run_dir: Path, slices: dict[str, Path]) -> None:
    answer = client.predict([handle_file(str(slices["study.zip"]))], api_name="/predict_study")
    wanted = LungCT.from_pretrained(run_dir / "model").predict_study(slices["study.zip"]).to_json()
    assert answer["notice"] == NOTICE and len(answer["slices"]) == 4
    assert [row["file"].rpartition("study.zip/")[2] for row in answer["slices"]] == [
        row["file"].rpartition("study.zip/")[2] for row in wanted["slices"]
    ]
    assert answer["slices"][0]["file"].startswith("study.zip/")
    assert [row["decision"] for row in answer["slices"]].count("error") == 1
    assert (answer["decision"], answer["used"], answer["series"]) == (wanted["decision"], 3, 1)
    assert answer["p_malignant"] == pytest.approx(wanted["p_malignant"], abs=1e-5)
    loose = [handle_file(str(slices[name])) for name in ("slice.dcm", "wide.tif")]
    both = client.predict(loose, api_name="/predict_study")
    assert both["reason"] == "several-series" and [one["used"] for one in both["studies"]] == [1, 1]


def test_model_info_is_the_record_of_the_repo(client: Client, run_dir: Path) -> None:
    info = client.predict(api_name="/model_info")
    metrics = json.loads((run_dir / "model" / "evaluation" / "metrics.json").read_text())
    shown = info["results"]["balanced_accuracy"]
    assert shown["value"] == metrics["test"]["balanced_accuracy"] and shown["low"] < shown["value"] < shown["high"]
    assert info["results"]["protocol"] == "linked" and info["results"]["leak_gap"]["value"] > 0
    assert set(info["results"]["baselines"]) == {"nearest_neighbour", "ring_nearest_neighbour"}
    assert (info["labels"], info["positive"]) == (list(schema_1_classes()), list(schema_1_classes().positive))
    assert info["self_test"] == {"state": "passed", "slices": 3}
    assert (info["package_version"], info["notice"], info["backend"]) == (__version__, NOTICE, "onnx")
    assert info["data"] == {"kind": "phantom", "source": "phantoms", "slices": 45, "groups": 15}, "a name, no path"


def test_the_endpoints_are_typed_and_no_others_are_public(client: Client) -> None:
    api = client.view_api(return_format="dict", print_info=False)
    assert set(api["named_endpoints"]) == {"/predict", "/predict_study", "/model_info"}
    assert not api["unnamed_endpoints"]
    (answer,) = api["named_endpoints"]["/predict"]["returns"]
    assert "p_malignant: float | None" in answer["python_type"]["type"]
    assert "Literal['normal', 'benign', 'malignant', 'abstain', 'refused', 'error']" in answer["python_type"]["type"]
    names = [one["parameter_name"] for one in api["named_endpoints"]["/predict"]["parameters"]]
    assert names == ["slice_file", "version", "force"]


def test_no_torch_is_in_the_server(server: Server) -> None:
    maps = Path(f"/proc/{server.process.pid}/maps")
    if not maps.exists():
        pytest.skip("only Linux says which libraries a process has loaded")
    assert "onnxruntime" in maps.read_text() and "libtorch" not in maps.read_text()


def test_the_endpoints_are_mcp_tools_with_docstrings(server: Server) -> None:
    tools = {tool["name"]: tool for tool in httpx.get(f"{server.url}gradio_api/mcp/schema", timeout=60).json()}
    assert set(tools) == {"predict", "predict_study", "model_info"}
    for name, tool in tools.items():
        assert "Research only" in tool["description"] or name == "model_info"
        assert all(one.get("description") for one in tool["inputSchema"]["properties"].values()), name


def test_an_assistant_gets_the_same_answer(server: Server, run_dir: Path, slices: dict[str, Path]) -> None:
    """A client of the Model Context Protocol; files come as data: addresses, and no other address is fetched."""
    file = slices["grey.png"]
    inline = f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"

    async def ask() -> list[CallToolResult]:
        async with streamablehttp_client(f"{server.url}gradio_api/mcp/") as (reading, writing, _):
            async with ClientSession(reading, writing) as session:
                await session.initialize()
                return [await session.call_tool("predict", {"slice_file": one}) for one in (inline, server.url)]

    answered, refused = asyncio.run(ask())
    answer = ast.literal_eval(answered.content[0].text)
    assert same(answer, expected(run_dir / "model", file) | {"file": answer["file"]})
    assert refused.isError and "Addresses are not fetched" in refused.content[0].text


def test_curl_is_enough(server: Server, run_dir: Path, slices: dict[str, Path]) -> None:
    """The three requests of space/README.md."""
    with slices["grey.png"].open("rb") as handle:
        path = httpx.post(f"{server.url}gradio_api/upload", files={"files": ("a.png", handle)}).json()[0]
    data = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, "", False]}
    event = httpx.post(f"{server.url}gradio_api/call/predict", json=data).json()["event_id"]
    text = httpx.get(f"{server.url}gradio_api/call/predict/{event}", timeout=60).text
    answer = json.loads(text.partition("data: ")[2].splitlines()[0])[0]
    assert same(answer, expected(run_dir / "model", slices["grey.png"]) | {"file": "a.png"})


def test_several_users_at_once_get_their_own_answers(server: Server, run_dir: Path, slices: dict[str, Path]) -> None:
    files = [slices[name] for name in ("grey.png", "wide.tif", "slice.dcm", "colour photo.webp")] * 3

    def ask(file: Path) -> dict[str, object]:
        return Client(server.url, verbose=False).predict(handle_file(str(file)), api_name="/predict")

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, files))
    wanted = {file: expected(run_dir / "model", file) for file in set(files)}
    for file, answer in zip(files, answers, strict=True):
        assert same(answer, wanted[file])


@pytest.mark.parametrize("kind", ["text", "empty", "cut short", "too small"])
def test_a_bad_upload_is_a_row_with_its_reason(
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
    answer = client.predict(handle_file(str(file)), api_name="/predict")
    wanted = {"text": "not-an-image", "empty": "truncated", "cut short": "truncated", "too small": "too-small"}
    assert (answer["reason"], answer["p_normal"]) == (wanted[kind], None)
    assert answer["decision"] == ("refused" if kind == "too small" else "error")
    assert answer["detail"].endswith(".") and "\n" not in answer["detail"]
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize(
    ("arguments", "endpoint", "says"),
    [
        ([None], "/predict", "No slice was given"),
        ([None, "v9.9.9"], "/predict_study", "No file was given"),
        (["v9.9.9"], "/model_info", "There is no version 'v9.9.9'"),
    ],
)
def test_a_call_that_means_nothing_is_told_in_a_sentence(
    client: Client, server: Server, arguments: list[object], endpoint: str, says: str
) -> None:
    if endpoint == "/predict_study":
        arguments = [None]
    with pytest.raises(AppError) as caught:
        client.predict(*arguments, api_name=endpoint)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert "Traceback" not in server.log.read_text()


def test_a_file_of_several_slices_is_sent_to_the_study(client: Client, slices: dict[str, Path]) -> None:
    with pytest.raises(AppError, match="several slices. Fix: send it as a study"):
        client.predict(handle_file(str(slices["study.zip"])), api_name="/predict")


def test_a_model_that_can_never_be_loaded_ends_the_start_with_one_sentence(tmp_path: Path) -> None:
    cases = [
        ({}, 2, "LUNGCT_MODEL is not set"),
        ({"LUNGCT_MODEL": "./no/such/model"}, 1, "no directory"),
        ({"LUNGCT_MODEL": "alice/tiny", "HF_HUB_OFFLINE": "1"}, 1, "alice/tiny"),
        ({"LUNGCT_MODEL": "alice/tiny", "LUNGCT_RATE": "often"}, 2, "LUNGCT_RATE is 'often'"),
        ({"LUNGCT_MODEL": "alice/tiny", "GRADIO_SERVER_PORT": "many"}, 2, "GRADIO_SERVER_PORT is 'many'"),
        ({"LUNGCT_MODEL": "alice/tiny", "GRADIO_SERVER_PORT": "70000"}, 2, "from 1 to 65535"),
    ]
    started = [
        subprocess.Popen(
            APP,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**{"GRADIO_SERVER_PORT": str(free_port())} | settings),
            cwd=tmp_path,
        )
        for settings, _, _ in cases
    ]
    for process, (_, code, says) in zip(started, cases, strict=True):
        _, err = process.communicate(timeout=280)
        assert process.returncode == code, err
        assert err.startswith("error: ") and says in err
        assert len(err.splitlines()) == 1, "one line, no traceback"


def test_a_page_that_does_not_answer_itself_ends_the_start_with_one_sentence(run_dir: Path) -> None:
    code = (
        "import runpy, gradio.networking as network; network.url_ok = lambda url: False; "
        "runpy.run_path('app.py', run_name='__main__')"
    )
    started = subprocess.run(
        [APP[0], "-c", code],
        env=environment(LUNGCT_MODEL=str(run_dir / "model")),
        cwd=ROOT / "space",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert started.returncode == 1 and started.stderr.startswith("error: The page cannot be served at 127.0.0.1: ")
    assert len(started.stderr.splitlines()) == 1, "one line, no traceback"


def test_an_address_of_another_machine_ends_the_start_with_one_sentence(run_dir: Path) -> None:
    started = subprocess.run(
        APP,
        env=environment(LUNGCT_MODEL=str(run_dir / "model"), GRADIO_SERVER_NAME="192.0.2.1"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert started.returncode == 1 and started.stderr.startswith("error: The page cannot be served at 192.0.2.1: ")
    assert len(started.stderr.splitlines()) == 1, "one line, no traceback"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_that_is_lost_during_the_start_is_given_up_for_the_next(run_dir: Path, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, 0), family=family) as free:
            first = free.getsockname()[1]
    except OSError:
        pytest.skip(f"this machine has no {host}")
    code = (
        "import runpy, socket, uvicorn\n"
        "real, taken = uvicorn.Config, []\n"
        "def config(**settings):\n"  # what Gradio calls once it has seen that the port is free
        f"    address = (settings['host'], settings['port']); family = {int(family)}\n"
        "    taken.extend([] if taken else [socket.create_server(address, family=family)])\n"
        "    return real(**settings)\n"
        "uvicorn.Config = config\n"
        "runpy.run_path('app.py', run_name='__main__')"
    )
    settings = {"GRADIO_SERVER_NAME": host, "GRADIO_SERVER_PORT": str(first)}
    process = subprocess.Popen(
        [APP[0], "-c", code],
        env=environment(LUNGCT_MODEL=str(run_dir / "model"), **settings),
        cwd=ROOT / "space",
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = next(line for line in process.stdout if RUNNING in line).split(RUNNING)[1].split()[0]
        assert httpx.get(f"{url}health", timeout=30).status_code == 200 and f":{first}/" not in url
        assert httpx.get(f"{url}gradio_api/mcp/schema", timeout=30).json(), "the tools are there as well"
    finally:
        process.kill()
        process.wait(timeout=30)


def test_a_proxy_to_the_world_does_not_stand_before_the_page(serving, run_dir: Path) -> None:
    proxy = "http://127.0.0.1:9"  # nobody answers there
    with serving([*LUNGCT, "demo", str(run_dir)], HTTP_PROXY=proxy, http_proxy=proxy, NO_PROXY="") as server:
        assert server.health()[0] == 200


def test_the_space_folder_is_what_a_space_needs() -> None:
    import tomllib

    import yaml

    space = ROOT / "space"
    front = yaml.safe_load((space / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert front["sdk"] == "gradio" and (space / front["app_file"]).is_file()
    assert len(front["short_description"]) <= 60, "the Hub refuses longer ones"
    lines = [line for line in (space / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(">=" in line and "<" in line for line in lines), "both bounds"
    assert any(line.startswith("gradio") for line in lines) and any(line.startswith("hugging") for line in lines)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert not any("torch" in line or "train" in line for line in [*lines, *extras["space"]]), "no torch in a Space"
