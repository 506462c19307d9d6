"""Group the slices of a loaded cohort by another rule, with or without features of a backbone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..errors import UsageError
from .cohort import Cohort
from .link import find_links
from .rule import NAMED, Cuts, parse_grouping, with_backbone


def regroup(
    cohort: Cohort,
    grouping: str,
    *,
    features: np.ndarray | None = None,
    weights: str = "",
    cuts: Cuts | None = None,
    progress: bool = False,
) -> Cohort:
    """`cohort` with the groups of the rule `grouping`: linked, similarity or file-blocks:N.

    Args:
        features: float32 (N, D), rows of norm 1 (`lungct_hf.model.features.backbone_features`): slices with features
            that are nearly the same are linked too, and "+backbone" is added to the grouping's name.
        weights: what identifies the backbone that gave them, for the manifest.

    Raises:
        UsageError: `grouping` is a column (load the data with it instead) or has no use for features.
        LungCTError: the data do not allow it.
    """
    rule, _ = parse_grouping(grouping)
    if rule is None:
        raise UsageError(f'The grouping "{grouping}" is no rule to link slices by. Needed: {NAMED}.')
    if features is not None:
        rule = with_backbone(rule.removesuffix("+backbone"))
    cuts = cuts or Cuts()
    links = find_links(
        rule,
        cohort.labels,
        cohort.sha256.tolist(),
        cohort.thumbs48,
        cohort.names,
        ids=cohort.ids.tolist(),
        features=features,
        cuts=cuts,
        progress=progress,
    )
    columns = cohort.dataset.column_names
    table = cohort.dataset.remove_columns("group").add_column("group", links.groups)
    return replace(
        cohort,
        dataset=table.select_columns(columns),
        grouping=rule,
        rule=cuts.text(rule, weights),
        reasons=tuple(links.reasons),
    )
