"""What visitors can ask: one slice, one study, a view of a slice in another window, what the model is."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import LungCTError, UsageError
from ..known_sets import phantoms
from ..runtime import Prediction, Study
from ..runtime.prediction import NOTICE
from ..slices.archive import BAD_ARCHIVE
from ..slices.limits import InputLimits
from ..slices.listing import printable
from ..slices.phantom import draw_phantom
from ..slices.source import Frame, Unreadable, open_slices
from ..slices.window import Window
from .batcher import Batcher
from .keeper import Keeper, Served
from .limits import MAX_SLICES, check_slice_file, check_study_files

_AT_ONCE = 8  # slices of a study in one call of the network: others get their turn in between
_PHANTOM_PATIENT = 7
_PHANTOM_SLICES = 9


@dataclass(frozen=True)
class Phantom:
    """A generated slice in place of a file; `label` is a class of the phantoms and need not be one of the model's."""

    label: str
    z: float = 0.0  # mm over the nodule's centre

    @property
    def nodule(self) -> str:
        """What it shows, as "no nodule" or "smooth nodule"."""
        kind = phantoms().nodules[self.label]
        return f"{'no' if kind == 'none' else kind} nodule"

    @property
    def file(self) -> str:
        """What its row is called."""
        return f"phantom, {self.nodule}" + (f" {self.z:+g} mm" if self.z else "")


Source = Path | Phantom
Seen = tuple[Frame | Unreadable, Prediction]


class Service:
    """Answers of the model that `keeper` holds. Thread-safe. Every method raises NotReady while there is none."""

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper
        self._batcher = Batcher()

    def slice(self, source: Source, *, version: str | None = None, force: bool = False) -> Seen:
        """One slice and its prediction, with the class-activation map.

        Raises UsageError for a file that is too large or holds several slices, and for an unknown version.
        """
        served = self.keeper.served(version)
        if isinstance(source, Path):
            check_slice_file(source)
        contract = served.model.contract
        found = list(islice(_open(source, contract.window, contract.limits), 2))
        if len(found) > 1:
            raise UsageError("The file holds several slices. Fix: send it as a study, or send one slice of it.")
        return found[0], self._batcher.judge(served.model, found, force=force)[0]

    def view(self, source: Source, window: Window) -> Image.Image:
        """The slice in a window for looking at it; the model never sees this.

        Raises LungCTError when the file cannot be read, or is no longer there.
        """
        found = next(iter(_open(source, window)), None)
        if not isinstance(found, Frame):
            raise LungCTError("The slice is no longer here: uploads are deleted after minutes. Fix: choose it again.")
        return found.pixels

    def study(
        self,
        sources: Sequence[Source],
        *,
        version: str | None = None,
        force: bool = False,
        progress: Callable[[int, int | None], None] | None = None,
        keep: Callable[[Frame | Unreadable, Prediction], None] | None = None,
    ) -> Study:
        """One decision for all slices of the files, which may be archives.

        `progress` gets how many slices were read, and of how many where that is known; `keep` each slice with its
        prediction, as long as it is in memory.

        Raises UsageError for too many files, bytes or slices, and for an unknown version.
        """
        model = self.keeper.served(version).model
        paths = [source for source in sources if isinstance(source, Path)]
        if not sources:
            raise UsageError("No file was given. Fix: send a zip archive, or the files of one study.")
        check_study_files(paths)
        total = len(sources) if len(sources) > 1 else _members(paths[0]) if paths else None
        found = (one for source in sources for one in _open(source, model.contract.window, model.contract.limits))
        rows: list[Prediction] = []
        while batch := list(islice(found, _AT_ONCE)):
            answers = self._batcher.judge(model, batch, force=force)
            rows += answers
            if len(rows) > MAX_SLICES:
                raise UsageError(f"There are more than {MAX_SLICES} slices in this. Fix: send one series.")
            for one, answer in zip(batch, answers, strict=True):
                if keep:
                    keep(one, answer)
            if progress:
                progress(len(rows), total)
        return model.study(rows)

    def slice_json(self, one: Prediction, version: str | None = None) -> dict[str, Any]:
        """What /predict answers: `Prediction.to_json`, the version, what the model is worth, and the notice."""
        return one.to_json() | self._beside(one.revision, version)

    def study_json(self, study: Study, version: str | None = None) -> dict[str, Any]:
        """What /predict_study answers: `Study.to_json`, the version, what the model is worth, and the notice."""
        return study.to_json() | self._beside(study.revision, version)

    def model_json(self, version: str | None = None) -> dict[str, Any]:
        """What /model_info answers."""
        served = self.keeper.served(version)
        return self.keeper.evidence(served).info | {
            "version": served.version,
            "versions": self.keeper.versions,
            "self_test": {"state": served.self_test.state, "slices": served.self_test.slices},
            "notice": NOTICE,
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes of the model that is served, none while there is no model."""
        return self.served().model.labels if self.keeper.status == "ready" else ()

    def served(self, version: str | None = None) -> Served:
        return self.keeper.served(version)

    def _beside(self, revision: str | None, version: str | None) -> dict[str, Any]:
        worth = self.served(version).model.worth
        return {"version": self._version_of(revision, version), "worth": worth, "notice": NOTICE}

    def _version_of(self, revision: str | None, asked: str | None) -> str | None:
        named = [tag for tag, sha in self.keeper.versions.items() if sha == revision]
        return asked if asked in named else next(iter(named), None)


def phantom_examples() -> list[Phantom]:
    """One of each kind."""
    return [Phantom(name) for name in phantoms().classes]


def phantom_study() -> list[Phantom]:
    """A study of one generated patient with what counts as disease."""
    label = phantoms().classes.positive[0]
    return [Phantom(label, z) for z in np.linspace(-3.5, 3.5, _PHANTOM_SLICES).round(2).tolist()]


def _open(source: Source, window: Window, limits: InputLimits | None = None) -> Iterator[Frame | Unreadable]:
    if isinstance(source, Phantom):
        yield from open_slices(_phantom(source), window=window, limits=limits, file=source.file)
    else:  # the row is called what the visitor calls it, not where the server keeps it
        yield from open_slices(source, window=window, limits=limits, file=printable(source.name))


@lru_cache(maxsize=32)
def _phantom(source: Phantom) -> np.ndarray:
    patient = _PHANTOM_PATIENT + phantoms().classes.index(source.label)
    return draw_phantom(source.label, patient, source.z, size=320)


def _members(path: Path) -> int | None:
    """How many files an archive says it has, None for anything else."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(not member.filename.endswith("/") for member in archive.infolist())
    except BAD_ARCHIVE:
        return None
