"""Decide what `--data` means: a folder or zip archive of slices, parquet, or a data set on the Hub."""

from __future__ import annotations

from pathlib import Path

from ..errors import BadSliceError, LungCTError, UsageError
from .folder import Wanted, list_tree
from .hub import list_hub, parse_hub_id
from .listing import Listing
from .names import METADATA_NAMES
from .table import list_parquet
from .tree import DiskFile, Tree, is_slice_name

FORMS = (
    "a folder or zip archive of slices, a parquet file or a folder of them, or a Hub data set id (owner/name or "
    "owner/name@revision)"
)


def list_source(data: str, wanted: Wanted) -> Listing:
    """List the slices that `data` means, still unread. What exists on disk wins over a Hub id.

    Raises:
        UsageError: `data` is none of the forms.
        LungCTError: it is one, but what it holds cannot be used.
    """
    if not data.strip():
        raise UsageError(f"The data path is empty. Needed: {FORMS}.")
    path = Path(data).expanduser()
    try:
        if path.is_dir():
            return _list_directory(path, wanted)
        if path.is_file():
            return _list_file(path, data, wanted)
    except OSError as error:
        name = Path(error.filename).name if isinstance(error.filename, str) else path.name
        raise LungCTError(f'"{name}" cannot be read: {error.strerror or error}. Fix: give yourself access.') from error
    hub_id = parse_hub_id(data)
    if hub_id is None:
        raise UsageError(f'There is no file or folder "{data}". Needed: {FORMS}. Fix: correct the path.')
    return list_hub(*hub_id, wanted)


def _list_directory(path: Path, wanted: Wanted) -> Listing:
    source, tree = path.resolve().name, Tree.of_folder(path)
    if not tree.holds_slices(""):
        tables = [name for name in tree.side if name.endswith(".parquet") and Path(name).name not in METADATA_NAMES]
        if tables:
            _refuse_labels(wanted)
            return list_parquet(path, [path / name for name in tables], source, wanted)
    return list_tree(tree, source, wanted)


def _list_file(path: Path, data: str, wanted: Wanted) -> Listing:
    if path.suffix.lower() == ".parquet":
        _refuse_labels(wanted)
        return list_parquet(path.parent, [path], path.name, wanted)
    if path.suffix.lower() != ".zip" and wanted.unlabelled != "refuse" and is_slice_name(path.name):
        return list_tree(Tree({path.name: DiskFile(path)}), path.name, wanted)
    if path.suffix.lower() != ".zip":
        raise UsageError(f'"{data}" is a file, but no parquet file and no zip archive. Needed: {FORMS}.')
    try:
        return list_tree(Tree.of_zip(path), path.name, wanted, kind="archive")
    except BadSliceError as error:
        raise LungCTError(f'"{path.name}" cannot be read: {error}. Fix: copy it again.') from error


def _refuse_labels(wanted: Wanted) -> None:
    if wanted.labels is not None:
        raise UsageError("--labels names labels of files; a parquet table has its own. Fix: leave --labels out.")
    if wanted.only_listed:
        raise UsageError("--slices listed needs a table beside the files; every row of parquet is listed already.")
