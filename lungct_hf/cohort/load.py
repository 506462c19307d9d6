"""Load a cohort: list its source, decode every slice once to verify it, hash it, and find the groups."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..errors import BadSliceError, LungCTError, UsageError, require
from ..labels import LABELS
from ..slices.read import read_slice
from .cohort import Cohort
from .link import find_links
from .listing import BadFile, Listing, Row, check_groups
from .names import check_classes, first_few
from .rule import Cuts, needs_backbone, parse_grouping
from .sources import list_source

if TYPE_CHECKING:
    import datasets

THUMBNAIL = 64  # pixels; what the nearest-neighbour baseline sees
_LINKING = 48


@dataclass(frozen=True)
class _Seen:
    """What is kept of a decoded slice: never its pixels."""

    sha256: str
    thumbnail: np.ndarray  # uint8 (64, 64)
    small: np.ndarray  # uint8 (48, 48)


def load_cohort(
    data: str,
    *,
    group_column: str | None = None,
    grouping: str | None = None,
    cuts: Cuts | None = None,
    on_bad_file: Literal["refuse", "skip"] = "refuse",
    progress: bool = True,
) -> Cohort:
    """Read the data set that `data` names: an image folder, parquet, or a Hub id (owner/name or owner/name@revision).

    Groups come from `grouping` ("linked", "similarity", "file-blocks:N", "column:NAME" or the name of a column) or
    `group_column`, else from the first recognised column (patient_id, case, ...), else they are "linked"; `cuts` are
    that rule's. Every file is decoded once; memory grows by about 20 KB per slice. With `on_bad_file="skip"` files
    that are no readable slices are left out, warned about and listed in `bad_files`.

    Raises:
        UsageError: `data` is none of these forms, or `grouping` means nothing.
        LungCTError: the data cannot be used as they are; the text says what came, what is needed and the fix.
    """
    require("datasets", "train")
    if on_bad_file not in ("refuse", "skip"):
        raise UsageError(f'on_bad_file is "{on_bad_file}"; refuse or skip is needed.')
    rule, wanted = parse_grouping(grouping, group_column)
    if rule and needs_backbone(rule):
        raise UsageError(f'The grouping "{rule}" needs features: load the data first, then use `regroup`.')
    listing = list_source(data, wanted)
    column = None if rule else listing.group_column
    where = f'"{listing.source}"'
    check_classes(_counts(listing.rows), where)
    seen = _look_at_all(listing, progress)
    bad = listing.bad + [
        BadFile(row.id, what) for row, what in zip(listing.rows, seen, strict=True) if isinstance(what, str)
    ]
    _refuse_or_warn(bad, len(listing.rows), where, on_bad_file)
    kept = [i for i, what in enumerate(seen) if isinstance(what, _Seen)]
    good = [what for what in seen if isinstance(what, _Seen)]
    rows = [listing.rows[i] for i in kept]
    check_classes(_counts(rows), f"Without its {len(bad)} bad files {where}")
    check_groups(rows, column)
    small, names = np.stack([what.small for what in good]), [row.name for row in rows]
    if column is None:
        rule, cuts, ids = rule or "linked", cuts or Cuts(), [row.id for row in rows]
        shas = [what.sha256 for what in good]
        links = find_links(
            rule, [row.label for row in rows], shas, small, names, ids=ids, cuts=cuts, progress=progress
        )
        groups, reasons, made = links.groups, links.reasons, cuts.text(rule)
    else:
        groups, rule, made = [row.group for row in rows], f"column:{column}", ""
        reasons = [f"column {column}"] * len(rows)
    return Cohort(
        dataset=_dataset(listing, kept, good, groups),
        kind=listing.kind,
        source=listing.source,
        grouping=rule,
        rule=made,
        thumbnails=np.stack([what.thumbnail for what in good]),
        thumbs48=small,
        names=tuple(names),
        reasons=tuple(reasons),
        bad_files=tuple(bad),
    )


def _look_at_all(listing: Listing, progress: bool) -> list[_Seen | str]:
    """For each row what was seen of it, or the reason why it is bad. Threads: decoding releases the GIL."""

    def look(i: int) -> _Seen | str:
        try:
            encoded = listing.read_bytes(i)
            grey = read_slice(encoded).convert("L")
        except BadSliceError as error:
            return str(error)
        # BOX is the plain mean of the pixels under each thumbnail pixel; wider filters blur people into each other.
        small, large = (np.asarray(grey.resize((side, side), Image.Resampling.BOX)) for side in (_LINKING, THUMBNAIL))
        return _Seen(hashlib.sha256(encoded).hexdigest(), large, small)

    total = len(listing.rows)
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        looks = pool.map(look, range(total))
        bar = tqdm(looks, total=total, desc="Reading slices", unit="slice", delay=2, disable=not progress)
        return list(bar)
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for all the rest


def _refuse_or_warn(bad: list[BadFile], rows: int, where: str, on_bad_file: str) -> None:
    if not bad:
        return
    lines = first_few([f'"{entry.id}": {entry.reason}' for entry in bad]).replace(', "', '; "')
    text = f"{len(bad)} bad files among the {rows} images of {where}: {lines}."
    if on_bad_file == "refuse":
        raise LungCTError(f"{text} Fix: repair them or move them away, or leave them out with --on-bad-file skip.")
    warnings.warn(f"Left out {text}", stacklevel=3)


def _dataset(listing: Listing, kept: list[int], good: list[_Seen], groups: list[str]) -> datasets.Dataset:
    """The columns of `Cohort.dataset`, row by row beside the pictures."""
    import datasets

    rows = [listing.rows[i] for i in kept]
    columns = {
        "label": [row.label for row in rows],
        "id": [row.id for row in rows],
        "sha256": [what.sha256 for what in good],
        "group": groups,
        "given_split": [row.split for row in rows],
    }
    text = datasets.Value("string")
    features = {name: text for name in columns} | {"label": datasets.ClassLabel(names=list(LABELS))}
    images = listing.images()
    if len(kept) < len(images):
        images = images.select(kept)
    described = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    return datasets.concatenate_datasets([images, described], axis=1)


def _counts(rows: list[Row]) -> dict[str, int]:
    return Counter(LABELS[row.label] for row in rows)
