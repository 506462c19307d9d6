"""What stands before every request: how often, how much, and the headers of every answer. Plain ASGI."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .limits import MAX_UPLOAD, MB, RateLimit, has_room

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_MAX_CALL = 2 * MB  # of a request that carries no file
_UPLOADS = ("/gradio_api/upload", "/upload")  # whole: a call may be named "upload" as well, and is read into memory
_NO_ROOM = "There is no room for uploads at the moment. Fix: try again in ten minutes; others are deleted then."
# Inline scripts and styles are Gradio's own way to start its page; nothing comes from or goes to another host.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'self' https://huggingface.co https://*.huggingface.co https://*.hf.space"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
]


class Guard:
    """Refuses what is too much (413), too often (429) or has no room (507), with a sentence, before it is stored.

    Only requests that cost something count: uploads and calls. `behind_proxy`: the visitor's address is the last one
    in X-Forwarded-For, which the proxy wrote; the ones before it are whatever the visitor claims. Room is what all
    visitors share: the free disk, less what is on its way there.
    """

    def __init__(self, app: App, *, rate: RateLimit, behind_proxy: bool = False) -> None:
        self._app, self._rate, self._behind_proxy = app, rate, behind_proxy
        self._coming = 0  # bytes of uploads that have begun

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        if scope["method"] != "POST":
            await self._app(scope, receive, send_with_headers)
            return
        is_upload = scope["path"].rstrip("/") in _UPLOADS
        limit = MAX_UPLOAD + MB if is_upload else _MAX_CALL
        length = _stated_length(scope)
        coming = (length or limit) if is_upload else 0
        if not self._rate.allows(self._visitor(scope)):
            text = f"Too many requests: at most {self._rate.calls} in {self._rate.seconds:g} seconds. Try again later."
            await _refuse(send_with_headers, 429, text, retry=self._rate.seconds)
        elif length > limit:
            await _refuse(send_with_headers, 413, f"The request is too large: at most {limit // MB} MB.")
        elif is_upload and not has_room(self._coming + coming):
            await _refuse(send_with_headers, 507, _NO_ROOM, retry=600)
        else:
            self._coming += coming
            try:
                await self._app(scope, _up_to(receive, limit), send_with_headers)
            finally:
                self._coming -= coming

    def _visitor(self, scope: MutableMapping[str, Any]) -> str:
        if self._behind_proxy:
            forwarded = _header(scope, b"x-forwarded-for").rpartition(",")[2].strip()
            if forwarded:
                return forwarded
        return str((scope.get("client") or ("",))[0])


def _up_to(receive: Receive, limit: int) -> Receive:
    """Ends the connection for a body that is longer than it said, or did not say."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return {"type": "http.disconnect"} if seen > limit else message

    return counted


def _stated_length(scope: MutableMapping[str, Any]) -> int:
    text = _header(scope, b"content-length")
    return int(text) if text.isdigit() else 0


def _header(scope: MutableMapping[str, Any], name: bytes) -> str:
    """All values of a header as one: a proxy may add a line of its own below the visitor's."""
    return ",".join(value.decode("latin-1") for key, value in scope["headers"] if key == name)


async def _refuse(send: Send, status: int, sentence: str, *, retry: float | None = None) -> None:
    headers = [(b"content-type", b"application/json")]
    headers += [(b"retry-after", str(round(retry)).encode())] if retry else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": sentence, "detail": sentence}).encode()})
