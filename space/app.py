"""The demo: one page over a published model, without torch.

    LUNGCT_MODEL=owner/name LUNGCT_REVISION=v1.0.0 python app.py
    LUNGCT_MODEL=runs/NAME/model python app.py              # or: lungct demo runs/NAME

GRADIO_SERVER_NAME and GRADIO_SERVER_PORT choose the address. Nothing leaves the machine once the model is loaded.
"""

from __future__ import annotations

import os
import sys

from lungct_hf.allocator import keep_freed_memory
from lungct_hf.errors import UsageError, exit_on_error
from lungct_hf.serving.keeper import Keeper
from lungct_hf.silence import keep_no_fonts

_SWITCH = 0.0005  # seconds that a thread may keep the interpreter: the network must not wait 5 ms for those that read
_CALLS_A_MINUTE = 300  # of one visitor on a Space: an upload, a call and its answer are three


def address() -> tuple[str, int]:
    """Host and first port, 127.0.0.1:7860 where nothing is said. Raises UsageError for what is no port."""
    # Taken out of the environment: Gradio looks for a free port at this name as well, and knows IPv4 only.
    host = os.environ.pop("GRADIO_SERVER_NAME", "").strip().strip("[]") or "127.0.0.1"
    port = os.environ.get("GRADIO_SERVER_PORT", "").strip() or "7860"
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"GRADIO_SERVER_PORT is {port!r}; needed is a port, a number from 1 to 65535.")
    return host, int(port)


def calls_a_minute() -> int:
    """LUNGCT_RATE, or a limit on a Space and none on one's own machine. Raises UsageError for what is no number."""
    text = os.environ.get("LUNGCT_RATE", "").strip()
    if not text:
        return _CALLS_A_MINUTE if "SPACE_ID" in os.environ else 0
    if not text.isdigit():
        raise UsageError(f"LUNGCT_RATE is {text!r}; needed is a number of requests a minute, 0 for no limit.")
    return int(text)


def keeper() -> Keeper:
    """For the model that LUNGCT_MODEL and LUNGCT_REVISION name. Raises UsageError when none is named."""
    model = os.environ.get("LUNGCT_MODEL", "").strip()
    if not model:
        raise UsageError(
            "LUNGCT_MODEL is not set, so there is nothing to serve. Fix: set it to OWNER/NAME, OWNER/NAME@REVISION or "
            "a model directory (a Space: Settings, Variables)."
        )
    return Keeper(model, os.environ.get("LUNGCT_REVISION", "").strip() or None)


def main() -> None:
    """What a Space and `lungct demo` run."""
    # No usage reports to anybody, and no list of a visitor's slices kept in their browser.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    # Gradio keeps a record of 10,000 calls and sums it up with pandas after every one; nobody reads it here.
    os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = "1000000000"
    # Gradio asks its own page whether it is up, and a proxy between a machine and the world knows nothing of it.
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "localhost,127.0.0.1,0.0.0.0,::1"]))
    keep_no_fonts()  # Gradio imports matplotlib where it is installed
    keep_freed_memory()  # a decoded slice is large enough to be given back and asked for again, page by page
    sys.setswitchinterval(_SWITCH)
    model, (host, port), calls = keeper(), address(), calls_a_minute()
    model.start()  # while Gradio is being imported, which takes most of the start
    from page import build_page
    from server import serve

    serve(build_page(model), model, host=host, port=port, calls_a_minute=calls)


if __name__ == "__main__":
    with exit_on_error():
        main()
