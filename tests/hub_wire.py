"""HTTP for `hub_server.HubServer`: requests, replies, the request log, and faults injected on purpose."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from hub_store import HubError, Repo, Store

if TYPE_CHECKING:
    from hub_server import HubServer

ACTIONS = re.compile(r"status:\d{3}|cut|drop-reply|flip-byte|short-body")


@dataclass
class Reply:
    status: int
    body: Any = b""  # bytes, or anything json can write
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Request:
    """One line of `HubServer.requests`. The token itself is not kept, only whose it was."""

    method: str
    path: str
    query: str
    user: str | None
    host: str  # "hub" or "cdn"
    headers: dict[str, str]
    status: int = 0
    fault: str | None = None


class Faults:
    """What goes wrong next, and how often.

    `status:NNN` answers with that status instead of doing the work; `cut` resets the connection (a GET in the middle
    of its body, anything else before the work is done); `drop-reply` does the work and then resets; `flip-byte`
    changes one bit of the body; `short-body` closes politely after half of it.
    """

    def __init__(self) -> None:
        self._rules: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def add(self, method: str, path_regex: str, times: int = 1, action: str = "status:500") -> None:
        if not ACTIONS.fullmatch(action):
            raise ValueError(f"unknown action {action!r}")
        rule = {"method": method, "path": re.compile(path_regex), "left": times, "action": action}
        with self._lock:
            self._rules.append(rule)

    def take(self, method: str, path: str) -> str | None:
        with self._lock:
            for rule in self._rules:
                if rule["left"] and rule["method"] in (method, "*") and rule["path"].search(path):
                    rule["left"] -= 1
                    return rule["action"]
        return None


@dataclass
class Call:
    """One request, with the questions that the routes ask about it."""

    server: HubServer
    method: str
    path: str
    query: dict[str, str]
    headers: Any
    body: bytes

    @property
    def store(self) -> Store:
        return self.server.store

    @property
    def endpoint(self) -> str:
        return self.server.endpoint

    @property
    def segments(self) -> list[str]:
        """The path, split at "/" before it is unquoted: refs%2Fpr%2F1 is one segment."""
        return [unquote(part) for part in self.path.strip("/").split("/")]

    def json(self) -> Any:
        try:
            return json.loads(self.body) if self.body else None
        except ValueError as error:
            raise HubError(400, "", f"The body is not JSON: {error}") from error

    def form(self) -> dict[str, list[str]]:
        if "json" in self.headers.get("Content-Type", ""):
            data = self.json() or {}
            return {k: [str(x) for x in v] if isinstance(v, list) else [str(v)] for k, v in data.items()}
        return parse_qs(self.body.decode())

    def account(self) -> tuple[str | None, str]:
        """(user, role); (None, "") without a token. A token that nobody has is refused everywhere."""
        header = self.headers.get("Authorization")
        if header is None:
            return None, ""
        user, role = self.store.tokens.get(header.removeprefix("Bearer ").strip(), (None, ""))
        if user is None:
            raise HubError(401, "", "Invalid credentials in Authorization header")
        if role == "expired":
            raise HubError(401, "", 'User Access Token "test" is expired')
        return user, role

    def writer(self, owner: str | None) -> str:
        """The user, if the token may write to `owner`'s repositories (None: to propose changes anywhere)."""
        user, role = self.account()
        if user is None:
            raise HubError(401, "", "Invalid username or password.")
        if role != "write":
            raise HubError(403, "", "Forbidden: you must use a write token to upload to a repository.")
        if owner not in (None, user):
            raise HubError(403, "", f"You don't have the rights to write to the namespace {owner!r}")
        return user

    def readable(self, repo_id: str, repo_type: str) -> Repo:
        """The repo, if it exists and the caller may see it: strangers cannot tell private from missing."""
        user, _ = self.account()
        repo = self.store.repos.get((repo_type, repo_id))
        if repo is None or (repo.private and user != repo.owner):
            if user is None:
                raise HubError(401, "RepoNotFound", "Invalid username or password.")
            raise HubError(404, "RepoNotFound", "Repository not found")
        return repo

    @staticmethod
    def web_path(repo: Repo) -> str:
        return repo.id if repo.type == "model" else f"{repo.type}s/{repo.id}"


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    hub: HubServer
    name: str

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests; real faults of the server are kept for the test to see."""
        import sys
        import traceback

        if not isinstance(sys.exc_info()[1], OSError | ValueError):
            self.hub.crashes.append(traceback.format_exc())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes; together with delayed ACKs that costs 40 ms
    server: Listener

    def log_message(self, format: str, *args: Any) -> None:
        """`HubServer.requests` is the log."""

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            out = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                out += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return out
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        if len(body) < size:
            raise ConnectionAbortedError("the client went away in the middle of its request")
        return body

    def serve(self) -> None:
        hub, url = self.server.hub, urlsplit(self.path)
        query = {k: v[-1] for k, v in parse_qs(url.query, keep_blank_values=True).items()}
        call = Call(hub, self.command, url.path, query, self.headers, self.read_body())
        seen = {k.lower(): v for k, v in self.headers.items() if k.lower() != "authorization"}
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        line = Request(
            self.command, url.path, url.query, hub.store.tokens.get(token, (None,))[0], self.server.name, seen
        )
        line.fault = hub.faults.take(self.command, url.path)
        hub.requests.append(line)
        if hub.watch:
            hub.watch(line, "before")
        if line.fault == "cut" and self.command != "GET":
            return self.reset()
        if line.fault and line.fault.startswith("status:"):
            reply = Reply(int(line.fault[7:]), {"error": "injected fault"}, {"X-Error-Message": "injected fault"})
        else:
            reply = self.answer(call)
        line.status = reply.status
        if hub.watch:
            hub.watch(line, "after")
        if line.fault == "drop-reply":
            return self.reset()
        self.send(reply, line.fault)

    def answer(self, call: Call) -> Reply:
        try:
            with call.server.lock:
                return call.server.route(call, self.server.name)
        except HubError as error:
            message = error.message.replace("\n", " ").encode("ascii", "replace").decode()
            headers = {"X-Error-Message": message}
            if error.code:
                headers["X-Error-Code"] = error.code
            return Reply(error.status, {"error": error.message}, headers)
        except Exception:
            import traceback

            call.server.crashes.append(traceback.format_exc())
            return Reply(500, {"error": "the test Hub itself failed; see HubServer.crashes"})

    def send(self, reply: Reply, fault: str | None) -> None:
        headers = dict(reply.headers)
        body = reply.body
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json; charset=utf-8")
        if fault == "flip-byte" and body:
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        self.send_response(reply.status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault in ("cut", "short-body"):
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            if fault == "cut":
                self.reset()
            return
        self.wfile.write(body)

    def reset(self) -> None:
        """Hang up with RST, as a crashing proxy does."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve  # noqa: N815
