"""Files from visitors: Gradio's file component, which here never fetches what a visitor names by an address.

The component is changed where it stands and not by a subclass: of those Gradio writes .pyi files beside the source.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import processing_utils
from gradio.route_utils import GradioMultiPartParser
from starlette.formparsers import MultiPartException

from lungct_hf.errors import LungCTError

CLEAN_EVERY, KEEP_UPLOADS = 60, 600  # seconds
_MAX_FIELD = 65_536  # bytes


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


def bound_fields() -> None:
    """Let a part of an upload that is no file be short: Gradio keeps it in memory, however long it is."""
    take = GradioMultiPartParser.on_part_data

    def bounded(self: GradioMultiPartParser, data: bytes, start: int, end: int) -> None:
        part = self._current_part
        if part.file is None and len(part.data) + end - start > _MAX_FIELD:
            raise MultiPartException(f"A field of the upload is longer than {_MAX_FIELD} bytes and is no file.")
        take(self, data, start, end)

    GradioMultiPartParser.on_part_data = bounded


def keep_sweeping(folder: str | Path) -> None:
    """Delete, for as long as the server runs, what uploads that were broken off have left in `folder`.

    Gradio deletes the files of whole uploads, and knows nothing of the others: they have temporary names still.
    """

    def sweep_on() -> None:
        while True:
            sweep(Path(folder), KEEP_UPLOADS)
            time.sleep(CLEAN_EVERY)

    threading.Thread(target=sweep_on, name="lungct-sweep", daemon=True).start()


def sweep(folder: Path, age: float) -> None:
    """Delete the files in `folder` with temporary names to which nothing was written for `age` seconds."""
    for path in folder.glob("tmp*"):
        try:
            if path.is_file() and time.time() - path.stat().st_mtime > age:
                path.unlink()
        except OSError:  # gone meanwhile, or another user's
            continue


def told(problem: LungCTError | str) -> gr.Error:
    """One sentence for the visitor, and nothing in the log."""
    return gr.Error(str(problem), title="No answer", print_exception=False)
