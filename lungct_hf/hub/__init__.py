"""The Hub: read a model at an exact commit, write one as a single commit, and the card that goes with it.

Nothing is loaded before it is asked for: a model in a directory needs neither the Hub client nor the card's template.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .author import author_text, with_author_text
    from .card import render_card, write_card, write_eval_results
    from .model_repo import ModelRepo, split_revision
    from .push import PushResult, push_folder, require_write_token

_HOMES = {
    "author": ("author_text", "with_author_text"),
    "card": ("render_card", "write_card", "write_eval_results"),
    "push": ("PushResult", "push_folder", "require_write_token"),
    "model_repo": ("ModelRepo", "split_revision"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "ModelRepo",
    "PushResult",
    "author_text",
    "push_folder",
    "render_card",
    "require_write_token",
    "split_revision",
    "with_author_text",
    "write_card",
    "write_eval_results",
]


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)
