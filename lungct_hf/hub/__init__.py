"""The Hub: read a model at an exact commit, write one as a single commit, and the card that goes with it."""

from .author import author_text, with_author_text
from .card import render_card, write_card, write_eval_results
from .fetch import FetchedModel, fetch_model, split_revision
from .push import PushResult, push_folder, require_write_token

__all__ = [
    "FetchedModel",
    "PushResult",
    "author_text",
    "fetch_model",
    "push_folder",
    "render_card",
    "require_write_token",
    "split_revision",
    "with_author_text",
    "write_card",
    "write_eval_results",
]
