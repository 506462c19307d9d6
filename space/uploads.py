"""Files from visitors: Gradio's file component, which here never fetches what a visitor names by an address.

The component is changed where it stands and not by a subclass: of those Gradio writes .pyi files beside the source.
"""

from __future__ import annotations

import os
from typing import Any

import gradio as gr
from gradio import processing_utils

from lungct_hf.errors import LungCTError


def slice_file(**options: Any) -> gr.File:
    """A gr.File that hands on the path of what was uploaded, and refuses addresses.

    A server that fetches for others can be sent to places that only it can reach. Gradio's own `preprocess` also
    leaves an empty file behind at every call.
    """
    component = gr.File(**options)
    store = component.async_move_resource_to_block_cache

    async def only_uploads(url_or_file_path: Any) -> str | None:
        if isinstance(url_or_file_path, str) and "://" in url_or_file_path:
            raise told("Addresses are not fetched. Fix: upload the file itself, or give it as a data: address (MCP).")
        return await store(url_or_file_path)

    component.async_move_resource_to_block_cache = only_uploads
    component._process_single_file = lambda file: str(file.path)
    return component


def forget_inline_files(page: gr.Blocks) -> None:
    """Let what comes inside an MCP call be deleted with the uploads: Gradio writes it down and keeps no note of it."""
    save = processing_utils.save_base64_to_cache

    def noted(*arguments: Any, **options: Any) -> str:
        path = save(*arguments, **options)
        os.utime(path)  # one that was there already must outlive this call
        page.upload_file_set.add(path)
        return path

    processing_utils.save_base64_to_cache = noted


def told(problem: LungCTError | str) -> gr.Error:
    """One sentence for the visitor, and nothing in the log."""
    return gr.Error(str(problem), title="No answer", print_exception=False)
