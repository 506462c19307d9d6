"""What Gradio keeps of each visitor, without the part that costs most and is not used here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gradio as gr
from gradio.state_holder import SessionState, StateHolder
from gradio.utils import LRUCache

_WAITING = 2000  # sessions whose calls are noted, as many as Gradio keeps messages for


class _Session(SessionState):
    """Where one visitor is; what components look like is not written down."""

    def __init__(self, page: gr.Blocks) -> None:
        nothing_to_describe = SimpleNamespace(default_config=page.default_config, blocks=())
        super().__init__(nothing_to_describe)  # type: ignore[arg-type]

    def _update_value_in_config(self, key: int, value: Any) -> None:
        pass


class Sessions(StateHolder):
    """Gradio's sessions without a description of the page's components, which serves deep links; there are none here.

    Every call of a program is a session of its own, so describing the page's 55 components anew for each took a
    quarter of the server's time in Python, and room for 500 of them.
    """

    def __getitem__(self, session_id: str) -> SessionState:
        if session_id not in self.session_data:
            self.session_data[session_id] = _Session(self.blocks)
        return super().__getitem__(session_id)


def use_light_sessions(page: gr.Blocks) -> None:
    """Let a page that has been launched keep its sessions in `Sessions`, and forget whose calls are over.

    Gradio notes the calls of each session that wait for their answer, and never drops the empty note of one that is
    over: half a kilobyte for every call of a program.
    """
    sessions = Sessions()
    sessions.set_blocks(page)
    page.app.state_holder = sessions
    page._queue.pending_event_ids_session = LRUCache(_WAITING)
