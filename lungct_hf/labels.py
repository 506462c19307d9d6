"""Transitional: the classes of schema 1. Everything takes its classes from the data or the model instead."""

from __future__ import annotations

from .known_sets import schema_1_classes

SCHEMA_1 = schema_1_classes()
LABELS: tuple[str, ...] = SCHEMA_1.names
ALIASES: dict[str, str] = {name: name for name in LABELS} | dict(SCHEMA_1.aliases)


def canonical_label(name: str) -> str | None:
    return SCHEMA_1.find(name)
