"""The popularity ranker that an outsider's lists are measured against."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deshi.auditing._pair_alignment import popularity_ranks


def test_every_target_of_a_user_has_its_own_rank() -> None:
    """With several targets a user, each is ranked among what the user doesn't have: counted item by item."""
    random = np.random.default_rng(3)
    user, item = np.repeat(np.arange(6), 8), random.integers(0, 11, 48)
    targets, owners = np.array([11, 3, 7, 2]), np.array([0, 0, 0, 5])
    pair: Any = SimpleNamespace(
        history=(user, item), bundle=SimpleNamespace(n_items=12), n_known_items=12, targets=targets, target_users=owners
    )
    times = np.bincount(item, minlength=12)
    for number, rank in enumerate(popularity_ranks(pair)):
        of_target, had = times[targets[number]], set(item[user == owners[number]].tolist())
        above = sum(times[other] > of_target for other in range(12) if other not in had)
        equal = sum(times[other] == of_target for other in range(12)) - 1
        assert rank == pytest.approx(1 + above + equal / 2)
