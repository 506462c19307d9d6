"""Slices in parquet files, here or on the Hub: which rows there are, and their pictures one row group at a time.

A file on the Hub (hf://datasets/OWNER/NAME@COMMIT/FILE) is read piece by piece, and never lies on the disk.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import BadSliceError, LungCTError, brief, require

_ROWS = 16  # read at once: encoded slices have 30 to 300 kB
_HUB = "hf://"


class OutOfReach(LungCTError):
    """The Hub does not answer. That says nothing about a slice, so it is no row: the run ends and can go on later."""


@contextmanager
def _reaching(path: str) -> Iterator[None]:
    """Of a file on the Hub, OutOfReach for whatever the Hub's client raises; nothing of one on the disk."""
    if not path.startswith(_HUB):
        yield
        return
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    try:
        yield
    except (HfHubHTTPError, HTTPError, OSError) as error:
        raise OutOfReach(
            f"{path} could not be read from the Hub ({brief(error)}). What is done is kept. Fix: check the network, "
            "then give the same command again."
        ) from error


def list_table(path: str, name: str) -> Iterator[tuple[int, int, str]]:
    """(row group, row in it, what the row is called) of every row of a parquet file, without its pictures.

    A row is called FILE/NUMBER, with the picture's own name behind where it has one.

    Raises:
        LungCTError: pyarrow is not installed, the file is damaged, or it has no column of pictures.
        OutOfReach: the file is on the Hub, which does not answer.
    """
    file, column = _opened(path, name)
    number = 0
    is_struct = _is_struct(file, column)
    for group in range(file.num_row_groups):
        # A struct's "path" is a column of its own on the disk, so that the pictures are not touched.
        wanted = [f"{column}.path"] if is_struct else None
        with _reaching(path):
            paths = file.read_row_group(group, columns=wanted)[column].to_pylist() if wanted else None
        for place in range(file.metadata.row_group(group).num_rows):
            own = (paths[place] or {}).get("path") if paths else None
            own_name = re.split(r"[/\\]", own)[-1] if own else ""
            yield group, place, "/".join(filter(None, [name, str(number), own_name]))
            number += 1


class TableCursor:
    """The pictures of one row group, asked for in ascending order."""

    def __init__(self, path: str, group: int) -> None:
        self.path, self.group = path, group
        file, self._column = _opened(path, Path(path).name)
        with _reaching(path):
            self._batches = file.iter_batches(_ROWS, row_groups=[group], columns=[self._column])
        self._start, self._rows = 0, list[Any]()

    def __getitem__(self, place: int) -> bytes | Path:
        """The encoded picture of a row, or the file it names. Raises BadSliceError where the row has none."""
        while place >= self._start + len(self._rows):
            self._start += len(self._rows)
            with _reaching(self.path):
                self._rows = next(self._batches).column(0).to_pylist()
        value = self._rows[place - self._start]
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if not value:
            raise BadSliceError("its row has no picture", "not-an-image")
        if isinstance(value, bytes):
            return value
        if self.path.startswith(_HUB):
            raise BadSliceError("its row names a file and does not hold the picture", "not-found")
        return Path(self.path).parent / value

    def has(self, place: int) -> bool:
        """Whether that row is still ahead."""
        return place >= self._start


def _opened(path: str, name: str) -> tuple[Any, str]:
    require("pyarrow", "parquet")
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ..cohort.names import IMAGE_COLUMNS, find_column

    try:
        with _reaching(path):  # what is out of reach is not damaged
            file = pq.ParquetFile(_source(path))
    except (OSError, pa.ArrowException) as error:
        raise LungCTError(f"{name} is not a readable parquet file: {brief(error)}. Fix: write it again.") from error
    names = file.schema_arrow.names
    column = find_column(names, IMAGE_COLUMNS)
    if column is None:
        raise LungCTError(
            f"{name} has no column of pictures (it has: {', '.join(names)}). Fix: name it image (encoded bytes, a "
            "datasets.Image, or a path relative to the parquet file)."
        )
    return file, column


def _source(path: str) -> Any:
    if not path.startswith(_HUB):
        return path
    from huggingface_hub import HfFileSystem

    return HfFileSystem().open(path)


def _is_struct(file: Any, column: str) -> bool:
    import pyarrow as pa

    kind = file.schema_arrow.field(column).type
    return pa.types.is_struct(kind) and any(field.name == "path" for field in kind)
