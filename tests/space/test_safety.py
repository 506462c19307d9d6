"""What strangers send: nothing of it is kept, echoed, followed or allowed to grow."""

from __future__ import annotations

import http.client
import io
import json
import os
import time
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from hub_server import HubServer
from slices.made_slices import PATIENT
from space_server import APP, Server


def upload(server: Server, name: str, content: bytes) -> str:
    answer = httpx.post(f"{server.url}gradio_api/upload", files={"files": (name, content)}, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer.json()[0]


def call(server: Server, file: dict[str, object] | None, endpoint: str = "predict") -> str:
    """The event stream of one raw call, as a program without the client sends it."""
    value = file if endpoint == "predict" else [file]
    started = httpx.post(f"{server.url}gradio_api/call/{endpoint}", json={"data": [value, "", False]}, timeout=120)
    if started.status_code != 200:
        return f"event: error {started.text}"
    event = started.json()["event_id"]
    return httpx.get(f"{server.url}gradio_api/call/{endpoint}/{event}", timeout=120).text


def reference(path: str, **extra: object) -> dict[str, object]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **extra}


def test_what_a_header_says_of_a_person_is_never_echoed_or_logged(
    client: Client, server: Server, slices: dict[str, Path]
) -> None:
    content = slices["slice.dcm"].read_bytes()
    assert PATIENT.encode() in content and b"secret-4711" in content and b"1.2.3.4" in content
    answer = json.dumps(client.predict(handle_file(str(slices["slice.dcm"])), api_name="/predict"))
    answer += json.dumps(client.predict([handle_file(str(slices["study.zip"]))], api_name="/predict_study"))
    for secret in ("Secret", "4711", "1.2.3.4"):
        assert secret not in answer
    log = server.log.read_text()
    assert "slice.dcm" not in log and "study.zip" not in log and "Secret" not in log, "nothing about a call is logged"


def test_addresses_are_not_fetched(server: Server) -> None:
    with HubServer() as bystander:  # any server that counts its requests
        address = f"{bystander.endpoint}/api/models"
        for file in (
            reference(address, url=address),
            reference(address),
            reference("http://169.254.169.254/latest/meta-data"),
            reference("file:///etc/passwd"),
        ):
            text = call(server, file)
            assert "event: error" in text and "root:" not in text, text
            assert "event: error" in call(server, file, "predict_study")
        assert not bystander.requests


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../../etc/passwd", "/proc/self/environ", "lungct.json"])
def test_files_of_the_server_are_out_of_reach(server: Server, path: str) -> None:
    text = call(server, reference(path))
    assert "event: error" in text and "root:" not in text and "LUNGCT" not in text
    for route in ("file=", "file/", "stream/", "proxy="):
        answer = httpx.get(f"{server.url}gradio_api/{route}{path}")
        assert answer.status_code in (400, 403, 404, 405), (route, answer.status_code)


def test_a_file_name_leads_nowhere(server: Server, slices: dict[str, Path], tmp_path: Path) -> None:
    content = slices["grey.png"].read_bytes()
    stored = upload(server, "../../../escaped.png", content)
    assert ".." not in stored and not (server.log.parent / "escaped.png").exists()
    text = call(server, reference(upload(server, '"><img src=x onerror=alert(1)>.png', content)))
    assert "event: complete" in text and "<img" not in text


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def test_bombs_and_leading_out_are_rows_and_the_server_lives(server: Server, slices: dict[str, Path]) -> None:
    picture = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(picture, "PNG")
    text = call(server, reference(upload(server, "pixels.png", picture.getvalue())))
    assert '"reason": "too-large"' in text
    archive = zipped({"bomb.png": b"\0" * 40 * 2**20, "../out.png": slices["grey.png"].read_bytes()})
    text = call(server, reference(upload(server, "bomb.zip", archive)), "predict_study")
    rows = json.loads(text.partition("data: ")[2].splitlines()[0])[0]["slices"]
    assert {row["reason"] for row in rows} == {"too-large", "unsupported"}
    assert server.health()[0] == 200


def test_an_archive_that_claims_too_much_is_refused_unopened(server: Server) -> None:
    content = bytearray(zipped({f"{number}.png": b"x" for number in range(4)}))
    at = -1
    while (at := content.find(b"PK\x01\x02", at + 1)) >= 0:
        content[at + 24 : at + 28] = (600 * 2**20).to_bytes(4, "little")  # the uncompressed size in the directory
    text = call(server, reference(upload(server, "big.zip", bytes(content))), "predict_study")
    assert "unpacks to 2,400 MB; at most 2,048" in text


def test_too_much_and_too_often_are_refused_before_they_are_stored(serving, run_dir: Path) -> None:
    with serving(APP, LUNGCT_MODEL=str(run_dir / "model"), LUNGCT_RATE="5") as server:
        call_address = f"{server.url}gradio_api/call/predict"
        large = httpx.post(call_address, content=b" " * (3 * 2**20), headers={"content-type": "application/json"})
        assert large.status_code == 413 and "too large" in large.json()["error"]
        # httpx does not state a length that it does not send.
        connection = http.client.HTTPConnection("127.0.0.1", urlsplit(server.url).port, timeout=30)
        connection.putrequest("POST", "/gradio_api/upload")
        connection.putheader("content-length", str(10**12))
        connection.putheader("content-type", "multipart/form-data; boundary=x")
        connection.endheaders()
        assert connection.getresponse().status == 413
        connection.close()
        codes = [httpx.post(call_address, json={"data": [None, "", False]}).status_code for _ in range(5)]
        assert codes[:3] == [200] * 3 and codes[3:] == [429] * 2
        refused = httpx.post(call_address, json={"data": [None]})
        assert "at most 5 in 60 seconds" in refused.json()["error"] and refused.headers["retry-after"] == "60"
        assert server.health()[0] == 200, "looking costs nothing"


def test_every_answer_carries_the_headers_of_a_page_that_stays_at_home(server: Server) -> None:
    for path in ("", "health", "gradio_api/info"):
        headers = httpx.get(f"{server.url}{path}").headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy and "object-src 'none'" in policy and "connect-src 'self'" in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"


def test_malformed_calls_get_an_error_and_no_traceback(server: Server) -> None:
    address = f"{server.url}gradio_api/call/predict"
    for body in (b"", b"{", b"[]", b'{"data": 3}', b'{"data": ["x"]}', b'{"data": [{"path": 3}]}'):
        answer = httpx.post(address, content=body, headers={"content-type": "application/json"}, timeout=60)
        assert answer.status_code in (200, 422, 500) and "Traceback" not in answer.text
        if answer.status_code == 200:
            stream = httpx.get(f"{address}/{answer.json()['event_id']}", timeout=60).text
            assert "event: error" in stream and "Traceback" not in stream
    assert "Traceback" not in server.log.read_text(), "a traceback would quote what was sent"
    assert server.health()[0] == 200


def test_uploads_are_deleted(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page asks Gradio to, after ten minutes."""
    import sys

    from helpers import ROOT
    from lungct_hf.serving.keeper import Keeper

    monkeypatch.syspath_prepend(str(ROOT / "space"))
    from page import build_page

    page = build_page(Keeper(str(run_dir / "model")))
    every, age = page.delete_cache
    assert every <= 60 and age <= 600

    # what comes inside an MCP call, which Gradio would forget to delete
    from gradio import processing_utils, route_utils

    from uploads import forget_inline_files

    monkeypatch.setattr(processing_utils, "save_base64_to_cache", processing_utils.save_base64_to_cache)
    forget_inline_files(page)
    inline = Path(processing_utils.save_base64_to_cache("data:image/png;base64,aGVsbG8=", str(tmp_path)))
    assert inline.read_bytes() == b"hello"
    route_utils.delete_files_created_by_app(page, age=60)
    assert inline.exists()
    route_utils.delete_files_created_by_app(page, age=0)
    assert not inline.exists()
    for name in ("page", "api", "wording", "uploads", "slice_tab", "study_tab", "model_tab"):
        sys.modules.pop(name, None)


def test_what_a_broken_upload_leaves_is_swept_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from helpers import ROOT

    monkeypatch.syspath_prepend(str(ROOT / "space"))
    from uploads import KEEP_UPLOADS, sweep

    for name in ("tmpold", "tmpnew", "whole.png"):
        (tmp_path / name).write_bytes(b"CT")
    (tmp_path / "tmpfolder").mkdir()
    long_ago = time.time() - KEEP_UPLOADS - 5
    for name in ("tmpold", "whole.png"):
        os.utime(tmp_path / name, (long_ago, long_ago))
    sweep(tmp_path, KEEP_UPLOADS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tmpfolder", "tmpnew", "whole.png"]
    sys.modules.pop("uploads", None)


def test_a_field_that_is_no_file_must_be_short(server: Server) -> None:
    address = f"{server.url}gradio_api/upload"
    assert httpx.post(address, files={"files": ("1.png", b"x" * 200_000)}, timeout=60).status_code == 200
    answer = httpx.post(address, files={"files": (None, b"x" * 200_000)}, timeout=60)
    assert answer.status_code == 400 and "Traceback" not in answer.text
    assert "Traceback" not in server.log.read_text()


def test_an_error_inside_a_call_is_told_without_its_insides(client: Client) -> None:
    with pytest.raises(AppError) as caught:
        client.predict(None, api_name="/predict")
    assert str(caught.value).startswith("No slice was given")
