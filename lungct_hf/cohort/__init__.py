"""Many slices: read a data set into one table with hashes and groups, and split it so that no group leaks."""

from __future__ import annotations

from .cohort import Cohort
from .link import link_slices, regroup
from .listing import BadFile
from .load import load_cohort
from .protocols import make_split
from .split import Split

__all__ = ["BadFile", "Cohort", "Split", "link_slices", "load_cohort", "make_split", "regroup"]
