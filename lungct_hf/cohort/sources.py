"""Decide what `--data` means: a folder of pictures, parquet, or a data set on the Hub."""

from __future__ import annotations

from pathlib import Path

from ..errors import LungCTError, UsageError
from .folder import has_image_layout, list_folder
from .hub import list_hub, parse_hub_id
from .listing import Listing
from .names import METADATA_NAMES
from .table import list_parquet
from .walk import walk_files

FORMS = "an image folder, a parquet file or a folder of them, or a Hub data set id (owner/name or owner/name@revision)"


def list_source(data: str, group_column: str | None) -> Listing:
    """List the slices that `data` means, pictures still unread. What exists on disk wins over a Hub id.

    Raises:
        UsageError: `data` is none of the forms.
        LungCTError: it is one, but what it holds cannot be used.
    """
    if not data.strip():
        raise UsageError(f"The data path is empty. Needed: {FORMS}.")
    path = Path(data).expanduser()
    try:
        if path.is_dir():
            return _list_directory(path, group_column)
        if path.is_file():
            if path.suffix.lower() != ".parquet":
                raise UsageError(f'"{data}" is a file, but not a parquet file. Needed: {FORMS}.')
            return list_parquet(path.parent, [path], path.name, group_column)
    except OSError as error:
        name = Path(error.filename).name if isinstance(error.filename, str) else path.name
        raise LungCTError(f'"{name}" cannot be read: {error.strerror or error}. Fix: give yourself access.') from error
    hub_id = parse_hub_id(data)
    if hub_id is None:
        raise UsageError(f'There is no file or folder "{data}". Needed: {FORMS}. Fix: correct the path.')
    return list_hub(*hub_id, group_column)


def _list_directory(path: Path, group_column: str | None) -> Listing:
    source = path.resolve().name
    if not has_image_layout(path):
        tables = [
            name for name in walk_files(path) if name.endswith(".parquet") and Path(name).name not in METADATA_NAMES
        ]
        if tables:
            return list_parquet(path, [path / name for name in tables], source, group_column)
    return list_folder(path, source, group_column)
