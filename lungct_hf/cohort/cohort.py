"""A cohort: many slices as a `datasets.Dataset` with labels, groups and hashes, and thumbnails for the baselines."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..classes import Classes
from ..errors import BadSliceError, LungCTError
from ..labels import SCHEMA_1
from ..slices.read import read_slice
from .fingerprint import fingerprint
from .listing import BadFile

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True, eq=False)
class Cohort:
    """Verified slices in a fixed order (natural path order for folders, row order for tables).

    `dataset` has the columns image (decoded lazily), label (normal, benign, malignant), id (path below the data root,
    or "split/row"; unique), sha256 (of the encoded file), group, given_split ("", train, validation, test).
    `kind` is folder, parquet or hub; `source` a name safe to publish. `grouping` names what made the groups
    ("column:NAME", "linked", "similarity", "file-blocks:N"), `rule` its cuts, `reasons` what ties each slice to its
    group. `thumbnails` is uint8 of shape (N, 64, 64): the squashed grey picture, what a nearest neighbour looks at;
    `thumbs48` the same at 48 pixels, what links and margins compare. `names` are the paths whose file numbers count,
    "" for slices without one.
    """

    dataset: datasets.Dataset
    kind: str
    source: str
    grouping: str
    rule: str
    thumbnails: np.ndarray = field(repr=False)
    thumbs48: np.ndarray = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    reasons: tuple[str, ...] = field(repr=False)
    bad_files: tuple[BadFile, ...] = ()
    classes: Classes = SCHEMA_1

    def __len__(self) -> int:
        return len(self.dataset)

    @cached_property
    def labels(self) -> np.ndarray:
        """int64 (N,): indices into `classes`."""
        return np.asarray(self.dataset["label"][:], dtype=np.int64)

    @cached_property
    def groups(self) -> np.ndarray:
        """str (N,): slices of one group belong to one person or scan, as far as is known."""
        return self._text("group")

    @cached_property
    def ids(self) -> np.ndarray:
        """str (N,)."""
        return self._text("id")

    @cached_property
    def sha256(self) -> np.ndarray:
        """str (N,): hexadecimal digests of the encoded files."""
        return self._text("sha256")

    @cached_property
    def given_splits(self) -> np.ndarray:
        """str (N,): the split that the data themselves name, or ""."""
        return self._text("given_split")

    def counts(self) -> dict[str, int]:
        """Slices per class."""
        return {label: int(np.sum(self.labels == i)) for i, label in enumerate(self.classes)}

    def fingerprint(self) -> str:
        """sha256 over the sorted lines "SHA256 LABEL": names and order do not matter, one changed byte does."""
        return fingerprint(self.sha256, self.labels, self.classes)

    def read(self, i: int) -> Image.Image:
        """Slice `i` as an RGB picture.

        Raises:
            LungCTError: the file has gone or was damaged since the cohort was loaded.
        """
        encoded = self._encoded[int(i)]["image"]
        try:
            return read_slice(encoded["path"] if encoded["bytes"] is None else io.BytesIO(encoded["bytes"]))
        except BadSliceError as error:
            raise LungCTError(f'"{self.ids[i]}" has changed since the data were loaded: {error}.') from error

    @cached_property
    def _encoded(self) -> datasets.Dataset:
        import datasets

        return self.dataset.select_columns(["image"]).cast_column("image", datasets.Image(decode=False))

    def _text(self, column: str) -> np.ndarray:
        return np.asarray(self.dataset[column][:], dtype=np.str_)
