"""A CSV tracker beside TensorBoard, both driven through accelerate."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from accelerate.tracking import GeneralTracker, on_main_process

from ..files import write_atomic


class CsvTracker(GeneralTracker):
    """One row per epoch in `path`; the file is rewritten whole, so it is never half a row.

    A resumed run calls `continue_from`: a killed one may have logged past its last checkpoint.
    """

    name = "csv"
    requires_logging_directory = False
    main_process_only = True

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._rows: list[dict[str, Any]] = []

    @on_main_process
    def continue_from(self, step: int) -> None:
        """Take over the rows up to `step` of an earlier part of the run."""
        if self._path.is_file():
            with self._path.open(newline="", encoding="utf-8") as handle:
                self._rows = [row for row in csv.DictReader(handle) if int(row["step"]) <= step]

    @property
    def tracker(self) -> list[dict[str, Any]]:
        """The rows so far."""
        return self._rows

    @on_main_process
    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """The configuration is in run.json already."""

    @on_main_process
    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Append a row and rewrite the file."""
        self._rows.append({"step": step, **values})
        columns = list(dict.fromkeys(key for row in self._rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_atomic(self._path, text.getvalue())
