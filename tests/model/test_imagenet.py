"""Start weights: fetched, checked, cached; and never a broken file left behind."""

import hashlib
import http.server
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision

from lungct_hf.errors import LungCTError, UsageError
from lungct_hf.model import build_network, imagenet, load_init
from lungct_hf.model.network import ARCHITECTURE


@pytest.fixture(scope="module")
def weight_file() -> bytes:
    torch.manual_seed(1)
    buffer = io.BytesIO()
    torch.save(torchvision.models.mobilenet_v2(weights=None).state_dict(), buffer)
    return buffer.getvalue()


class _Server(http.server.ThreadingHTTPServer):
    body, promised, requests = b"", 0, 0


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.requests += 1
        self.send_response(200)
        self.send_header("Content-Length", str(self.server.promised))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(weight_file: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[_Server]:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.body, server.promised = weight_file, len(weight_file)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # The real file's prefix cannot be met by a stand-in, so the stand-in's own is expected instead.
    monkeypatch.setattr(imagenet, "V2_SHA256_PREFIX", hashlib.sha256(weight_file).hexdigest()[:8])
    monkeypatch.setattr(imagenet, "V2_URL", f"http://127.0.0.1:{server.server_port}/mobilenet_v2-7ebf99e0.pth")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    yield server
    server.shutdown()
    server.server_close()


def cached() -> list[str]:
    folder = imagenet.v2_cache_path().parent
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_v2_is_fetched_once_and_fills_everything_but_the_new_layer(server: _Server) -> None:
    init = load_init("imagenet1k-v2")
    assert load_init("imagenet1k-v2").sha256 == init.sha256
    assert server.requests == 1
    assert init.kind == "imagenet1k-v2" and cached() == ["mobilenet_v2-7ebf99e0.pth"]
    network = build_network(ARCHITECTURE, 3)
    before = network.classifier.weight.clone()
    init.apply(network)
    assert torch.equal(network.conv_stem.weight, init.state["conv_stem.weight"])
    assert torch.equal(network.classifier.weight, before) and network.classifier.out_features == 3


def test_truncated_download_is_named_and_leaves_nothing(server: _Server) -> None:
    server.body = server.body[: len(server.body) // 2]
    with pytest.raises(LungCTError, match="cut short"):
        load_init("imagenet1k-v2")
    assert cached() == []


def test_wrong_hash_is_named_and_leaves_nothing(server: _Server) -> None:
    server.body = b"<html>please log in</html>"
    server.promised = len(server.body)
    with pytest.raises(LungCTError, match="sha256"):
        load_init("imagenet1k-v2")
    assert cached() == []


def test_a_broken_cached_file_is_fetched_again(server: _Server) -> None:
    imagenet.v2_cache_path().parent.mkdir(parents=True)
    imagenet.v2_cache_path().write_bytes(b"half")
    assert load_init("imagenet1k-v2").kind == "imagenet1k-v2"
    assert imagenet.v2_cache_path().read_bytes() == server.body


def test_unreachable_is_an_error_when_asked_for_and_one_line_under_auto(server: _Server) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(LungCTError, match="could not be reached"):
        load_init("imagenet1k-v2")
    said: list[str] = []
    init = load_init("auto", say=said.append)
    assert init.kind == "random" and init.state is None
    assert len(said) == 1 and "random weights" in said[0] and "\n" not in said[0]
    assert cached() == []


def test_auto_takes_the_cached_file_without_asking_the_network(server: _Server) -> None:
    load_init("imagenet1k-v2")
    assert load_init("auto").kind == "imagenet1k-v2"
    assert server.requests == 1


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_given_file_is_a_stand_in(tmp_path: Path, suffix: str) -> None:
    state = torchvision.models.mobilenet_v2(weights=None).state_dict()
    path = tmp_path / f"weights{suffix}"
    torch.save(state, path) if suffix == ".pth" else safetensors.torch.save_file(state, path)
    init = load_init(str(path))
    assert init.record() == {
        "kind": "stand-in",
        "source": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    init.apply(build_network(ARCHITECTURE, 3))


@pytest.mark.parametrize(
    ("name", "content"), [("a.pth", b"not weights"), ("a.safetensors", b"\x00" * 40), ("b.pth", b"")]
)
def test_a_file_that_is_no_weights_is_one_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LungCTError, match=name):
        load_init(str(tmp_path / name))


def test_a_pickle_with_code_is_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    torch.save({"conv_stem.weight": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(LungCTError):
        load_init(str(tmp_path / "bomb.pth"))
    assert not (tmp_path / "ran").exists()


def test_missing_file_and_wrong_width(tmp_path: Path) -> None:
    with pytest.raises(LungCTError, match="no such file"):
        load_init(str(tmp_path / "none.pth"))
    path = tmp_path / "v2.pth"
    torch.save(torchvision.models.mobilenet_v2(weights=None).state_dict(), path)
    with pytest.raises(LungCTError, match="do not fit"):
        load_init(str(path)).apply(build_network("mobilenetv2_035", 3))


def test_other_architectures_are_told_where_they_start_before_anything_is_fetched(server: _Server) -> None:
    said: list[str] = []
    assert load_init("auto", "efficientnet_b0", say=said.append).kind == "random"
    assert len(said) == 1 and "random weights" in said[0] and "mobilenetv2_100, not of efficientnet_b0" in said[0]
    with pytest.raises(UsageError, match="not of efficientnet_b0. Fix: --init PATH"):
        load_init("imagenet1k-v2", "efficientnet_b0")
    assert server.requests == 0


def test_a_state_dict_of_timm_starts_its_own_network(tmp_path: Path) -> None:
    given = timm.create_model("efficientnet_b0", pretrained=False)
    torch.save(given.state_dict(), tmp_path / "b0.pth")
    network = build_network("efficientnet_b0", 4)
    load_init(str(tmp_path / "b0.pth"), "efficientnet_b0").apply(network)
    assert torch.equal(network.conv_head.weight, given.conv_head.weight)
    assert network.classifier.weight.shape == (4, 1280)
    with pytest.raises(LungCTError, match="do not fit this architecture"):
        load_init(str(tmp_path / "b0.pth")).apply(build_network(ARCHITECTURE, 3))
