"""The hyper-parameters: one dataclass, from which the recipe files are checked and the flags are made."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from ..errors import UsageError

CHOICES = ("best", "last")
BEST_JPEG = 95  # the highest quality that re-compression draws


def _flag(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Recipe:
    """How to train. Every field is a key of a recipe YAML and a kebab-case flag of train.py."""

    architecture: str = _flag("mobilenetv2_100", "timm MobileNetV2 variant")
    image_size: int = _flag(224, "side of the square input, pixels")
    freeze_stages: int = _flag(
        0, "keep the stem and so many stages as they are, their output computed once, 0 is none"
    )
    variants: int = _flag(4, "with freeze_stages: stored augmented variants of each slice, besides the slice itself")
    adapt_norm: bool = _flag(False, "measure the batch-norm statistics anew on the training slices before training")
    freeze_norm: bool = _flag(False, "keep the batch-norm statistics as they are while training")
    epochs: int = _flag(12, "passes over the training fold, head-first epochs included")
    head_epochs: int = _flag(1, "of these, epochs that train the new fully connected layer alone")
    batch_size: int = _flag(16, "slices per process and step")
    accumulate: int = _flag(1, "batches whose gradients are added up before an optimizer step")
    lr: float = _flag(1e-3, "peak learning rate of the whole network")
    head_lr: float = _flag(3e-3, "learning rate of the head-first epochs")
    weight_decay: float = _flag(0.02, "AdamW weight decay")
    warmup: float = _flag(0.1, "share of the steps over which the learning rate rises")
    label_smoothing: float = _flag(0.05, "0 is none")
    class_weights: bool = _flag(True, "weigh the loss by inverse class frequency of the training fold")
    drop_rate: float = _flag(0.1, "dropout before the fully connected layer")
    grad_clip: float = _flag(5.0, "largest gradient norm, 0 is no limit")
    ema_decay: float = _flag(0.99, "decay of the exponential moving average of the weights, 0 is none")
    choose: str = _flag("best", "which epoch is taken: best on the validation fold, or last")
    patience: int = _flag(6, "epochs without a better validation fold before stopping, 0 is never")
    rotate_validation: bool = _flag(
        False, "with refit: each fold but the test fold is the validation fold once, so calibration sees all groups"
    )
    refit: bool = _flag(False, "afterwards train anew on training and validation folds, to the epoch that was chosen")
    shift: float = _flag(0.05, "augmentation: largest shift, share of the side")
    scale: float = _flag(0.1, "augmentation: largest change of size, share")
    rotate: float = _flag(8.0, "augmentation: largest rotation, degrees")
    brightness: float = _flag(0.08, "augmentation: largest brightness change, share of the grey range")
    contrast: float = _flag(0.12, "augmentation: largest contrast change, share")
    hflip: bool = _flag(False, "augmentation: mirror left and right (the heart changes sides)")
    vflip: bool = _flag(False, "augmentation: mirror front and back (the table changes sides)")
    border_fill: float = _flag(0.0, "augmentation: share of the slices whose border gets a random grey")
    body_mask: float = _flag(0.0, "augmentation: share of the slices in which all but the body gets one random grey")
    window_jitter: float = _flag(
        0.0, "augmentation: largest move of a knot of the grey curve, share of the grey range"
    )
    gamma: float = _flag(0.0, "augmentation: largest natural logarithm of the gamma exponent")
    blur: float = _flag(0.0, "augmentation: largest sigma of a Gaussian blur, pixels")
    noise: float = _flag(0.0, "augmentation: largest standard deviation of added noise, share of the grey range")
    sharpen: float = _flag(0.0, "augmentation: largest share of an unsharp mask that is added")
    jpeg: int = _flag(0, "augmentation: lowest quality of a JPEG re-compression, 10 to 95, 0 is none")
    reframe: float = _flag(
        0.0, "augmentation: largest share of the side by which each edge of the picture is cut or padded"
    )
    other_histogram: float = _flag(
        0.0, "augmentation: share of the slices that get the grey histogram of another training slice"
    )
    cutmix: float = _flag(
        0.0, "augmentation: patches of other slices, their share of the area from Beta(cutmix, cutmix), 0 is none"
    )

    def __post_init__(self) -> None:
        if self.rotate_validation and not self.refit:
            raise UsageError("--rotate-validation needs --refit, which makes one network of several. Fix: add it.")
        self._check("image_size", 64 <= self.image_size <= 1024, "64 to 1024")
        for name in ("epochs", "batch_size", "accumulate"):
            self._check(name, getattr(self, name) >= 1, "1 or more")
        self._check("choose", self.choose in CHOICES, " or ".join(CHOICES))
        self._check("head_epochs", 0 <= self.head_epochs <= self.epochs, "0 to the number of epochs")
        for name in ("lr", "head_lr"):
            self._check(name, getattr(self, name) > 0, "above 0")
        for name in ("freeze_stages", "variants", "weight_decay", "grad_clip", "patience", "rotate", "gamma"):
            self._check(name, getattr(self, name) >= 0, "0 or more")
        for name in ("border_fill", "body_mask", "other_histogram"):
            self._check(name, 0 <= getattr(self, name) <= 1, "0 to 1")
        for name in ("blur", "sharpen", "cutmix"):
            self._check(name, 0 <= getattr(self, name) <= 10, "0 to 10")
        self._check("jpeg", self.jpeg == 0 or 10 <= self.jpeg <= BEST_JPEG, f"0, or 10 to {BEST_JPEG}")
        self._check("reframe", 0 <= self.reframe <= 0.3, "0 to 0.3")
        for name in (
            "window_jitter",
            "noise",
            "warmup",
            "label_smoothing",
            "drop_rate",
            "ema_decay",
            "shift",
            "scale",
            "brightness",
            "contrast",
        ):
            self._check(name, 0 <= getattr(self, name) < 1, "0 or more and below 1")

    def _check(self, name: str, fine: bool, needed: str) -> None:
        if not fine:
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"{flag} {getattr(self, name)} is out of range; needed: {needed}.")

    def to_dict(self) -> dict[str, Any]:
        """A plain dict for run.json and lungct.json."""
        return asdict(self)


def load_recipe(name: str, folder: Path) -> dict[str, Any]:
    """The values of `folder/name.yaml`, or of `name` itself when it is a path; unknown keys are refused."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise UsageError(f"--recipe {name}: no such recipe. Needed: one of {known}, or the path of a YAML file.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path.name} is not readable YAML ({error}).") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path.name} must hold key: value lines, found {type(values).__name__}.")
    known_types: dict[str, type] = {item.name: type(item.default) for item in fields(Recipe)}
    for key, value in values.items():
        if key not in known_types:
            near = difflib.get_close_matches(str(key), known_types, n=1)
            raise UsageError(f"{path.name}: unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else "."))
        wanted = known_types[key]
        fits = isinstance(value, wanted) or (
            wanted is float and isinstance(value, int) and not isinstance(value, bool)
        )
        if not fits:
            raise UsageError(f"{path.name}: {key} must be {wanted.__name__}, found {value!r}.")
    return {key: known_types[key](value) for key, value in values.items()}
