"""Where two metrics.json say something else: the stored one and the one that the stored predictions give."""

from __future__ import annotations

from typing import Any

TOLERANCE = 1e-9
# What chance decides: another numpy may draw other groups.
DRAWN = {"low": 0.01, "high": 0.01, "undefined": 0.01}
STRICT = {"low": 2e-6, "high": 2e-6, "undefined": 1e-4}  # they are stored with 6 and 4 decimals
_BY_CHANCE = {"intervals", "bootstrap", "model_minus", "leak_gap", "coverage", "error", *DRAWN, "constant"}


def differences(
    stored: Any,
    made: Any,
    where: str = "",
    *,
    intervals: bool = True,
    drawn: dict[str, float] = DRAWN,
    complete: bool = False,
) -> list[str]:
    """Sentences on where `stored` says something else than `made`, for all that both name.

    Without `intervals` what was drawn by chance is not compared. `drawn` are the tolerances for the ends of intervals,
    `complete` asks that both name the same things.
    """
    rest: dict[str, Any] = {"intervals": intervals, "drawn": drawn, "complete": complete}
    if isinstance(stored, dict) and isinstance(made, dict):
        skipped = set() if intervals else _BY_CHANCE
        names = [name for name in stored if name in made and name not in skipped]
        found = [line for n in names for line in differences(stored[n], made[n], f"{where}.{n}".lstrip("."), **rest)]
        if complete:
            here = where or "the whole"
            found += [
                f"{here} holds {name!r}, which the predictions do not give" for name in stored if name not in made
            ]
            found += [f"{here} lacks {name!r}" for name in made if name not in stored]
        return found
    if isinstance(stored, list) and isinstance(made, list) and len(stored) == len(made):
        return [line for s, m in zip(stored, made, strict=True) for line in differences(s, m, where, **rest)]
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (stored, made))
    allowed = drawn.get(where.rpartition(".")[2], TOLERANCE)
    same = abs(stored - made) <= allowed if numbers else stored == made
    return [] if same else [f"{where} is stored as {stored}, the predictions give {made}"]
