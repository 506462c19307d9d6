"""The page: notice, state of the model, the tabs, and the endpoints behind them."""

from __future__ import annotations

import sys
from html import escape
from typing import Any

import gradio as gr

from api import add_endpoints
from lungct_hf.serving.keeper import Keeper
from lungct_hf.serving.service import Service
from model_tab import build_model_tab
from slice_tab import build_slice_tab
from study_tab import build_study_tab
from uploads import CLEAN_EVERY, KEEP_UPLOADS, told
from wording import TITLE, header, html, training_warning

_ASK_AGAIN = 3.0  # seconds
_BAD_CALL = "The call does not fit the endpoint. Fix: upload each file first, and give what the API page lists."
_BROKEN = "Something went wrong here. Fix: try again; tell the owner if it stays."
_STATES = {
    "loading": "The model is still loading. You can wait here; this line goes away when it is ready.",
    "failed": "There is no model to answer with at the moment. The server goes on trying; this page will notice.",
}


class _Page(gr.Blocks):
    """Blocks that print no traceback: those of calls that mean nothing quote what the visitor sent."""

    async def process_api(self, *arguments: Any, **options: Any) -> Any:
        try:
            return await super().process_api(*arguments, **options)
        except gr.Error:
            raise
        except Exception as error:
            print(f"warning: a call failed with {type(error).__name__}", file=sys.stderr, flush=True)
            known = isinstance(error, ValueError)  # Gradio's own, about inputs that it could not take
            raise told(_BAD_CALL if known else _BROKEN) from None


def build_page(keeper: Keeper) -> gr.Blocks:
    """The page and its endpoints for one model. Start it with `server.serve`."""
    service = Service(keeper)
    with _Page(title=TITLE, analytics_enabled=False, delete_cache=(CLEAN_EVERY, KEEP_UPLOADS)) as page:
        gr.HTML(**html(header()))
        state = gr.HTML(**html(""), elem_id="state")
        warning = gr.HTML(**html(""), elem_id="warning")
        version = gr.State("")
        timer = gr.Timer(_ASK_AGAIN)
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Slice", id="slice"):
                build_slice_tab(service, version)
            with gr.Tab("Study", id="study"):
                build_study_tab(service, version)
            with gr.Tab("Model", id="model-tab") as tab:
                build_model_tab(service, version, warning, tab)
        answers = gr.HTML(**html(""), elem_id="answers")
        add_endpoints(service)

        def look(version: str) -> dict[Any, Any]:
            if keeper.status != "ready":
                return {state: _state(keeper), timer: gr.Timer(active=True)}
            served = service.served(version)
            return {
                state: "",
                timer: gr.Timer(active=False),
                warning: training_warning(served.model.note),
                answers: _answers(served.model.repo_id or served.model.name, served.model.revision),
            }

        # Outside the queue: a page must hear of the model even while others wait for it.
        asked: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
        page.load(look, version, [state, timer, warning, answers], **asked)
        timer.tick(look, version, [state, timer, warning, answers], **asked)
        version.change(look, version, [state, timer, warning, answers], **asked)
    # Who waits hears of their place once a second: told at every start of another, 50 visitors cost a seventh more.
    return page.queue(status_update_rate=1.0, max_size=256, default_concurrency_limit=8)


def _state(keeper: Keeper) -> str:
    reason = f" <span>{escape(keeper.problem)}</span>" if keeper.problem else ""
    return f'<p class="lc-notice lc-warning" role="status"><strong>{_STATES[keeper.status]}</strong>{reason}</p>'


def _answers(model: str, revision: str | None) -> str:
    commit = f" at <code>{escape(revision[:7])}</code>" if revision else ""
    return (
        f'<p class="lc-small lc-foot">Answered by {escape(model)}{commit}. An upload is read by this server alone and '
        "deleted within minutes. Do not upload pictures that identify a person.</p>"
    )
