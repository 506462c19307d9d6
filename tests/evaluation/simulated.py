"""Predictions with known properties: groups whose slices share their luck, as those of one person do."""

from __future__ import annotations

import numpy as np

from lungct_hf.evaluation import Sample
from lungct_hf.labels import LABELS


def clustered(
    rng: np.random.Generator, groups: int = 60, slices: int = 8, *, shared: float = 1.5, signal: float = 1.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels (N,), logits (N, 3), group names (N,); `shared` is the scatter that a group's slices have in common."""
    label_of = np.arange(groups) % 3
    group = np.repeat(np.arange(groups), slices)
    labels = label_of[group]
    logits = signal * np.eye(3)[labels] + rng.normal(size=(len(group), 3))
    logits += shared * rng.normal(size=(groups, 3))[group]
    return labels, logits, np.char.add("g", group.astype(str))


def calibrated(rng: np.random.Generator, groups: int, slices: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `clustered`, but each label is drawn from the softmax of its logits, so that T = 1 is right."""
    group = np.repeat(np.arange(groups), slices)
    logits = (2 * rng.normal(size=(groups, 3)))[group] + rng.normal(size=(len(group), 3))
    powers = np.exp(logits)
    shares = (powers / powers.sum(axis=1, keepdims=True)).cumsum(axis=1)
    labels = (rng.random(len(group))[:, None] > shares).sum(axis=1).clip(0, 2)
    return labels, logits, np.char.add("g", group.astype(str))


def sample(rng: np.random.Generator, **settings: float) -> Sample:
    labels, logits, groups = clustered(rng, **settings)  # type: ignore[arg-type]
    return Sample.of(labels, logits, groups)


def rows(
    rng: np.random.Generator,
    *,
    protocol: str | None = None,
    seed: int | None = None,
    signal: float = 1.5,
    groups: int = 60,
    split: str = "test",
    **columns: object,
) -> list[dict[str, object]]:
    """Rows for write_predictions in five folds."""
    labels, logits, names = clustered(rng, groups=groups, signal=signal)
    made: list[dict[str, object]] = []
    for i, (label, values, group) in enumerate(zip(labels, logits, names, strict=True)):
        row: dict[str, object] = {
            "id": f"{split}/{i:04d}.png",
            "sha256": f"{split}{i:060d}",
            "group": str(group),
            "split": split,
            "fold": int(group[1:]) % 5,
            "label": LABELS[label],
            "logits": values.tolist(),
            **columns,
        }
        made.append(row | {k: v for k, v in (("protocol", protocol), ("seed", seed)) if v is not None})
    return made
