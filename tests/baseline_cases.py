"""Histories and fitted baselines for the tests of baselines."""

from __future__ import annotations

import torch

from deshi.baselines import Baseline
from deshi.data.bundle import Bundle
from deshi.types import PAD, Batch


def histories(*rows: list[int]) -> Batch:
    """A batch of the given histories."""
    width = max(len(row) for row in rows)
    items = torch.tensor([row + [PAD] * (width - len(row)) for row in rows])
    nothing = torch.full_like(items, PAD)
    return Batch(torch.arange(len(rows)), items, torch.tensor([len(row) for row in rows]), nothing, nothing)


def fit_on_all(baseline: Baseline, bundle: Bundle) -> Baseline:
    """The baseline with every event of the bundle as training."""
    return baseline.fit(bundle, bundle.offsets[:-1], bundle.offsets[1:])
