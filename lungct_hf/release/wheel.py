"""A wheel of the installed package, from a checkout or an installation, without a build tool and without the network.

The same installation gives the same bytes, so that deploying twice changes nothing.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from .. import __version__
from ..errors import LungCTError
from ..resources import shipped

PACKAGE = "lungct_hf"
_LONG_AGO = (2020, 1, 1, 0, 0, 0)
_SHIPPED = ("model_card.md", "space")
_SKIPPED = {"__pycache__", ".ipynb_checkpoints"}


def build_wheel() -> tuple[str, bytes]:
    """(file name, content) of a wheel that holds what is running now, the card's template and the Space included.

    Raises LungCTError when the installation does not say what it is, or is of another version than its code.
    """
    try:
        installed = distribution("lungct-hf")
    except PackageNotFoundError as error:
        raise LungCTError(
            "lungct-hf is not installed, so nothing says what it needs. Fix: pip install -e . (in the checkout)."
        ) from error
    if installed.version != __version__:
        raise LungCTError(
            f"The installation says lungct-hf {installed.version}, its code is {__version__}. "
            "Fix: pip install -e . again."
        )
    info = f"{PACKAGE}-{__version__}.dist-info"
    files = _package_files() | {
        f"{info}/METADATA": _metadata(installed).encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: lungct-hf\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": b"[console_scripts]\nlungct = lungct_hf.cli:main\n",
    }
    rows = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in sorted(files.items())]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        # RECORD last, as the format recommends.
        for name in sorted(files, key=lambda name: (name.startswith(info), name.endswith("RECORD"), name)):
            entry = zipfile.ZipInfo(name, _LONG_AGO)
            entry.external_attr, entry.compress_type = 0o644 << 16, zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[name])
    return f"{PACKAGE}-{__version__}-py3-none-any.whl", buffer.getvalue()


def folder_files(folder: Path) -> dict[str, bytes]:
    """{path below `folder`: content} without hidden files and caches, sorted."""
    found = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not _SKIPPED & set(parts) and not any(part.startswith(".") for part in parts):
            found["/".join(parts)] = path.read_bytes()
    return found


def _package_files() -> dict[str, bytes]:
    package = Path(__file__).resolve().parents[1]
    found = {
        f"{PACKAGE}/{name}": content
        for name, content in folder_files(package).items()
        if not name.endswith((".pyc", ".pyo")) and not name.startswith("_shipped/")
    }
    for name in _SHIPPED:
        path = shipped(name)
        inner = folder_files(path) if path.is_dir() else {"": path.read_bytes()}
        found |= {f"{PACKAGE}/_shipped/{name}{'/' if n else ''}{n}": content for n, content in inner.items()}
    return found


def _metadata(installed: Distribution) -> str:
    text = installed.read_text("METADATA")
    if not text:
        raise LungCTError(
            "The installation of lungct-hf has no METADATA. Fix: pip install --force-reinstall lungct-hf"
        )
    return text


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
