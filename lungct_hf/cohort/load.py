"""Load a cohort: list its source, read every slice once to verify, hash and draw it, and find the groups."""

from __future__ import annotations

import hashlib
import threading
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..classes import Classes
from ..cores import usable_cores
from ..errors import LungCTError, UsageError, require
from ..known_sets import set_of_folders, set_of_source
from ..slices.frame import Frame, Unreadable
from ..slices.kind import HEAD, VOLUMES, sniff
from ..slices.limits import InputLimits
from ..slices.order import Item
from ..slices.preprocess import Preprocessing
from ..slices.report import InputReport
from ..slices.series import parse_positions, scan_order
from ..slices.window import LUNG_WINDOW, Window
from .class_map import ClassMap, resolve_classes
from .cohort import Cohort, Looks
from .folder import Wanted, is_known
from .identity import Identity, Masked, Pseudonyms, identity_or_none
from .label_table import LabelTable, read_labels_file
from .link import regroup
from .listing import BadFile, Entry, Listing, check_groups
from .names import canonical_split, first_few
from .outside import Outside
from .reader import SliceReader, files_of, frames_of
from .rule import Cuts, needs_backbone, parse_grouping
from .sources import list_source
from .tree import plain_reason

THUMBNAIL = 64  # pixels; what the nearest-neighbour baseline sees
_LINKING = 48
_MIN_SIDE = 16  # pixels; a smaller picture shows nothing
SQUARES_BYTES = 2 << 30  # letterboxed slices are kept in memory up to this size (14,000 slices at 224 px)


@dataclass(frozen=True)
class Seen:
    """What is kept of one slice: never its pixels. `of` are the entry's number, the file in it and the frame."""

    of: tuple[int, str, int]
    sha256: str
    report: InputReport
    several: bool  # whether its file gave more slices
    is_volume: bool  # of DICOM or NIfTI, or one of several in its file
    scan: str
    position: float | None
    number: int | None
    identity: Identity | None = field(repr=False)
    row: Mapping[str, Any] | None = field(repr=False)  # of a table that names it by its header
    thumbnail: np.ndarray = field(repr=False)  # uint8 (64, 64)
    small: np.ndarray = field(repr=False)  # uint8 (48, 48)
    pixels: str
    size: tuple[int, int]
    histogram: np.ndarray = field(repr=False)
    fine: np.ndarray = field(repr=False)
    square: np.ndarray | None = field(repr=False)


@dataclass
class _Found:
    """What one entry gave."""

    slices: list[Seen] = field(default_factory=list)
    bad: list[BadFile] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    identities: list[Identity] = field(default_factory=list, repr=False)


def load_cohort(
    data: str,
    *,
    classes: str | Classes | None = None,
    labels: str | None = None,
    slices: str = "all",
    window: Window | None = None,
    group_column: str | None = None,
    grouping: str | None = None,
    cuts: Cuts | None = None,
    on_bad_file: Literal["refuse", "skip"] = "refuse",
    group_key: Path | None = None,
    preprocessing: Preprocessing | None = None,
    outside: Outside | None = None,
    progress: bool = True,
) -> Cohort:
    """Read the data set that `data` names: a folder, a zip archive, parquet, or a Hub id (owner/name[@revision]).

    Pictures, DICOM files, multi-frame files and NIfTI volumes are read as prediction reads them. Every file is read
    once; memory grows by about 13 KB a slice, and with `preprocessing` by its squares, up to 2 GiB of them.

    Of DICOM and NIfTI sources, slices that the input check refuses are left out and counted (`Cohort.left_out`), for a
    scan has many that show no lung. A picture is somebody's choice: one that the check refuses is kept and counted in
    the notes, unless it has less than 16 pixels on a side, which makes it a bad file.

    Args:
        classes: what --classes says (see class_map.py), or the classes of a model, some of which may be absent.
        labels: a table of labels (.csv, .jsonl, .parquet) instead of class folders or the data's own table.
        slices: of volumes, "all", a range of positions from the feet up ("0.2-0.8"), or "listed": only what a table
            lists by file or SOP instance.
        window: turns HU into grey (default: the lung window); pictures keep their own.
        group_column, grouping: where groups come from: "linked", "similarity", "file-blocks:N", "column:NAME" (or the
            name of a column). By default the first recognised column (patient_id, case, ...), else the headers of
            DICOM files (PatientID, else StudyInstanceUID, else SeriesInstanceUID, as keyed hashes), else "linked".
        cuts: of the grouping rule.
        on_bad_file: with "skip", files that are no readable slices are left out, warned about and listed in
            `bad_files`.
        group_key: the file with the key of those hashes; made where it is needed and not there. Without it, the key is
            random and forgotten.
        preprocessing: keep the slices as this makes them for a network (`Cohort.squares`).
        outside: read the data as evidence about a model that was not made from them, in place of `classes`: nothing
            that the input check refuses is left out, the check holds slices to the model's own, and the classes are
            those that `outside` gives them.

    Raises:
        UsageError: `data` is none of these forms, or an argument means nothing.
        LungCTError: the data cannot be used as they are; the text says what came, what is needed and the fix.
    """
    if on_bad_file not in ("refuse", "skip"):
        raise UsageError(f'on_bad_file is "{on_bad_file}"; refuse or skip is needed.')
    between = parse_positions(slices)
    from_header = grouping is not None and grouping.startswith("header:")
    rule, column = parse_grouping(None if from_header else grouping, group_column)
    if rule and needs_backbone(rule):
        raise UsageError(f'The grouping "{rule}" needs features: load the data first, then use `regroup`.')
    table = None if labels is None else read_labels_file(Path(labels).expanduser())
    unlabelled = "refuse" if outside is None else outside.unlabelled
    listing = list_source(data, Wanted(column, table, slices == "listed", unlabelled))
    column = None if rule or from_header else listing.group_column
    where = f'"{listing.source}"'
    if slices == "listed" and not (listing.table and listing.table.lists_slices):
        raise UsageError(f"--slices listed needs a table with file_name or SOPInstanceUID, and {where} has none.")
    if not listing.names:
        raise LungCTError(f"{where} holds no slices with a label. Fix: fill in the labels.")
    _refuse_patients_as_classes(listing)
    if outside is None:
        mapped = resolve_classes(listing.names, classes, where, numbers=listing.numbers)
    else:
        classes, mapped = outside.classes, outside.resolve(listing.names, where)
    require_readers(listing)

    checked = None if outside is None else outside.limits
    found = _look_at_all(listing, window or LUNG_WINDOW, checked, preprocessing, progress)
    kept, left_out = _choose([seen for one in found for seen in one.slices], between, where, outside is not None)
    left_out.update(listing.left_out)
    for one in found:
        left_out.update(one.left_out)
    masked = Masked(identity for one in found for identity in one.identities)
    bad = [*listing.bad, *(entry for one in found for entry in one.bad)]
    bad = [BadFile(masked.path(entry.id), entry.reason) for entry in bad]
    if masked.tells(listing.source):
        where, listing.source = "The data", "dicom"
    listing.notes = ["read a folder inside it" if masked.tells(note) else note for note in listing.notes]
    bad += [BadFile(listing.entries[seen.of[0]].id, why) for seen in kept if (why := _too_small(seen))]
    kept = [seen for seen in kept if not _too_small(seen)]
    _refuse_or_warn(bad, len(listing.entries), where, on_bad_file)

    pseudonyms = Pseudonyms(group_key)
    names = [_label(listing, seen) for seen in kept]
    numbers = np.asarray([mapped.classes.index(mapped.of[name]) for name in names], dtype=np.int64)
    _check_counts(numbers, mapped, classes, where, bad, left_out)
    ids = _ids(listing, kept, pseudonyms)
    splits = [_split(listing, seen) for seen in kept]
    if preprocessing is None or any(seen.square is None for seen in kept):
        squares = None
    else:
        squares = tuple(seen.square for seen in kept if seen.square is not None)
    cohort = Cohort(
        kind=listing.kind,
        source=listing.source,
        classes=mapped.classes,
        labels=numbers,
        ids=np.asarray(ids, dtype=np.str_),
        sha256=np.asarray([seen.sha256 for seen in kept], dtype=np.str_),
        groups=np.full(len(kept), ""),
        given_splits=np.asarray(splits, dtype=np.str_),
        grouping="",
        rule="",
        window=window or LUNG_WINDOW,
        reader=SliceReader(listing.entries, [seen.of for seen in kept], window or LUNG_WINDOW),
        thumbnails=np.stack([seen.thumbnail for seen in kept]),
        thumbs48=np.stack([seen.small for seen in kept]),
        looks=Looks(
            np.asarray([seen.pixels for seen in kept], dtype=np.str_),
            np.asarray([seen.size for seen in kept], dtype=np.int64),
            np.stack([seen.histogram for seen in kept]),
            np.stack([seen.fine for seen in kept]),
        ),
        names=tuple("" if seen.is_volume else listing.entries[seen.of[0]].name for seen in kept),
        scans=_numbered([seen.scan for seen in kept]),
        reasons=(),
        reports=tuple(seen.report for seen in kept),
        squares=squares,
        preprocessing=preprocessing if squares else None,
        left_out=dict(left_out.most_common()),
        bad_files=tuple(bad),
        notes=(*listing.notes, *mapped.notes),
        known_set=set_of_folders(mapped.of) or set_of_source(listing.source),
        class_map=mapped.of,
    )
    cohort = _grouped(cohort, listing, kept, pseudonyms, rule, column, cuts, from_header, progress)
    return replace(cohort, notes=(*cohort.notes, *notes_on(cohort)))


def require_readers(listing: Listing) -> None:
    """Raise before hours of reading where NIfTI files are listed and nibabel is missing."""
    if any(entry.id.lower().endswith((".nii", ".nii.gz")) for entry in listing.entries):
        require("nibabel", "nifti")


def _look_at_all(
    listing: Listing,
    window: Window,
    limits: InputLimits | None,
    preprocessing: Preprocessing | None,
    progress: bool,
) -> list[_Found]:
    """What each entry gives. Threads: decoding releases the GIL."""
    budget = _Budget(preprocessing)
    total = len(listing.entries)
    pool = ThreadPoolExecutor(max_workers=min(8, usable_cores()))
    try:
        looks = pool.map(lambda i: _look(i, listing.entries[i], listing.table, window, limits, budget), range(total))
        return list(tqdm(looks, total=total, desc="Reading slices", unit="file", delay=2, disable=not progress))
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for all the rest


class _Budget:
    """Makes squares as long as all of them fit into memory."""

    def __init__(self, preprocessing: Preprocessing | None) -> None:
        self._preprocessing, self._left, self._lock = preprocessing, SQUARES_BYTES, threading.Lock()

    def square(self, frame: Frame) -> np.ndarray | None:
        if self._preprocessing is None:
            return None
        with self._lock:
            self._left -= 3 * self._preprocessing.size**2
            if self._left < 0:
                return None
        return np.asarray(self._preprocessing.letterbox(frame.image))


def _look(
    number: int,
    entry: Entry,
    table: LabelTable | None,
    window: Window,
    limits: InputLimits | None,
    budget: _Budget,
) -> _Found:
    found = _Found()
    for item in files_of(entry):
        if isinstance(item, Unreadable):
            found.bad.append(BadFile(item.file, plain_reason(item.detail)))
            continue
        try:
            _look_at_file(number, entry, item, table, window, limits, budget, found)
        except (OSError, LungCTError) as error:
            found.bad.append(BadFile(item.file, plain_reason(str(error))))
    return found


def _look_at_file(
    number: int,
    entry: Entry,
    item: Item,
    table: LabelTable | None,
    window: Window,
    limits: InputLimits | None,
    budget: _Budget,
    found: _Found,
) -> None:
    with item.open() as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()  # type: ignore[arg-type]  # BinaryIO has readinto
        handle.seek(0)
        head = handle.read(HEAD)
        handle.seek(0)
        identity = identity_or_none(handle) if sniff(head) == "dicom" else None
        if identity is not None:
            found.identities.append(identity)
        row = table.find(identity) if table is not None and table.headers else None
        if entry.label is None and not entry.frames and not (table and table.cell(row, table.label_column)):
            found.left_out["without a label in the table"] += 1
            return
        slices: list[Seen] = []
        for frame in frames_of(item, handle, window, nested=item.file != entry.id, limits=limits):
            if isinstance(frame, Unreadable):
                found.bad.append(BadFile(frame.file, plain_reason(frame.detail)))
            else:
                slices.append(_see(number, frame, digest, identity, row, budget))
    for seen in slices:
        if len(slices) > 1:
            content = hashlib.sha256(f"{digest}#{seen.of[2]}".encode()).hexdigest()
            scan = seen.scan or f"{number}\0{item.file}"
            seen = replace(seen, sha256=content, several=True, is_volume=True, scan=scan)
        if entry.frames and seen.of[2] not in entry.frames and not entry.label:
            found.left_out["not listed in the table"] += 1
        else:
            found.slices.append(seen)


def _see(
    number: int,
    frame: Frame,
    digest: str,
    identity: Identity | None,
    row: Mapping[str, Any] | None,
    budget: _Budget,
) -> Seen:
    grey, picture = frame.pixels.convert("L"), frame.image
    box, lanczos = Image.Resampling.BOX, Image.Resampling.LANCZOS
    kind = frame.report.facts.get("kind")
    return Seen(
        of=(number, frame.file, frame.frame),
        sha256=digest,
        report=frame.report,
        several=False,
        is_volume=kind in ("dicom", *VOLUMES),
        scan=(identity.series if identity else "") or (f"{number}\0{frame.file}" if kind in VOLUMES else ""),
        position=frame.position,
        number=identity.number if identity else None,
        identity=identity,
        row=row,
        # BOX is the plain mean of the pixels under each thumbnail pixel; wider filters blur people into each other.
        thumbnail=np.asarray(grey.resize((THUMBNAIL, THUMBNAIL), box)),
        small=np.asarray(grey.resize((_LINKING, _LINKING), box)),
        pixels=hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).hexdigest(),
        size=picture.size,
        histogram=np.asarray(grey.histogram(), dtype=np.uint32),
        fine=np.asarray(grey.resize((THUMBNAIL, THUMBNAIL), lanczos)),
        square=budget.square(frame),
    )


def _choose(
    found: list[Seen], between: tuple[float, float] | None, where: str, keep_refused: bool
) -> tuple[list[Seen], Counter[str]]:
    """The slices that take part, and how many do not by reason: first the range of positions, then the input check."""
    left_out: Counter[str] = Counter()
    inside = [True] * len(found)
    if between is not None:
        scans: dict[str, list[int]] = {}
        for i, seen in enumerate(found):
            if seen.scan:
                scans.setdefault(seen.scan, []).append(i)
        if not scans:
            raise UsageError(f"--slices names a range of positions, and {where} holds single pictures. Fix: leave it.")
        for rows in scans.values():
            order = scan_order([found[i].position for i in rows], [found[i].number for i in rows])
            rows[:] = [rows[place] for place in order]
            for place, i in enumerate(rows):
                inside[i] = between[0] <= (place + 0.5) / len(rows) <= between[1]
    kept = []
    for seen, is_inside in zip(found, inside, strict=True):
        if not is_inside:
            left_out["outside the range of positions"] += 1
        elif seen.is_volume and seen.report.reason and not keep_refused:
            left_out[seen.report.reason] += 1
        else:
            kept.append(seen)
    return kept, left_out


def _too_small(seen: Seen) -> str:
    width, height = seen.size
    if min(width, height) >= _MIN_SIDE:
        return ""
    return f"it is too small ({width} x {height}, at least {_MIN_SIDE} x {_MIN_SIDE} needed)"


def _label(listing: Listing, seen: Seen) -> str:
    entry, table = listing.entries[seen.of[0]], listing.table
    label = entry.frames.get(seen.of[2], entry.label)
    return label or (table.cell(seen.row, table.label_column) if table else "")


def _split(listing: Listing, seen: Seen) -> str:
    split, table = listing.entries[seen.of[0]].split, listing.table
    return split or (canonical_split(table.cell(seen.row, table.split_column)) or "" if table else "")


def _group(listing: Listing, seen: Seen) -> str:
    group, table = listing.entries[seen.of[0]].group, listing.table
    return group or (table.cell(seen.row, listing.group_column) if table else "")


def _ids(listing: Listing, kept: list[Seen], pseudonyms: Pseudonyms) -> list[str]:
    """Unique names that stay the same as long as the files do (and for DICOM the key of the pseudonyms)."""
    ids, taken = [], Counter[str]()
    for seen in kept:
        entry, name = listing.entries[seen.of[0]], seen.of[1]
        if seen.identity is not None:
            label = entry.label or ""
            place = label if label and f"{label}/" in entry.id else ""
            scan, file = pseudonyms("series", seen.identity.series), pseudonyms("file", seen.identity.sop or name)
            name = "/".join(filter(None, (entry.split, place, f"dicom-{scan[:8]}", file[:12])))
        name = f"{name}#{seen.of[2]}" if seen.several else name
        taken[name] += 1
        ids.append(name if taken[name] == 1 else f"{name} ({taken[name]})")
    return ids


def _refuse_patients_as_classes(listing: Listing) -> None:
    """A folder for each patient is none for each class, and its name must not become one, nor stand in an error."""
    first = {entry.label: entry for entry in reversed(listing.entries) if entry.label}
    for name, entry in first.items():
        is_folder = f"{name}/" in entry.id and not is_known(str(name))
        if is_folder and any(identity.is_named_by(str(name)) for identity in _headers(entry)):
            raise LungCTError(
                "The folders are named after patients, not after classes. Fix: add a labels.csv with the columns "
                "PatientID (or SeriesInstanceUID, ...) and label to the data folder, or name one with --labels."
            )


def _headers(entry: Entry) -> list[Identity]:
    found = []
    for item in files_of(entry):
        if isinstance(item, Item):
            with suppress(OSError, LungCTError), item.open() as handle:
                kind = sniff(handle.read(HEAD))
                handle.seek(0)
                found.append(identity_or_none(handle) if kind == "dicom" else None)
        if found:
            break
    return [identity for identity in found if identity is not None]


def _refuse_or_warn(bad: list[BadFile], files: int, where: str, on_bad_file: str) -> None:
    if not bad:
        return
    lines = first_few([f'"{entry.id}": {entry.reason}' for entry in bad]).replace(', "', '; "')
    text = f"{len(bad)} bad files among the {files} images of {where}: {lines}."
    if on_bad_file == "refuse":
        raise LungCTError(f"{text} Fix: repair them or move them away, or leave them out with --on-bad-file skip.")
    warnings.warn(f"Left out {text}", stacklevel=3)


def _check_counts(
    numbers: np.ndarray,
    mapped: ClassMap,
    asked: str | Classes | None,
    where: str,
    bad: list[BadFile],
    left_out: Mapping[str, int],
) -> None:
    """Raise unless there are slices of every class (of a model's classes: of any)."""
    found = [name for i, name in enumerate(mapped.classes) if np.any(numbers == i)]
    missing = [name for name in mapped.classes if name not in found]
    if not missing or (isinstance(asked, Classes) and found):
        return
    told = [f"{count} {reason}" for reason, count in left_out.items()] + ([f"{len(bad)} bad files"] if bad else [])
    without = f" Left out were: {', '.join(told)}." if told else ""
    raise LungCTError(
        f"{where} has no {' and no '.join(missing)} slices that can be used; classes found: "
        f"{first_few(found) or 'none'}.{without} Fix: add slices of the missing class, or do without it."
    )


def _grouped(
    cohort: Cohort,
    listing: Listing,
    kept: list[Seen],
    pseudonyms: Pseudonyms,
    rule: str | None,
    column: str | None,
    cuts: Cuts | None,
    from_header: bool,
    progress: bool,
) -> Cohort:
    """`cohort` with its groups."""
    headers = [seen.identity.group if seen.identity else ("", "") for seen in kept]
    has_headers = any(kind for kind, _ in headers)
    if column is not None:
        groups = [_group(listing, seen) for seen in kept]
        check_groups(cohort.ids.tolist(), groups, column)
        if has_headers:  # a column beside headers holds what these hold
            groups = [pseudonyms("patient", group) for group in groups]
        reasons = [f"column {column}"] * len(groups)
        return replace(cohort, groups=np.asarray(groups, np.str_), grouping=f"column:{column}", reasons=tuple(reasons))
    if rule is None and all(kind for kind, _ in headers):
        kinds = dict.fromkeys(kind for kind, _ in headers)
        groups = [pseudonyms(kind, value) for kind, value in headers]
        name = f"header:{'+'.join(kind for kind in ('patient', 'study', 'series') if kind in kinds)}"
        reasons = [f"header {kind}" for kind, _ in headers]
        return replace(cohort, groups=np.asarray(groups, np.str_), grouping=name, reasons=tuple(reasons))
    if from_header:
        raise LungCTError("The groups were to come from headers, and not all slices have one that names a patient.")
    # Slices of one scan stay together whatever they look like, and so do scans of one patient.
    together = zip(headers, cohort.scans, strict=True)
    scans = _numbered(["\0".join(header) if header[0] else scan for header, scan in together])
    return regroup(replace(cohort, scans=scans), rule or "linked", cuts=cuts, progress=progress)


def _numbered(names: list[str]) -> tuple[str, ...]:
    """A number for each different name, "" for "": what names patients goes no further."""
    numbers = {name: str(number) for number, name in enumerate(dict.fromkeys(filter(None, names)), start=1)}
    return tuple(numbers.get(name, "") for name in names)


def notes_on(cohort: Cohort) -> list[str]:
    """What a reader of figures on this cohort should know, in whole sentences without a full stop."""
    notes = []
    for label, name in enumerate(cohort.classes):
        splits = set(cohort.given_splits[cohort.labels == label].tolist())
        if len(splits) == 1 and len(set(cohort.given_splits.tolist())) > 1:
            notes.append(f'the class "{name}" is only in the data\'s own split {splits.pop() or "without a name"}')
    refused = Counter(report.reason for report in cohort.reports if report.reason)
    if refused:
        told = ", ".join(f"{count} {reason}" for reason, count in refused.most_common())
        notes.append(
            f"the input check would refuse {sum(refused.values())} of {len(cohort)} slices ({told}); pictures are "
            f"kept all the same"
        )
    if cohort.left_out:
        told = ", ".join(f"{count} {reason}" for reason, count in cohort.left_out.items())
        notes.append(f"left out: {told}")
    from_hu = np.asarray([is_from_hu(report) for report in cohort.reports])
    if from_hu.any() and not from_hu.all():
        notes.append(
            f"{int(from_hu.sum())} slices come from HU and are shown in the window {cohort.window.center:g} / "
            f"{cohort.window.width:g}, {int((~from_hu).sum())} are pictures in a window of their own: a model may "
            f"tell them apart by that"
        )
    elif not from_hu.any() and (spread := window_spread(cohort.reports)):
        low, high = spread
        notes.append(
            f"the pictures are of plainly different windows (soft tissue at grey {low:.0f} in some, {high:.0f} in "
            f"others): a model may tell them apart by that"
        )
    if cohort.grouping.startswith("header:") and len(set(cohort.groups.tolist())) == 1:
        notes.append("all headers name one and the same patient, so there is one group and no grouped split")
    return notes


DIFFERENT_WINDOWS = 40  # grey levels between soft tissue of the 10th and the 90th percentile of pictures


def is_from_hu(report: InputReport) -> bool:
    """Whether a slice was windowed from HU here, and is no picture in a window of its own."""
    return report.facts.get("kind") in ("dicom", "nifti")


def window_spread(reports: Sequence[InputReport]) -> tuple[float, float] | None:
    """The grey of soft tissue at the 10th and 90th percentile of slices, where these are plainly different windows."""
    tissue = [report.facts["tissue_grey"] for report in reports if "tissue_grey" in report.facts]
    if len(tissue) < 10:
        return None
    low, high = np.percentile(tissue, [10, 90])
    return (float(low), float(high)) if high - low >= DIFFERENT_WINDOWS else None
