"""A model repo's two JSON files: config.json (for timm and transformers) and lungct.json (the decision contract)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .classes import Classes
from .decision import Calibration
from .errors import LungCTError, UsageError
from .known_sets import schema_1_classes
from .slices.limits import SCHEMA_1_LIMITS, InputLimits
from .slices.preprocess import Preprocessing
from .slices.window import LUNG_WINDOW, Window

SCHEMA_VERSION = 2
READABLE = (1, 2)  # schema 1 has no classes of its own: they are always the same three
ONNX_FILE = "onnx/model.onnx"
ONNX_INPUT, ONNX_OUTPUTS = "pixel_values", ("logits", "cam", "features", "source")


@dataclass(frozen=True)
class Contract:
    """What a runtime must do to reproduce this model's answers, and where the weights come from.

    `classes` are in the order of the logits. `limits` are what was measured on the training slices, to which the input
    check compares others; None where nothing was, so that only what can be no chest CT is refused. `provenance` holds
    init, data fingerprint, split hash, recipe, versions and command line, as training noted them. `calibration` is
    None for weights that nothing was fitted for. `onnx` is the record of `onnx/` that the export wrote (sha256, opset,
    parity with torch, what became of the 8-bit copy) or why it could not; None where nobody tried.
    """

    architecture: str
    classes: Classes
    preprocessing: Preprocessing = Preprocessing()
    window: Window = LUNG_WINDOW
    limits: InputLimits | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None
    onnx: Mapping[str, Any] | None = None

    @property
    def measured_output(self) -> str | None:
        """Which of the network's outputs the abstain rule measures: "source", "features" in models of schema 1, None
        where it measures none."""
        rule = self.calibration.abstain if self.calibration else None
        return rule.distance.output if rule and rule.distance else None

    @property
    def has_onnx(self) -> bool:
        """Whether the model comes with an ONNX file that this record vouches for."""
        return bool(self.onnx and self.onnx.get("sha256"))

    def config(self) -> dict[str, Any]:
        """config.json: transformers' timm_wrapper format, which timm reads too.

        `model_args` is an empty object, not null, and the class name is transformers' own: both are needed for one
        repo to load in both libraries.
        """
        cfg = self.preprocessing.to_pretrained_cfg()
        return {
            "architecture": self.architecture,
            "architectures": ["TimmWrapperForImageClassification"],
            "model_type": "timm_wrapper",
            "do_pooling": True,
            "global_pool": "avg",
            "initializer_range": 0.02,
            "label_names": list(self.classes),
            "model_args": {},
            "num_classes": len(self.classes),
            "pretrained_cfg": {
                **cfg,
                "num_classes": len(self.classes),
                "first_conv": "conv_stem",
                "classifier": "classifier",
                **self._notes(),
            },
            "dtype": "float32",
        }

    def _notes(self) -> dict[str, Any]:
        """What timm and transformers carry along as `pretrained_cfg["notes"]`: they show nothing else of our own."""
        is_phantom = (self.provenance.get("data") or {}).get("kind") == "phantom"
        return {"notes": ["Trained on generated phantoms: useless on patients."]} if is_phantom else {}

    def lungct(self) -> dict[str, Any]:
        """lungct.json."""
        record = {
            "schema_version": SCHEMA_VERSION,
            "classes": self.classes.to_json(),
            "window": {**asdict(self.window), "unit": "HU"},
            "geometry": self.preprocessing.to_dict(),
            "provenance": dict(self.provenance),
        }
        record |= {"input_limits": self.limits.to_json()} if self.limits else {}
        record |= {"onnx": dict(self.onnx)} if self.onnx else {}
        return record | ({"calibration": self.calibration.to_json()} if self.calibration else {})

    @classmethod
    def of(cls, config: dict[str, Any], lungct: dict[str, Any], name: str) -> Contract:
        """From the content of both files of the model `name`.

        Raises LungCTError where one is incomplete, they disagree, or a later version of this package wrote them.
        """
        try:
            return cls._from_json(config, lungct)
        except (KeyError, TypeError, ValueError, UsageError) as error:
            raise LungCTError(
                f"{name} has an incomplete config.json or lungct.json ({error!r}). "
                "Fix: load a repo written by this package."
            ) from error

    @classmethod
    def _from_json(cls, config: dict[str, Any], lungct: dict[str, Any]) -> Contract:
        version = lungct["schema_version"]
        if version not in READABLE:
            raise LungCTError(
                f"lungct.json has schema version {version}, this package reads {' and '.join(map(str, READABLE))}. "
                "Fix: pip install --upgrade lungct-hf (or pin the model's older revision)."
            )
        classes = classes_of(lungct)
        listed = {"config.json": config["label_names"], "lungct.json": lungct.get("labels", list(classes))}
        for name, labels in listed.items():
            if tuple(labels) != classes.names:
                raise LungCTError(f"{name} has the labels {labels}; needed, in this order: {list(classes)}.")
        preprocessing = Preprocessing.from_pretrained_cfg(config["pretrained_cfg"])
        if lungct["geometry"] != preprocessing.to_dict():
            raise LungCTError(
                "config.json and lungct.json describe different preprocessing, so runtimes would disagree. "
                "Fix: take both files from the same revision."
            )
        return cls(
            architecture=config["architecture"],
            classes=classes,
            preprocessing=preprocessing,
            window=Window(center=float(lungct["window"]["center"]), width=float(lungct["window"]["width"])),
            limits=_limits(version, lungct.get("input_limits")),
            provenance=lungct["provenance"],
            calibration=Calibration.from_json(lungct["calibration"]) if lungct.get("calibration") else None,
            onnx=dict(lungct["onnx"]) if lungct.get("onnx") else None,
        )


def classes_of(lungct: Mapping[str, Any]) -> Classes:
    """The classes that a lungct.json names. Raises KeyError, TypeError or UsageError where it names none."""
    return schema_1_classes() if lungct["schema_version"] == 1 else Classes.from_json(lungct["classes"])


def _limits(version: int, record: dict[str, Any] | None) -> InputLimits | None:
    if version == 1:
        return SCHEMA_1_LIMITS
    return None if record is None else InputLimits.from_json(record)
