"""Files from visitors: Gradio's file component, which never fetches what a visitor names by an address."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lungct_hf.errors import LungCTError

from gradio.events import Dependency

class SliceFile(gr.File):
    """gr.File that hands on the path of what was uploaded, and refuses addresses: a server that fetches for others
    can be sent to places that only it can reach."""

    is_template = True  # to the browser it is a gr.File

    async def async_move_resource_to_block_cache(self, url_or_file_path: Any) -> str | None:
        if isinstance(url_or_file_path, str) and "://" in url_or_file_path:
            raise told("Addresses are not fetched. Fix: upload the file itself.")
        return await super().async_move_resource_to_block_cache(url_or_file_path)

    def _process_single_file(self, f: Any) -> str:
        return str(f.path)
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component


def told(problem: LungCTError | str) -> gr.Error:
    """One sentence for the visitor, and nothing in the log."""
    return gr.Error(str(problem), title="No answer", print_exception=False)