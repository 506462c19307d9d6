"""What a user asked for: the flags of train.py, and run.json, which lets `--resume` ask for the same again."""

from __future__ import annotations

import argparse
import json
import shlex
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..classes import HELP as CLASSES
from ..cores import cores_per_process, usable_cores
from ..errors import UsageError
from ..files import publishable, write_json
from ..slices.series import parse_positions
from ..slices.window import Window
from .recipe import Recipe, load_recipe

DEVICES = ("auto", "cpu", "mps")  # device.py says what they mean
_GROUPINGS = ("linked", "similarity", "file-blocks")
# Not part of what determines the result, so a resumed run may be given other values.
_FREE_ON_RESUME = {"output_dir", "resume", "push_to_hub", "private", "workers", "checkpoint_every", "device"}


@dataclass(frozen=True)
class Options:
    """The flags of one run, the recipe's values resolved. `run` is the output directory."""

    run: Path
    data: str | None
    init: str
    split: str
    margin: float | None
    fold: int
    fold_count: int
    group_column: str | None
    on_bad_file: str
    recipe_name: str
    recipe: Recipe
    seed: int
    mixed_precision: str | None
    threads: int
    workers: int | None
    checkpoint_every: int
    push_to_hub: str | None
    private: bool
    resume: bool
    command: str
    folds: int | None = None  # all of so many folds, one run each; None is a single run
    seeds: tuple[int, ...] = ()
    leak_gap: bool = False  # cross-validate by image as well
    classes: str | None = None
    labels: str | None = None
    slices: str = "all"
    window: str | None = None
    device: str = "auto"

    @property
    def grouping(self) -> str | None:
        """The grouping that --split names, or None for the data's own (a patient column, else linked)."""
        return self.split if self.split.partition(":")[0] in _GROUPINGS else None

    @property
    def protocol(self) -> str:
        """The split protocol; a grouping's name means grouped."""
        return "grouped" if self.grouping else self.split

    def loader_workers(self, device_type: str) -> int:
        """Loader processes: none on a CPU, where they would only compete with the training."""
        if self.workers is not None:
            return self.workers
        return 0 if device_type == "cpu" else min(8, usable_cores())

    def check_identity(self, stored: dict[str, Any], now: dict[str, Any]) -> None:
        """Refuse to continue on other data or another number of processes: the result would belong to neither."""
        for name, value in now.items():
            if stored[name] != value:
                raise UsageError(
                    f"The run in {self.run} has {name} {stored[name]}, now it is {value}. "
                    "Fix: bring back the same data, number of processes and precision, or start a new run."
                )

    def fixed(self) -> dict[str, Any]:
        """The part that must be equal for a run to be the same run, as stored in run.json."""
        names = (
            "data",
            "init",
            "split",
            "margin",
            "fold",
            "fold_count",
            "group_column",
            "on_bad_file",
            "recipe_name",
            "seed",
            "folds",
            "leak_gap",
            "classes",
            "labels",
            "slices",
            "window",
        )
        return {name: getattr(self, name) for name in names} | {
            "mixed_precision": self.mixed_precision,
            "threads": self.threads,
            "seeds": list(self.seeds),
            "recipe": self.recipe.to_dict(),
        }


def build_parser(recipes: Path, description: str) -> argparse.ArgumentParser:
    """The flags; recipe fields come last, each a flag of its own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = ", ".join(sorted(path.stem for path in recipes.glob("*.yaml")))
    add = parser.add_argument_group("what to train on, from and into").add_argument
    add("--data", help="folder, parquet file or Hub data set id[@revision] (default: generated phantoms)")
    add("--classes", help=f"order, merge, rename: {CLASSES} (default: the folders' or label column's names)")
    add("--labels", metavar="FILE", help="table of labels by file, SOP instance, series, study or patient")
    add("--init", help="auto, imagenet1k-v2, random, or a .pth/.safetensors file (default: auto)")
    add(
        "--split", help="auto, grouped, linked, similarity, file-blocks:N, image, given, or a manifest (default: auto)"
    )
    add("--recipe", help=f"one of {known}, or a YAML file (default: default; for phantoms: phantom)")
    add("--output-dir", help="the run's folder (default: runs/<time>)")
    add("--folds", type=int, metavar="K", help="cross-validate: K runs, a pooled report, then a model from all slices")
    add("--seeds", type=_numbers, metavar="S,S", help="with --folds: the whole of it once per seed (default: --seed)")
    add("--leak-gap", action="store_true", help="with --folds: by image as well, to show what near-copies add")
    add("--resume", nargs="?", const=True, metavar="DIR", help="continue DIR, --output-dir or the newest run")
    add("--push-to-hub", metavar="REPO", help="push the model to this Hub repo at the end")
    add = parser.add_argument_group("details").add_argument
    add("--private", action="store_true", help="create the Hub repo private")
    add("--fold", type=int, help="train once, with this fold as the test fold (default: 0)")
    add("--fold-count", type=int, help="of how many folds, when training once (default: 5)")
    add("--margin", type=float, help="leave out training slices this alike to a test slice (correlation, 0 to 1)")
    add("--group-column", help="column that names the patient or case (default: found by its name)")
    add(
        "--slices",
        help="of volumes: all, positions from the feet up like 0.2-0.8, or listed (default: all)",
    )
    add("--window", metavar="C,W", help="centre and width in HU for DICOM and NIfTI (default: -485,1500)")
    add("--on-bad-file", choices=["refuse", "skip"], help="what an unreadable file does (default: refuse)")
    add("--seed", type=int, help="seed of split, new layer, order and augmentation (default: 0)")
    add(
        "--device", choices=DEVICES, help="auto takes an Apple GPU only if it computes as the CPU does (default: auto)"
    )
    add("--mixed-precision", choices=["no", "fp16", "bf16"], help="default: as accelerate is configured")
    add("--threads", type=int, help="torch threads per process (default: the cores, shared among processes)")
    add("--workers", type=int, help="loader processes (default: 0 on CPU, up to 8 with a GPU)")
    add("--checkpoint-every", type=int, default=50, metavar="STEPS", help="besides every epoch (default: 50)")
    tuning = parser.add_argument_group("the recipe's values (flags win over the recipe file)")
    for item in fields(Recipe):
        flag, text = "--" + item.name.replace("_", "-"), f"{item.metadata['help']} (default: {item.default})"
        if isinstance(item.default, bool):
            tuning.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            tuning.add_argument(flag, type=type(item.default), default=None, help=text)
    return parser


def parse_options(argv: list[str], recipes: Path, description: str) -> Options:
    """Flags to Options. With --resume, what the run was started with; a flag that contradicts it is refused."""
    given = vars(build_parser(recipes, description).parse_args(_with_negative_window(argv)))
    _check_numbers(given)
    if given["resume"] is None:
        return _fresh(given, argv, recipes)
    run = _run_to_resume(given)
    stored = _read_run(run)
    if stored is None:  # killed before it could note anything: there is nothing to contradict
        return _fresh(given | {"output_dir": str(run)}, argv, recipes)
    return _again(given, stored, run)


def _with_negative_window(argv: list[str]) -> list[str]:
    """`--window -485,1500` with an equals sign: argparse takes what begins with a minus for another flag."""
    words = iter(argv)
    return [f"{word}={next(words, '')}" if word == "--window" else word for word in words]


def save_options(options: Options) -> None:
    """Write run.json, which makes the folder a run."""
    write_json(options.run / "run.json", {"command": options.command, **options.fixed()})


def _fresh(given: dict[str, Any], argv: list[str], recipes: Path) -> Options:
    name = given["recipe"] or ("phantom" if given["data"] is None else "default")
    values = load_recipe(name, recipes)
    values |= {item.name: given[item.name] for item in fields(Recipe) if given[item.name] is not None}
    seed = given["seed"] or 0
    seeds = tuple(given["seeds"] or [seed]) if given["folds"] else ()
    run = Path(given["output_dir"] or Path("runs") / time.strftime("%Y%m%d-%H%M%S"))
    if not given["resume"] and (run / "run.json").exists():
        raise UsageError(f"{run} already holds a run. Fix: --resume to continue it, or another --output-dir.")
    return Options(
        run=run,
        data=given["data"],
        init=given["init"] or "auto",
        split=given["split"] or "auto",
        margin=given["margin"],
        fold=given["fold"] or 0,
        fold_count=given["folds"] or given["fold_count"] or 5,
        group_column=given["group_column"],
        on_bad_file=given["on_bad_file"] or "refuse",
        recipe_name=Path(name).stem,
        recipe=Recipe(**values),
        seed=seeds[0] if seeds else seed,
        mixed_precision=given["mixed_precision"],
        threads=given["threads"] or _fair_share_of_cores(),
        workers=given["workers"],
        checkpoint_every=given["checkpoint_every"],
        push_to_hub=given["push_to_hub"],
        private=given["private"],
        resume=bool(given["resume"]),
        command=_publishable_command(argv),
        folds=given["folds"],
        seeds=seeds,
        leak_gap=given["leak_gap"],
        classes=given["classes"],
        labels=given["labels"],
        slices=given["slices"] or "all",
        window=given["window"],
        device=given["device"] or "auto",
    )


def _again(given: dict[str, Any], stored: dict[str, Any], run: Path) -> Options:
    # Runs from before --slices took all.
    flat = {"slices": "all"} | stored | stored["recipe"] | {"recipe": stored["recipe_name"]}
    for name, value in given.items():
        # False is a switch that was not given, and for what a recipe holds one that was: --no-NAME.
        if value is None or (value is False and name not in stored["recipe"]) or name in _FREE_ON_RESUME:
            continue
        same = Path(str(value)).stem == flat[name] if name == "recipe" else value == flat.get(name)
        if not same:
            flag = "--" + name.replace("_", "-")
            raise UsageError(
                f"{flag} {value} contradicts the run in {run}, which was started with {flat.get(name)}. "
                "Fix: leave the flag out, or start a new run with another --output-dir."
            )
    fixed = {name: stored[name] for name in stored if name not in ("command", "recipe", "seeds")}
    return Options(
        run=run,
        recipe=Recipe(**stored["recipe"]),
        workers=given["workers"],
        checkpoint_every=given["checkpoint_every"],
        push_to_hub=given["push_to_hub"],
        private=given["private"],
        resume=True,
        command=stored["command"],
        seeds=tuple(stored.get("seeds", ())),
        device=given["device"] or "auto",
        **fixed,
    )


def _run_to_resume(given: dict[str, Any]) -> Path:
    if isinstance(given["resume"], str):
        run = Path(given["resume"])
        if not run.is_dir():
            raise UsageError(f"--resume {run}: no such run. Fix: name the folder of a run, e.g. runs/<time>.")
        return run
    if given["output_dir"]:
        return Path(given["output_dir"])
    records = sorted(Path("runs").glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    if not records:
        raise UsageError("--resume: there is no run under runs/. Fix: name one (--resume DIR).")
    return records[-1].parent


def _read_run(run: Path) -> dict[str, Any] | None:
    path = run / "run.json"
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        Recipe(**stored["recipe"])
        return stored
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} cannot be read ({error}); it was written by another version or changed.") from error


def _check_numbers(given: dict[str, Any]) -> None:
    if given["window"] is not None:
        Window.parse(given["window"])
    if given["slices"] is not None:
        parse_positions(given["slices"])
    if given["folds"] is not None:
        for name in ("fold", "fold_count"):
            if given[name] is not None:
                flag = name.replace("_", "-")
                raise UsageError(f"--folds runs all folds, --{flag} belongs to a single run. Fix: leave one out.")
        if given["folds"] < 3:
            raise UsageError(f"--folds {given['folds']}: at least 3 are needed (training, validation and test fold).")
        if given["seeds"] and given["seed"] is not None:
            raise UsageError("--seed and --seeds were both given. Fix: leave --seed out.")
        if given["seeds"] and (len(set(given["seeds"])) < len(given["seeds"]) or min(given["seeds"]) < 0):
            raise UsageError(f"--seeds {given['seeds']}: needed are different numbers, 0 or more.")
        if given["leak_gap"] and given["split"] == "image":
            raise UsageError(
                "--leak-gap sets a grouped split beside --split image. Fix: --split linked, or leave it out."
            )
    elif (given["seeds"] or given["leak_gap"]) and given["resume"] is None:
        flag, fix = ("--seeds", ", or use --seed for a single run") if given["seeds"] else ("--leak-gap", "")
        raise UsageError(f"{flag} belongs to a cross-validation. Fix: add --folds{fix}.")
    fold, count = given["fold"] or 0, given["fold_count"] or 5
    if count < 3:
        raise UsageError(f"--fold-count {count}: at least 3 are needed (training, validation and test fold).")
    if not 0 <= fold < count:
        raise UsageError(f"--fold {fold} does not exist; needed: 0 to {count - 1}.")
    for name, least in (("workers", 0), ("checkpoint_every", 1), ("seed", 0), ("threads", 1)):
        if given[name] is not None and given[name] < least:
            raise UsageError(f"--{name.replace('_', '-')} {given[name]} is out of range; needed: {least} or more.")


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers like 0,1") from error


def _fair_share_of_cores() -> int:
    """Cores per process here. `accelerate launch` sets OMP_NUM_THREADS to 1 unasked, which leaves the others idle.

    The number is part of the run: sums in another order round differently, and resuming must not.
    """
    return cores_per_process()


def _publishable_command(argv: list[str]) -> str:
    """The command line for the model's provenance, without the folders of the author's machine."""
    return shlex.join(["training/train.py", *publishable(argv)])
