"""Predictions with known properties: groups whose slices share their luck, as those of one person do."""

from __future__ import annotations

import numpy as np

from lungct_hf.classes import Classes
from lungct_hf.evaluation import Sample
from lungct_hf.known_sets import schema_1_classes

THREE = schema_1_classes()
# For what must hold for any number of classes: unmarked ones, odd names, one marked positive, two marked.
SETS = {
    2: Classes(("not covid", "covid"), ("covid",)),
    3: THREE,
    5: Classes(("a", "$b$", "_c", "large cell carcinoma of the lung", "e/f.g"), ("_c", "e/f.g")),
}
TWO_UNMARKED = Classes(("left", "right"))


def clustered(
    rng: np.random.Generator,
    groups: int = 60,
    slices: int = 8,
    *,
    shared: float = 1.5,
    signal: float = 1.5,
    classes: int = 3,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels (N,), logits (N, C), group names (N,); `shared` is the scatter that a group's slices have in common."""
    label_of = np.arange(groups) % classes
    group = np.repeat(np.arange(groups), slices)
    labels = label_of[group]
    logits = signal * np.eye(classes)[labels] + rng.normal(size=(len(group), classes))
    logits += shared * rng.normal(size=(groups, classes))[group]
    return labels, logits, np.char.add("g", group.astype(str))


def calibrated(
    rng: np.random.Generator, groups: int, slices: int = 6, classes: int = 3, apart: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `clustered`, but each label is drawn from the softmax of its logits, so that T = 1 is right.

    With `apart` (C, C) some classes lie farther from each other than others do: the logits are multiplied by it.
    """
    group = np.repeat(np.arange(groups), slices)
    logits = (2 * rng.normal(size=(groups, classes)))[group] + rng.normal(size=(len(group), classes))
    logits = logits if apart is None else logits @ apart
    powers = np.exp(logits)
    shares = (powers / powers.sum(axis=1, keepdims=True)).cumsum(axis=1)
    labels = (rng.random(len(group))[:, None] > shares).sum(axis=1).clip(0, classes - 1)
    return labels, logits, np.char.add("g", group.astype(str))


def sample(rng: np.random.Generator, classes: Classes = THREE, **settings: float) -> Sample:
    labels, logits, groups = clustered(rng, classes=len(classes), **settings)  # type: ignore[arg-type]
    return Sample.of(labels, logits, groups, classes=classes)


def rows(
    rng: np.random.Generator,
    *,
    protocol: str | None = None,
    seed: int | None = None,
    signal: float = 1.5,
    groups: int = 60,
    split: str = "test",
    classes: Classes = THREE,
    **columns: object,
) -> list[dict[str, object]]:
    """Rows for write_predictions in five folds."""
    labels, logits, names = clustered(rng, groups=groups, signal=signal, classes=len(classes))
    made: list[dict[str, object]] = []
    for i, (label, values, group) in enumerate(zip(labels, logits, names, strict=True)):
        row: dict[str, object] = {
            "id": f"{split}/{i:04d}.png",
            "sha256": f"{split}{i:060d}",
            "group": str(group),
            "split": split,
            "fold": int(group[1:]) % 5,
            "label": classes[label],
            "logits": values.tolist(),
            **columns,
        }
        made.append(row | {k: v for k, v in (("protocol", protocol), ("seed", seed)) if v is not None})
    return made
