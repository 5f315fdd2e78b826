"""Trainings that are interrupted inside an epoch, for tests of resuming."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torch import Tensor

from deshi.training.module import TrainingModule


@contextmanager
def cut_in_second_epoch(monkeypatch: pytest.MonkeyPatch, message: str | None = None) -> Iterator[None]:
    """Interrupt what trains inside, whose error must match ``message``."""
    step = TrainingModule.training_step

    def cut(self: TrainingModule, batch: Any, batch_index: int) -> Tensor:
        if self.current_epoch == 1:
            raise KeyboardInterrupt
        return step(self, batch, batch_index)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", cut)
        with pytest.raises(KeyboardInterrupt, match=message):
            yield
