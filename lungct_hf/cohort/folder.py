"""List a folder or archive of files: class folders, split and class folders, or files whose labels a table tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from posixpath import join
from typing import Any, Literal

from ..classes import spelling
from ..errors import LungCTError
from ..known_sets import known_classes, known_sets
from ..slices.kind import VOLUME_SUFFIXES
from ..slices.listing import natural_key
from ..slices.read import IMAGE_SUFFIXES
from .label_table import LabelTable, read_tables
from .listing import BadFile, Entry, Listing
from .names import PATIENT_COLUMNS, canonical_split, find_column, find_group_column, first_few
from .tree import Tree

LAYOUTS = (
    "one folder per class, or train/ and test/ folders that hold such folders, or a metadata.csv with the columns "
    "file_name and label, or for DICOM files a labels.csv with SeriesInstanceUID (or PatientID, ...) and label"
)

UNLABELLED = "everything"  # what all slices are called where nothing labels them


@dataclass(frozen=True)
class Wanted:
    """What the call asks for: the group column, the table of --labels, and whether only listed slices count.

    `unlabelled` is whether slices without a label will do: "refuse", "accept" where nothing labels any, or "all",
    whose labels do not matter.
    """

    group_column: str | None = None
    labels: LabelTable | None = None
    only_listed: bool = False
    unlabelled: Literal["refuse", "accept", "all"] = "refuse"


def list_tree(tree: Tree, source: str, wanted: Wanted, kind: str = "folder") -> Listing:
    """List the slices of `tree` in one of the `LAYOUTS`, which may be wrapped in folders that hold nothing else.

    Folders beside the class folders are refused when they hold slices and ignored when they do not (notes). Files that
    only describe others (tables, notes) are passed over; other files that are no slices turn out to be bad later.

    Raises:
        LungCTError: the layout is none of those, a class folder is empty, or the table contradicts the folders.
    """
    root = _unwrapped(tree, wanted)
    split_of = {
        join(root, name): split
        for name in tree.subfolders(root)
        if (split := canonical_split(name)) and tree.holds_slices(join(root, name))
    }
    sections = (list(split_of) if wanted.unlabelled != "all" else []) or [root]
    table = wanted.labels or read_tables(tree, [root, *split_of])
    folders = {section: _class_folders(tree, section) for section in sections}
    listing = Listing(kind, source, [], {}, table, _group_column(table, wanted, source), list(tree.bad))
    if root:
        listing.notes.append(f'read the folder "{root}" inside it')
    if split_of and wanted.unlabelled != "all":
        _check_strays(tree, root, [name.rsplit("/", 1)[-1] for name in split_of], between_splits=True)
    by_folder = _folders_are_classes(folders, table)
    has_none = not table.label_column and not any(folders.values())
    is_bare = wanted.unlabelled == "all" or (wanted.unlabelled == "accept" and has_none)
    for section in sections:
        if is_bare:
            found = [path for path in tree.below(section) if tree.is_slice(path)]
            listing.entries += [Entry(path, tree.files[path], label=UNLABELLED) for path in found]
        elif by_folder and folders[section]:
            _check_strays(tree, section, folders[section])
            _add_classes(tree, section, folders[section], table, listing)
        elif table.label_column and not table.headers:
            _add_listed(tree, section, table, wanted, listing)
        elif table.label_column:
            listing.entries += [Entry(path, tree.files[path]) for path in tree.below(section) if tree.is_slice(path)]
        else:
            raise _no_layout(tree, section, source, table)
    for entry in listing.entries:
        section = next(name for name in sections if not name or entry.id.startswith(f"{name}/"))
        entry.name = entry.id.removeprefix(f"{section}/") if section else entry.id
        entry.group = table.get(entry.id, listing.group_column)
        entry.split = split_of.get(section) or canonical_split(table.get(entry.id, table.split_column)) or ""
        # Whatever the wrapping is called, it is no part of a slice's name.
        entry.id = entry.id.removeprefix(f"{root}/") if root else entry.id
    known = {join(root, entry.id) for entry in listing.entries} | {entry.id for entry in listing.bad}
    listing.bad += [
        BadFile(name, "it is listed in the metadata but not there")
        for name in table.files
        if name not in known and name.rpartition("#")[0] not in known
    ]
    listing.entries.sort(key=lambda entry: natural_key(entry.id))
    if is_bare:
        if not listing.entries:
            raise _no_layout(tree, root, source, table)
        listing.names = {"": [UNLABELLED]}
    elif not by_folder:
        listing.names = _names_in_table(listing, table)
    elif any(folders.values()):
        listing.names = {split_of.get(section, ""): names for section, names in folders.items()}
    return listing


def _unwrapped(tree: Tree, wanted: Wanted) -> str:
    """The folder that holds the classes or splits: downloads often come wrapped in one or two folders more."""
    root = ""
    while wanted.labels is None and not any(name.rpartition("/")[0] == root for name in tree.tables):
        inside = [name for name in tree.subfolders(root) if tree.holds_slices(join(root, name))]
        if len(inside) != 1 or canonical_split(inside[0]) or is_known(inside[0]) or tree.loose(root):
            break
        deeper = join(root, inside[0])
        if not any(tree.holds_slices(join(deeper, name)) for name in tree.subfolders(deeper)):
            break
        root = deeper
    return root


def is_known(name: str) -> bool:
    """Whether a known set has a class of this name."""
    return any(known.classes.find(name) for known in known_sets().values())


def _class_folders(tree: Tree, section: str) -> list[str]:
    return [name for name in tree.subfolders(section) if tree.holds_slices(join(section, name))]


def _folders_are_classes(folders: Mapping[str, list[str]], table: LabelTable) -> bool:
    """Whether the folders are classes: where a table has labels, only if the folders are called like them."""
    names = {name for found in folders.values() for name in found}
    labels = table.labels()
    if not names or not table.label_column:
        return bool(names)
    return {spelling(name) for name in names} <= set(map(spelling, labels)) or known_classes(
        [*names, *labels]
    ) is not None


def _group_column(table: LabelTable, wanted: Wanted, source: str) -> str | None:
    where = table.shown or f'"{source}"'
    if wanted.group_column is not None or table.files:
        return find_group_column(table.columns, wanted.group_column, where)
    # A header names the patient; a table's series or study would only part what belongs together.
    return None if "patient" in table.headers else find_column(table.columns, (*PATIENT_COLUMNS, "group"))


def _add_classes(tree: Tree, section: str, folders: list[str], table: LabelTable, listing: Listing) -> None:
    for folder in folders:
        for path in tree.below(join(section, folder)):
            said = table.get(path, table.label_column)
            if said and spelling(said) != spelling(folder):
                both = known_classes([said, folder])
                # Two names of a known set that mean one class make no set of two.
                if both is not None or not _mean_the_same(said, folder):
                    raise LungCTError(
                        f'{_named([path])} lies in the folder "{folder}", but {table.shown} calls it {said}. Fix: '
                        f"correct one of them."
                    )
            listing.entries.append(Entry(path, tree.files[path], label=folder))
    for name in tree.subfolders(section):
        if name not in folders and is_known(name) and known_classes([*folders, name]) is not None:
            raise LungCTError(
                f'The class folder "{join(section, name)}" holds no slices. Fix: fill it, or remove it to do without.'
            )


def _mean_the_same(one: str, other: str) -> bool:
    sets = known_sets().values()
    return any((found := known.classes.find(one)) and found == known.classes.find(other) for known in sets)


def _add_listed(tree: Tree, section: str, table: LabelTable, wanted: Wanted, listing: Listing) -> None:
    """The files below `section` that a table lists by path, whole or slice by slice ("PATH#FRAME")."""
    inside = [name for name in table.files if not section or name.startswith(f"{section}/")]
    entries: dict[str, Entry] = {}
    for name in inside:
        label = table.get(name, table.label_column)
        path, _, number = name.rpartition("#")
        if name in tree.files:
            entries.setdefault(name, Entry(name, tree.files[name])).label = label
        elif path in tree.files and number.isdecimal():
            entries.setdefault(path, Entry(path, tree.files[path])).frames[int(number)] = label
        else:
            continue
        if not label:
            listing.bad.append(BadFile(name, "it has no label"))
            entries.pop(name, None)
    unlisted = [name for name in tree.below(section) if name not in table.files and name not in entries]
    unlisted = [name for name in unlisted if tree.is_slice(name)]
    if unlisted and wanted.only_listed:
        listing.left_out["not listed in the table"] += len(unlisted)
    elif unlisted:
        raise LungCTError(
            f"{len(unlisted)} images have no row in {table.shown}: {_named(unlisted)}. Fix: add rows for them, "
            f"move them away, or leave them out with --slices listed."
        )
    listing.entries += entries.values()


def _names_in_table(listing: Listing, table: LabelTable) -> dict[str, list[str]]:
    """The labels by split, of the files that are there; of rows about headers, all of them."""
    names: dict[str, list[str]] = {}
    for entry in listing.entries:
        labels = [entry.label, *entry.frames.values()]
        names.setdefault(entry.split, []).extend(label for label in labels if label)
    rows: list[Mapping[str, Any]] = [row for found in table.headers.values() for row in found.values()]
    for row in rows:
        split = canonical_split(table.cell(row, table.split_column)) or ""
        if label := table.cell(row, table.label_column):
            names.setdefault(split, []).append(label)
    return {split: list(dict.fromkeys(found)) for split, found in names.items()}


def _check_strays(tree: Tree, section: str, folders: list[str], *, between_splits: bool = False) -> None:
    """Raise if slices lie beside the folders that are read: nobody said what they are."""
    for folder in tree.subfolders(section):
        if folder in folders or not tree.holds_slices(join(section, folder)):
            continue
        inside = tree.below(join(section, folder))
        raise LungCTError(
            f"Both split folders ({first_few(folders)}) and another folder with slices, {_named(inside, [folder])}, "
            f"lie side by side. Fix: keep one of the two layouts, or move it away."
        )
    if loose := tree.loose(section):
        kind = "split" if between_splits else "class"
        raise LungCTError(
            f"{len(loose)} images lie outside the {kind} folders {first_few(folders)}: {_named(loose)}. Fix: "
            f"move them into the folder of their class, or away."
        )


def _named(paths: list[str], shown: list[str] | None = None) -> str:
    """Some of `paths` (or `shown` for them) for an error. Paths to DICOM files may name patients and are not shown."""
    if all(path.lower().endswith((*IMAGE_SUFFIXES, *VOLUME_SUFFIXES)) for path in paths):
        return first_few([f'"{name}"' for name in shown or paths], 5)
    return "files whose names may tell of patients"


def _no_layout(tree: Tree, section: str, source: str, table: LabelTable) -> LungCTError:
    shown = f'"{join(source, section) if section else source}"'
    found = [name for name in tree.below(section) if tree.is_slice(name)]
    if table.tables and not table.label_column:
        return LungCTError(
            f"{table.shown} has no label column (it has: {', '.join(table.columns)}) and there are no class folders. "
            f"Fix: add a column label with the name of each slice's class."
        )
    if not found:
        bad = f" ({first_few([f'{bad.id}: {bad.reason}' for bad in tree.bad], 3)})" if tree.bad else ""
        return LungCTError(f"{shown} holds no images, volumes or parquet files{bad}. Needed: {LAYOUTS}.")
    return LungCTError(
        f"{shown} has no class folders and no table of labels: it holds {len(found)} files. Needed: {LAYOUTS}."
    )
