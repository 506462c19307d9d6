"""Switch off what the libraries below this package would report to their makers.

The package promises that nothing leaves the machine but what its user sends. Each of these variables is read when its
library is imported (ONNX Runtime: when its native library starts), so they are set when `lungct_hf` is imported, which
every entry point does first.
"""

from __future__ import annotations

import os
import sys
import warnings

# A variable that is already set is overruled too: a report is never what a user of this package asked for.
_SWITCHES = {
    # ONNX Runtime 1.32 looks up a host of its maker some seconds after the start and writes a device id to the home.
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
}


def silence() -> None:
    """Set the switches, and warn where ONNX Runtime was imported before: it has read its own by then."""
    late = "onnxruntime" in sys.modules and os.environ.get("ORT_DISABLE_TELEMETRY") != "1"
    os.environ.update(_SWITCHES)
    if late:
        warnings.warn(
            "onnxruntime was imported before lungct_hf and may report to its maker. Fix: import lungct_hf first, or "
            "set ORT_DISABLE_TELEMETRY=1.",
            stacklevel=3,
        )
