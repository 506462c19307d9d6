"""Switch off what the libraries below this package would report to their makers.

The package promises that nothing leaves the machine but what its user sends. Each of these variables is read when its
library is imported (ONNX Runtime: when its native library starts), so they are set when `lungct_hf` is imported, which
every entry point does first.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import warnings

# A variable that is already set is overruled too: a report is never what a user of this package asked for.
_SWITCHES = {
    # ONNX Runtime 1.32 looks up a host of its maker some seconds after the start and writes a device id to the home.
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # `datasets` and `evaluate` ask a bucket of their maker for a file that is not there, to be counted.
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
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


def keep_no_fonts() -> None:
    """Call before the first import of matplotlib: its list of fonts goes to a folder that ends with the process.

    It would be written below the home folder otherwise, unasked. Whoever has named a place for it (MPLCONFIGDIR), or
    has imported matplotlib before, keeps that. It takes half a second to make, and is made once in a process.
    """
    if "matplotlib" in sys.modules or os.environ.get("MPLCONFIGDIR"):
        return
    folder = tempfile.mkdtemp(prefix="lungct-fonts-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["MPLCONFIGDIR"] = folder
