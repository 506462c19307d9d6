"""A fresh Hub for every test, and a client that knows no other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from hub_server import HubServer
from lungct_hf.hub import failures


@pytest.fixture(autouse=True)
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No token and no cache of the person who runs the tests."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(failures, "PAUSE", 0.01)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub that the client in this process talks to; it fails the test when it crashed itself."""
    with HubServer() as server:
        point_client_at(server.endpoint, monkeypatch)
        yield server
    assert not server.crashes, server.crashes[0]


@pytest.fixture
def token(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """alice is signed in with a write token, by HF_TOKEN."""
    value = hub.add_user("alice")
    monkeypatch.setenv("HF_TOKEN", value)
    return value


@pytest.fixture
def environment(hub: HubServer, tmp_path: Path) -> dict[str, str]:
    """The environment of a user's own process that talks to `hub`, without a token."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING_FACE"))}
    path = os.pathsep.join([str(Path(__file__).parents[1]), kept.get("PYTHONPATH", "")])
    return kept | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": path}


def point_client_at(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does when huggingface_hub is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
