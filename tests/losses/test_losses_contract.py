"""The contract of losses, for each of deshi's."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from deshi.losses import BCE, GBCE, Loss, SampledSoftmax, Softmax
from deshi.testing import LossContract

LOSSES: dict[str, Callable[[], Loss]] = {
    "softmax": Softmax,
    "softmax-chunks": lambda: Softmax(chunk=5),
    "sampled": lambda: SampledSoftmax(16),
    "sampled-popularity": lambda: SampledSoftmax(16, "popularity", 0.5),
    "sampled-batch": lambda: SampledSoftmax(16, "batch"),
    "bce": BCE,
    "bce-shared": lambda: BCE(negatives=3, share=4),
    "gbce": lambda: GBCE(negatives=16),
}


class TestLosses(LossContract):
    @pytest.fixture(params=LOSSES.values(), ids=list(LOSSES))
    def loss(self, request: pytest.FixtureRequest) -> Loss:
        return cast(Loss, request.param())
