"""Start the page: address, limits, the health check, and what happens when the model does not load."""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
import warnings

import gradio as gr
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from lungct_hf.errors import LungCTError
from lungct_hf.serving.guard import Guard
from lungct_hf.serving.keeper import Keeper
from lungct_hf.serving.limits import MAX_UPLOAD, RateLimit
from sessions import use_light_sessions
from theme import STYLE, theme
from uploads import forget_inline_files


def has_mcp() -> bool:
    """Whether Gradio can offer the endpoints as MCP tools here."""
    return importlib.util.find_spec("mcp") is not None


def serve(page: gr.Blocks, keeper: Keeper, *, calls_a_minute: int) -> None:
    """Serve, say where, and wait for Ctrl-C. `calls_a_minute`: of one visitor, 0 for no limit.

    Raises LungCTError when no port is free, and what the keeper met when no waiting can mend it.
    """

    def health(_: Request) -> JSONResponse:
        return JSONResponse(keeper.health(), status_code=200 if keeper.status == "ready" else 503)

    forget_inline_files(page)
    guard = Middleware(Guard, rate=RateLimit(calls_a_minute), behind_proxy="SPACE_ID" in os.environ)
    warnings.filterwarnings("ignore", module="gradio")
    try:
        page.launch(
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
            app_kwargs={"routes": [Route("/health", health)], "middleware": [guard]},
        )
    except (OSError, ValueError) as error:  # no free port; the page does not answer in time
        raise LungCTError(f"The page cannot be served: {error}") from error
    use_light_sessions(page)
    try:
        keeper.wait()
        if keeper.failed_for_good:
            raise keeper.failed_for_good
        if keeper.problem:
            print(f"warning: {keeper.problem} The page says so; trying again.", file=sys.stderr, flush=True)
        if problem := getattr(page, "mcp_error", None):
            print(f"warning: no MCP tools: {problem}", file=sys.stderr, flush=True)
        print(f"Running on local URL: {page.local_url} (Ctrl-C stops it)", flush=True)
        threading.Event().wait()
    finally:
        page.close(verbose=False)
