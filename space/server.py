"""Start the page: address, limits, the health check, and what happens when the model does not load."""

from __future__ import annotations

import errno
import importlib.util
import os
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from api import describe_again
from lungct_hf.errors import LungCTError
from lungct_hf.serving.guard import Guard
from lungct_hf.serving.keeper import Keeper
from lungct_hf.serving.limits import MAX_UPLOAD, RateLimit
from sessions import use_light_sessions
from theme import STYLE, theme
from uploads import bound_fields, forget_inline_files, keep_sweeping

_PORTS = 100  # looked at one after the other, as Gradio does
_STARTS = 3  # another program may take the port between the look and the start


def has_mcp() -> bool:
    """Whether Gradio can offer the endpoints as MCP tools here."""
    return importlib.util.find_spec("mcp") is not None


def _free_ports(host: str, first: int) -> Iterator[int]:
    """Those from `first` on that nobody listens at. Raises OSError where `host` is no address of this machine."""
    family = socket.getaddrinfo(host, first, type=socket.SOCK_STREAM)[0][0]
    for port in range(first, min(first + _PORTS, 65536)):
        try:
            socket.create_server((host, port), family=family).close()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            yield port


def _launch(page: gr.Blocks, host: str, first: int, app_kwargs: dict[str, Any], **settings: Any) -> None:
    """`page.launch` at the first port that can be had. Raises LungCTError when none can.

    Gradio's own search starts one app at several ports in turn, and its MCP part can be started only once: after a
    lost port it waits five seconds at each of the others. Every launch makes the app anew.
    """
    starts, name = 0, f"[{host}]" if ":" in host else host
    try:
        for port in _free_ports(host, first):
            try:
                # Its own copy each time: Gradio writes the MCP part of this app into it.
                page.launch(server_name=name, server_port=port, app_kwargs=dict(app_kwargs), **settings)
                return
            except OSError:
                starts += 1
                if starts == _STARTS:
                    raise
    except (OSError, ValueError) as error:  # no address of this machine; the page does not answer in time
        raise LungCTError(f"The page cannot be served at {host}: {error}") from error
    raise LungCTError(
        f"The page cannot be served: the {_PORTS} ports from {first} on are taken. Fix: set GRADIO_SERVER_PORT to a "
        "free one."
    )


def serve(page: gr.Blocks, keeper: Keeper, *, host: str, port: int, calls_a_minute: int) -> None:
    """Serve, say where, and wait for Ctrl-C. `calls_a_minute`: of one visitor, 0 for no limit.

    The address is `host` and the first free of the 100 ports from `port` on.

    Raises LungCTError when the address cannot be had, and what the keeper met when no waiting can mend it.
    """

    def health(_: Request) -> JSONResponse:
        return JSONResponse(keeper.health(), status_code=200 if keeper.status == "ready" else 503)

    if keeper.failed_for_good:  # no page for what is known not to work
        raise keeper.failed_for_good
    forget_inline_files(page)
    bound_fields()
    guard = Middleware(Guard, rate=RateLimit(calls_a_minute), behind_proxy="SPACE_ID" in os.environ)
    warnings.filterwarnings("ignore", module="gradio")
    _launch(
        page,
        host,
        port,
        app_kwargs={"routes": [Route("/health", health)], "middleware": [guard]},
        theme=theme(),
        css_paths=STYLE,
        quiet=True,
        share=False,
        ssr_mode=False,
        max_file_size=MAX_UPLOAD,
        allowed_paths=[],
        footer_links=["api"],
        prevent_thread_lock=True,
        mcp_server=has_mcp(),
        state_session_capacity=500,
    )
    use_light_sessions(page)
    keep_sweeping(page.app.uploaded_file_dir)
    try:
        keeper.wait()
        if keeper.failed_for_good:
            raise keeper.failed_for_good
        if keeper.problem:
            print(f"warning: {keeper.problem} The page says so; trying again.", file=sys.stderr, flush=True)
        if problem := getattr(page, "mcp_error", None):
            print(f"warning: no MCP tools: {problem}", file=sys.stderr, flush=True)
        if is_ready := keeper.status == "ready":
            describe_again(page)
        print(f"Running on local URL: {page.local_url} (Ctrl-C stops it)", flush=True)
        if not is_ready:
            keeper.wait_until_ready()
            describe_again(page)
        threading.Event().wait()
    finally:
        page.close(verbose=False)
