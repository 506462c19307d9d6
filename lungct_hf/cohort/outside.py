"""What the classes of a data set from elsewhere are for a model: one of its own, disease or none of it, or nothing.

A YAML file says it, for a set whose names are not the model's:

    title: The other clinic       # what a card calls the set; default: its title in known_sets.toml, or its name
    classes:                      # each class as the set's folders or label column write it
      CT_healthy: negative
      Grade 3: tumour
      scout views: left out

or, where nothing labels the slices, `everything: negative` in place of `classes`. `patients: folders` says that each
folder with slices in it is one person's, where pictures have no header to say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..classes import Classes, spelling
from ..errors import UsageError
from ..known_sets import known_classes
from ..slices.limits import InputLimits
from ..slices.listing import natural_key
from .class_map import ClassMap
from .folder import UNLABELLED as EVERYTHING
from .names import first_few

NEGATIVE, POSITIVE, UNKNOWN, LEFT_OUT = "negative", "positive", "unknown", "left out"
# What a class can be besides a class of the model.
MEANINGS = {
    NEGATIVE: "no disease that the model is for, and none of its classes: any disease that it names is a false alarm",
    POSITIVE: "disease, and nobody said which of the model's classes",
    UNKNOWN: "nobody said, so its slices only count as refused, abstained from or answered",
    LEFT_OUT: "not tested",
}
_NEEDED = (
    "classes: (a mapping from the set's names) or everything: (one entry), each to a class of the model or "
    f"{', '.join(MEANINGS)}; and perhaps title: and patients: folders"
)


@dataclass(frozen=True)
class Outside:
    """Data that a model was not made from, seen as the model sees them.

    `classes` are the model's, `limits` its own for the input check; `of` maps names of the set to classes of the model
    or MEANINGS, `everything` all slices alike. Where neither says so, a name means the model's class of that name, and
    a set without any labels is UNKNOWN.
    """

    classes: Classes
    limits: InputLimits | None = None
    of: Mapping[str, str] | None = None
    everything: str | None = None
    title: str = ""
    patients_are_folders: bool = False

    @property
    def unlabelled(self) -> Literal["accept", "all"]:
        """Whether labels matter: those of slices that nothing labels never do."""
        return "accept" if self.everything is None else "all"

    def described_by(self, path: Path) -> Outside:
        """With what a YAML file says. Raises UsageError where that is not what is needed."""
        import yaml

        try:
            # As text throughout: a class may be called no or 1.
            record: Any = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)
        except FileNotFoundError as error:
            raise UsageError(f"--external-classes {path.name}: there is no such file.") from error
        except (OSError, ValueError, yaml.YAMLError) as error:
            said = str(error).splitlines()[0]
            raise UsageError(f"--external-classes {path.name} cannot be read: {said}.") from error
        if not isinstance(record, dict) or not set(record) <= {"title", "classes", EVERYTHING, "patients"}:
            raise UsageError(f"--external-classes {path.name} needs {_NEEDED}.")
        of, everything, title = record.get("classes"), record.get(EVERYTHING), record.get("title", "")
        is_map = isinstance(of, dict) and bool(of) and all(isinstance(one, str) for one in of.values())
        patients = record.get("patients")
        is_sound = isinstance(title, str) and title.isprintable() and patients in (None, "folders")
        if is_map is isinstance(everything, str) or not is_sound:
            raise UsageError(f"--external-classes {path.name} needs {_NEEDED}.")
        if of is not None and everything is None:
            of = {str(name): self._meaning(one, path) for name, one in of.items()}
            return replace(self, of=of, title=title, patients_are_folders=bool(patients))
        one = self._meaning(str(everything), path)
        return replace(self, everything=one, title=title, patients_are_folders=bool(patients))

    def resolve(self, found: Mapping[str, Iterable[str]], where: str) -> ClassMap:
        """The names in the data, by the data's own split, as classes of the model or MEANINGS.

        Raises UsageError for a name that neither the file nor the model knows.
        """
        names = sorted({name for section in found.values() for name in section}, key=natural_key)
        said = {spelling(name): meaning for name, meaning in (self.of or {}).items()}
        known, meant = known_classes(names), dict[str, str]()
        for name in names:
            if name == EVERYTHING and not self.of:
                meant[name] = self.everything or UNKNOWN
                continue
            other = known.find(name) if known else None
            label = said.get(spelling(name)) or self.classes.find(name) or self.classes.find(other or "")
            if label is None:
                raise UsageError(
                    f'{where} has the class "{name}", and the model tells {first_few(list(self.classes))} apart. Fix: '
                    f"say what each class is for the model, with --external-classes NAME=FILE.yaml that holds, for "
                    f'example, "classes: {{{name}: {NEGATIVE}}}".'
                )
            meant[name] = label
        used = [label for label in (*self.classes, *MEANINGS) if label in meant.values()]
        used += [label for label in MEANINGS if label not in used][: max(0, 2 - len(used))]  # Classes are two or more
        return ClassMap(Classes(tuple(dict.fromkeys(used))), meant)

    def _meaning(self, text: str, path: Path) -> str:
        found = self.classes.find(text) or next((one for one in MEANINGS if spelling(one) == spelling(text)), None)
        if found is None:
            raise UsageError(
                f'--external-classes {path.name} says "{text}"; needed is a class of the model '
                f"({first_few(list(self.classes))}) or {', '.join(MEANINGS)}."
            )
        return found


def is_positive(label: str, classes: Classes) -> bool | None:
    """Whether a class of the model or one of MEANINGS counts as disease; None where nobody said."""
    if label in classes:
        return label in classes.positive
    return {NEGATIVE: False, POSITIVE: True}.get(label)
