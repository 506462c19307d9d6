"""Look for what makes a score on a data set worthless: copies, leaks between splits, and shortcuts to the class."""

from __future__ import annotations

from .findings import CODES, Finding
from .report import Audit, audit_cohort, audit_data

__all__ = ["CODES", "Audit", "Finding", "audit_cohort", "audit_data"]
