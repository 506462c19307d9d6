"""The slices of a run: loaded once, shared by all folds of a cross-validation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from accelerate import Accelerator, PartialState

from ..cohort import Cohort, Split, load_cohort
from ..contract import Contract
from ..errors import UsageError
from ..slices.limits import fit_limits
from ..slices.phantom import write_phantom_cohort
from ..slices.preprocess import Preprocessing
from ..slices.window import Window
from .augment import Augmentation
from .batches import Squares, TrainingBatches
from .model_repo import data_record, software_record
from .options import Options

GROUP_KEY = "group.key"  # in the run's folder: with it, and only with it, groups can be traced to patients


class Slices(NamedTuple):
    """A cohort, how its slices become an input, and the decoded slices; `front` keeps what frozen stages give."""

    cohort: Cohort
    preprocessing: Preprocessing
    squares: Squares
    front: dict[str, Any]


def load_slices(options: Options) -> Slices:
    """Load what the flags name; without --data, draw phantoms into the run's folder."""
    state = PartialState()
    preprocessing = Preprocessing(size=options.recipe.image_size)
    with state.main_process_first():
        cohort = load_cohort(
            options.data or str(write_phantom_cohort(options.run / "phantoms", seed=options.seed)),
            classes=options.classes,
            labels=options.labels,
            slices=options.slices,
            window=Window.parse(options.window) if options.window else None,
            group_column=options.group_column,
            grouping=options.grouping,
            on_bad_file=cast(Literal["refuse", "skip"], options.on_bad_file),
            group_key=_group_key(options.run),
            preprocessing=preprocessing,
            progress=state.is_main_process,
        )
    return Slices(cohort, preprocessing, Squares(cohort, preprocessing), front={})


def _group_key(run: Path) -> Path:
    """Where a run keeps its key. A fold that is continued alone has that of its cross-validation, or its groups,
    and with them its split, would be others."""
    for folder in (run, run.parent.parent, run.parent.parent.parent):
        if (folder / "run.json").is_file() and (folder / GROUP_KEY).is_file():
            return folder / GROUP_KEY
    return run / GROUP_KEY


def training_batches(slices: Slices, rows: np.ndarray, options: Options, accelerator: Accelerator) -> TrainingBatches:
    """This process's share of the training rows, augmented as the recipe says."""
    return TrainingBatches(
        slices.squares,
        slices.cohort.labels,
        rows,
        slices.preprocessing,
        Augmentation(options.recipe, slices.preprocessing.fill),
        seed=options.seed,
        batch_size=options.recipe.batch_size,
        accumulate=options.recipe.accumulate,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
        workers=options.loader_workers(accelerator.device.type),
    )


def describe_data(say: Callable[[str], None], cohort: Cohort, split: Split) -> None:
    """Say how many slices there are, what there is to know of them, and which are used for what."""
    counts = ", ".join(f"{count} {name}" for name, count in cohort.counts().items())
    say(f"{len(cohort)} slices ({counts}) in {len(set(split.groups))} groups ({split.grouping}).")
    for note in cohort.notes:
        say(f"Note: {note}.")
    sizes = ", ".join(f"{name} {len(split.indices(name))}" for name in ("train", "validation", "test"))
    crossing = f"{split.groups_crossing} groups on both sides"
    if shared := split.groups_in_training_and_validation:
        crossing += f", {shared} in training and validation"
    say(f"Split {split.protocol}: {sizes}; {crossing}; hash {split.hash[:12]}.")


def describe_run(options: Options, cohort: Cohort) -> dict[str, Any]:
    """The entries of lungct.json's provenance that are known before training."""
    return {
        **software_record(),
        "command": options.command,
        "seed": options.seed,
        "data": data_record(cohort, "phantom" if options.data is None else cohort.kind),
        "recipe": {"name": options.recipe_name, **options.recipe.to_dict()},
    }


def contract_of(options: Options, slices: Slices, rows: np.ndarray, provenance: dict[str, Any]) -> Contract:
    """What runtimes must know of a network that learned from the slices `rows`, before it is calibrated."""
    cohort = slices.cohort
    try:
        limits = fit_limits([cohort.reports[row] for row in rows.tolist()])
    except UsageError as error:
        limits = None
        PartialState().print(f"Note: inputs will not be compared to the training slices: {error}")
    return Contract(
        options.recipe.architecture,
        cohort.classes,
        slices.preprocessing,
        window=cohort.window,
        limits=limits,
        provenance=provenance,
    )
