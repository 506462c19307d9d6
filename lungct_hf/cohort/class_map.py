"""Which classes the names in the data mean: as they stand, as a known data set has them, or as --classes says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..classes import HELP, Classes, spelling
from ..errors import LungCTError, UsageError
from ..known_sets import known_classes, set_of_folders
from ..slices.listing import natural_key
from .names import first_few

_EXAMPLE = '--classes "healthy; grade 1, grade 2 -> cancer+"'


@dataclass(frozen=True)
class ClassMap:
    """The classes, the class that each name in the data means, and what a reader should be told of it."""

    classes: Classes
    of: dict[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Wanted:
    """One class that --classes asks for, the names that it takes in, and whether all of these must be there."""

    name: str
    members: tuple[str, ...]
    positive: bool
    strict: bool


def resolve_classes(
    found: Mapping[str, Iterable[str]], asked: str | Classes | None, where: str, *, numbers: str = ""
) -> ClassMap:
    """Map the names in the data to classes.

    Args:
        found: the names by the data's own split ("" where there is none), as folders or a label column write them.
        asked: what --classes says; or the classes of a model, of which the data may then lack some.
        where: what the data are called in errors.
        numbers: what to do about plain numbers, for the error about them.

    Without `asked`, names that a known set has are its classes, in its order; any others are classes of their own, in
    natural order, and nothing counts as disease. Of two names in different splits, one of which begins with the other
    ("grade 1", "grade 1_left.lobe"), the shorter is the class.

    Raises:
        UsageError: `asked` does not say what to do with a name, or names something that is not there.
        LungCTError: the names are no 2 to 100 classes, or say the same in two spellings.
    """
    names = sorted({name for section in found.values() for name in section}, key=natural_key)
    if isinstance(asked, Classes):
        return _of_model(names, asked, where)
    known = known_classes(names) if len(names) > 1 else None
    base = {name: (known.find(name) if known else None) or name for name in names}
    notes: list[str] = []
    if known is None:
        one = set_of_folders(names)
        base |= {name: one.classes.find(name) or name for name in names} if one else {}
        stray = [name for name in names if one and one.classes.find(name) is None]
        if one and stray and asked is None:
            known_names = ", ".join(one.classes)
            raise LungCTError(
                f"Unknown folder or label {first_few([_quoted(name) for name in stray])} in {where}: the others are "
                f"those of {one.title} ({known_names}). Fix: rename it or move it away, or say what the classes are "
                f"with --classes."
            )
        longer = _shorter_names(found, base)
        notes = [f'"{name}" is read as "{short}", its name in another split' for name, short in longer.items()]
        base |= longer
    if asked is not None:
        return _as_asked(names, base, known, _parse(asked), where, notes)
    classes = known.names if known else tuple(sorted(set(base.values()), key=natural_key))
    if len(classes) < 2:
        raise LungCTError(
            f"{where} has only one class ({first_few(list(classes)) or 'none'}); a model tells two or more apart. "
            f"Fix: add slices of another class; where folders are patients or scans, a table of labels (--labels)."
        )
    if known is None:
        _check_spellings(names, base, where)
        if all(re.fullmatch(r"[-+]?[0-9.]+", name) for name in classes):
            raise LungCTError(
                f"{where} holds plain numbers without names for its classes ({first_few(list(classes))}), so their "
                f'meaning is unknown. Fix: {numbers}name them with --classes, for example --classes "{classes[0]} -> '
                f'healthy; {classes[1]} -> cancer+".'
            )
    made = known or Classes(classes)
    return ClassMap(Classes(made.names, made.positive, _aliases(base)), base, tuple(notes))


def _of_model(names: list[str], classes: Classes, where: str) -> ClassMap:
    of = {name: classes.find(name) for name in names}
    known = known_classes(names)
    of |= {name: classes.find(known.find(name) or "") for name in names if known and of[name] is None}
    unknown = [name for name, label in of.items() if label is None]
    if unknown:
        raise LungCTError(
            f"{where} has classes that are not among {', '.join(classes)}: {first_few(unknown)}. Fix: say which of "
            f'them each is, for example --classes "{unknown[0]} -> {classes[0]}".'
        )
    return ClassMap(classes, {name: str(label) for name, label in of.items()})


def _quoted(name: str) -> str:
    return f'"{name}"'


def _aliases(of: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, label) for name, label in of.items() if spelling(name) != spelling(label))


def _shorter_names(found: Mapping[str, Iterable[str]], base: Mapping[str, str]) -> dict[str, str]:
    """{name: the shorter one of another split}. Side by side in one split, two names are two classes."""
    sections = [set(section) for section in found.values()]
    out = {}
    for name in base:
        shorter = [
            other
            for other in base
            if name.startswith(other) and name[len(other) :][:1] in ("_", "-", " ", ".") and name != other
            if not any(name in section and other in section for section in sections)
        ]
        if shorter:
            out[name] = min(shorter, key=len)
    return out


def _check_spellings(names: list[str], base: Mapping[str, str], where: str) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(spelling(base[name]), base[name])
        if other != base[name]:
            raise LungCTError(
                f'{where} writes one class in two ways, "{other}" and "{base[name]}". Fix: write them alike, or name '
                f"the classes with --classes (there spelling does not matter)."
            )


def _as_asked(
    names: list[str],
    base: Mapping[str, str],
    known: Classes | None,
    wanted: list[_Wanted],
    where: str,
    notes: list[str],
) -> ClassMap:
    of: dict[str, str] = {}
    for item in wanted:
        taken: list[str] = []
        for member in item.members:
            matched = _matching(member, names, base)
            if not matched and item.strict:
                raise UsageError(f'--classes names "{member}", and {where} has only {first_few(names)}.')
            taken += [name for name in matched if name not in taken]
        if not taken:
            raise UsageError(f'--classes names "{item.name}", and {where} has only {first_few(names)}.')
        for name in taken:
            if of.setdefault(name, item.name) != item.name:
                raise UsageError(f'--classes puts "{name}" into both "{of[name]}" and "{item.name}". Fix: keep one.')
    if left := [name for name in names if name not in of]:
        raise UsageError(
            f"--classes leaves out {first_few([_quoted(name) for name in left])} of {where}. Fix: name every class, "
            f"for example {_EXAMPLE}."
        )
    positive = tuple(item.name for item in wanted if item.positive)
    if not positive and known:
        # Nobody said which are disease: a class of nothing but what is known as disease still is.
        members = {item.name: {base[name] for name in names if of[name] == item.name} for item in wanted}
        positive = tuple(name for name, inside in members.items() if inside <= set(known.positive))
        positive = positive if len(positive) < len(wanted) else ()
    classes = Classes(tuple(item.name for item in wanted), positive, _aliases(of))
    return ClassMap(classes, of, tuple(notes))


def _matching(member: str, names: list[str], base: Mapping[str, str]) -> list[str]:
    """The names that --classes means by a word: written alike, or the only class that begins with these words."""
    exact = [name for name in names if spelling(member) in (spelling(name), spelling(base[name]))]
    if exact:
        return exact
    begins = {base[name] for name in names if spelling(base[name]).startswith(f"{spelling(member)} ")}
    if len(begins) > 1:
        raise UsageError(f'--classes names "{member}", which may be {" or ".join(sorted(begins))}. Fix: say which.')
    return [name for name in names if base[name] in begins]


def _parse(text: str) -> list[_Wanted]:
    """What --classes asks for, from a YAML file or from text."""
    path = Path(text).expanduser()
    wanted = _from_yaml(path) if path.suffix.lower() in (".yaml", ".yml") else _from_text(text)
    names = [item.name for item in wanted]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f'--classes names "{twice[0]}" twice. Fix: one entry for each class, for example {_EXAMPLE}.')
    return wanted


def _from_text(text: str) -> list[_Wanted]:
    wanted = []
    for clause in filter(str.strip, text.split(";")):
        left, arrow, right = clause.partition("->")
        members = [part.strip() for part in left.split(",")]
        if arrow:
            name, positive = _marked(right.strip())
            wanted.append(_Wanted(name, tuple(members), positive, strict=True))
        else:
            marked = [_marked(part) for part in members]
            wanted += [_Wanted(name, (name,), positive, strict=True) for name, positive in marked]
    for item in wanted:
        if not all((item.name, *item.members)):
            raise UsageError(f'--classes "{text}" has an empty place. Needed: {HELP}, for example {_EXAMPLE}.')
    if not wanted:
        raise UsageError(f"--classes is empty. Needed: {HELP}, for example {_EXAMPLE}.")
    return wanted


def _marked(text: str) -> tuple[str, bool]:
    return text.removesuffix("+").strip(), text.endswith("+")


def _from_yaml(path: Path) -> list[_Wanted]:
    import yaml

    needed = "classes: (a list, or a mapping of names to lists of other spellings) and perhaps positive: (a list)"
    try:
        record: Any = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)  # a class may be called no or 1
    except FileNotFoundError as error:
        raise UsageError(f"--classes {path.name}: there is no such file.") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"--classes {path.name} cannot be read: {str(error).splitlines()[0]}.") from error
    if not isinstance(record, dict) or not set(record) <= {"classes", "positive"}:
        raise UsageError(f"--classes {path.name} needs {needed}.")
    entries, positive = record.get("classes"), record.get("positive") or []
    if isinstance(entries, list):
        entries = dict.fromkeys(map(str, entries), "")
    if not isinstance(entries, dict) or not entries or not isinstance(positive, list):
        raise UsageError(f"--classes {path.name} needs {needed}.")
    marked = [str(name) for name in positive]
    if unknown := [name for name in marked if name not in map(str, entries)]:
        raise UsageError(f'--classes {path.name} marks "{unknown[0]}" positive, which is none of its classes.')
    wanted = []
    for name, others in entries.items():
        spelled = [others] if isinstance(others, str) and others else others or []
        if not isinstance(spelled, list) or not str(name).strip():
            raise UsageError(f"--classes {path.name} needs {needed}.")
        members = (str(name), *map(str, spelled))
        wanted.append(_Wanted(str(name).strip(), members, str(name) in marked, strict=False))
    return wanted
