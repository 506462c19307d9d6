"""Light sessions: nobody sees another visitor's state, and no page is described for anyone."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import httpx
import pytest
from gradio_client import Client

SPACE = Path(__file__).parents[2] / "space"


def test_each_visitor_keeps_a_state_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SPACE))
    from sessions import Sessions, use_light_sessions

    with gr.Blocks(analytics_enabled=False) as page:
        said, heard, total = gr.Textbox(), gr.Textbox(), gr.State([])

        def add(word: str, words: list[str]) -> tuple[str, list[str]]:
            return " ".join([*words, word]), [*words, word]

        said.submit(add, [said, total], [heard, total], api_name="add")
    page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False)
    try:
        use_light_sessions(page)
        alice, bob = (Client(page.local_url, verbose=False) for _ in range(2))
        assert alice.predict("lung", api_name="/add") == "lung"
        assert bob.predict("rib", api_name="/add") == "rib"
        assert alice.predict("node", api_name="/add") == "lung node"
        assert isinstance(page.app.state_holder, Sessions)
        sessions = page.app.state_holder.session_data.values()
        assert len(sessions) >= 2
        assert not any({said._id, heard._id} & set(session.config_values) for session in sessions)
    finally:
        page.close(verbose=False)


def test_calls_that_are_over_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SPACE))
    import sessions

    monkeypatch.setattr(sessions, "_WAITING", 3)
    with gr.Blocks(analytics_enabled=False) as page:
        said, heard = gr.Textbox(), gr.Textbox()
        said.submit(lambda word: word.upper(), said, heard, api_name="shout")
    page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False)
    try:
        sessions.use_light_sessions(page)
        with httpx.Client(base_url=page.local_url) as program:
            for word in ("lung", "rib", "node", "air", "fat"):  # each call of a program is a session of its own
                event = program.post("gradio_api/call/shout", json={"data": [word]}).json()["event_id"]
                assert word.upper() in program.get(f"gradio_api/call/shout/{event}").text
        assert len(page._queue.pending_event_ids_session) == 3
    finally:
        page.close(verbose=False)
