"""The popularity ranker that an outsider's lists are measured against."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deshi.auditing.pair_alignment import popularity_ranks


class _Ids(list[str]):
    known = 12


def test_every_target_of_a_user_has_its_own_rank() -> None:
    """With several targets a user, each is ranked among what the user doesn't have: counted item by item."""
    random = np.random.default_rng(3)
    user, item = np.repeat(np.arange(6), 8), random.integers(0, 11, 48)
    targets, owners = np.array([11, 3, 7, 2]), np.array([0, 0, 0, 5])
    pair: Any = SimpleNamespace(
        history=SimpleNamespace(user=user, item=item), items=_Ids("abcdefghijkl"), users=_Ids("uvwxyz"),
        target=targets, target_user=owners,
    )  # fmt: skip
    times = np.bincount(item, minlength=12)
    for place, found in enumerate(popularity_ranks(pair)):
        own, had = times[targets[place]], set(item[user == owners[place]].tolist())
        above = sum(times[other] > own for other in range(12) if other not in had)
        equal = sum(times[other] == own for other in range(12)) - 1
        assert found == pytest.approx(1 + above + equal / 2)
