"""A small but honest Hub on loopback, for tests and for trying pushes without the network.

    with HubServer() as hub:
        token = hub.add_user("alice")                     # HF_ENDPOINT=hub.endpoint, HF_TOKEN=token
        hub.faults.add("POST", "/commit/", action="drop-reply")

    python tests/hub_server.py --port 8222 --user alice   # then export the two variables it prints

It speaks the part of the Hub's protocol that huggingface_hub, transformers, timm and datasets use for repositories:
accounts, trees, commits, LFS uploads (one request or several parts), downloads through a second origin with signed
addresses, tags, branches, pull requests, Spaces. It checks what the real one checks: tokens and roles, the sha256 and
size of every upload, parent commits, metadata. It has no xet storage, so /xet-write-token answers 404.
"""

from __future__ import annotations

import argparse
import secrets
import threading
from collections.abc import Callable

import hub_commits  # noqa: F401  (adds its routes to hub_routes)
import hub_routes
import hub_transfer
from hub_store import Repo, Store
from hub_wire import Call, Faults, Handler, Listener, Reply, Request


class HubServer:
    """The server, its state (`store`), its log (`requests`) and what goes wrong next (`faults`)."""

    def __init__(
        self, port: int = 0, *, page_size: int = 1000, multipart_above: int = 64 * 2**20, chunk_size: int = 16 * 2**20
    ):
        self.store = Store()
        self.faults = Faults()
        self.requests: list[Request] = []
        self.crashes: list[str] = []
        # Called with every request twice: "before" its work is done, and "after" it, before the reply is sent.
        self.watch: Callable[[Request, str], None] | None = None
        self.page_size, self.multipart_above, self.chunk_size = page_size, multipart_above, chunk_size
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.secret = secrets.token_bytes(32)
        self.lock = threading.RLock()
        self._listeners = [self._listen("hub", port), self._listen("cdn", 0)]
        self.endpoint, self.cdn = (f"http://127.0.0.1:{s.server_address[1]}" for s in self._listeners)

    def _listen(self, name: str, port: int) -> Listener:
        listener = Listener(("127.0.0.1", port), Handler)
        listener.hub, listener.name = self, name
        return listener

    def route(self, call: Call, name: str) -> Reply:
        if name == "cdn":
            return hub_transfer.handle_cdn(call)
        return hub_routes.handle(call) if call.path.startswith("/api/") else hub_transfer.handle(call)

    def __enter__(self) -> HubServer:
        for listener in self._listeners:
            threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        for listener in self._listeners:
            listener.shutdown()
            listener.server_close()

    def add_user(self, name: str, role: str = "write") -> str:
        """A new token of this user; `role` is "write", "read" or "expired"."""
        token = f"hf_{role}{secrets.token_hex(12)}"
        self.store.tokens[token] = (name, role)
        return token

    def repo(self, repo_id: str, repo_type: str = "model") -> Repo:
        return self.store.repo(repo_id, repo_type)

    def files(self, repo_id: str, revision: str = "main", repo_type: str = "model") -> dict[str, bytes]:
        """Every file of a revision, by path."""
        tree = self.repo(repo_id, repo_type).resolve(revision).tree
        return {path: self.store.content(entry) for path, entry in sorted(tree.items())}

    def seen(self, method: str, text: str) -> list[Request]:
        """The requests so far with this method whose path holds `text`."""
        return [r for r in self.requests if r.method == method and text in r.path]


def main() -> None:
    parser = argparse.ArgumentParser(description="A small Hub on loopback.")
    parser.add_argument("--port", type=int, default=8222)
    parser.add_argument("--user", default="alice", help="owner of the token that is printed")
    args = parser.parse_args()
    with HubServer(args.port) as hub:
        print(f"export HF_ENDPOINT={hub.endpoint} HF_TOKEN={hub.add_user(args.user)}", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
