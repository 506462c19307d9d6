"""A fresh Hub for every test; the samples beside it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from hub_fixtures import environment, hub, no_account, token  # noqa: E402

__all__ = ["environment", "hub", "no_account", "token"]
