"""Evaluation targets that were trained on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from deshi.arrays import Ints
from deshi.data.splits import Examples


def leaked_targets(examples: Examples, ends: Ints) -> int:
    """How many of the examples' targets lie inside the ranges that were trained on.

    Args:
        examples: whose targets are counted.
        ends: ``(n_users,)`` flat positions, one past each user's last event that was trained on.
    """
    users = np.repeat(examples.users, np.diff(examples.target_offsets))
    return int((examples.target_rows < ends[users]).sum())


def leak_warnings(parts: Mapping[str, Examples], ends: Ints) -> list[str]:
    """A sentence for each part with targets that were trained on."""
    counts = {part: leaked_targets(examples, ends) for part, examples in parts.items()}
    return [
        f"LEAK: {count} of {len(parts[part].target_rows)} {part} targets were trained on; the {part} figures say "
        "nothing about new events."
        for part, count in counts.items()
        if count
    ]
