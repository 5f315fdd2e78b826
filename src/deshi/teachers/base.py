"""Resources that a teacher is built from, and the base class of teachers that aren't trained by gradients."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from deshi.arrays import Ints
from deshi.configuration.needs import Component
from deshi.configuration.schemas import RayConfig
from deshi.data.bundle import Bundle
from deshi.data.example_batches import ExampleBatches
from deshi.models.base import SequentialRecommender
from deshi.models.scorers import Scorer
from deshi.types import DeshiError

LoadScorer = Callable[[str, "torch.device | str"], tuple[Scorer, dict[str, Any]]]


def no_runs(name: str, device: torch.device | str) -> tuple[Scorer, dict[str, Any]]:
    """Stands for the runs where there are none.

    Raises:
        DeshiError: always.
    """
    raise DeshiError(f"The run {name!r} can't be loaded: this teacher was built without access to runs.")


def no_ranges() -> tuple[Ints, Ints]:
    """Stands for the training events where a teacher was built without a split.

    Raises:
        DeshiError: always.
    """
    raise DeshiError("The training events are unknown: this teacher was built without a split.")


@dataclass(frozen=True, eq=False)
class Resources:
    """Data and finished runs that a teacher may use when it is built.

    Attributes:
        bundle: the data: item texts, ids, fingerprint.
        cache: folder of downloads and of computed embeddings.
        load_student: from the name of a finished run of ``deshi fit`` (folder, folder's name or ``latest``) to its
            student in evaluation mode and its record ``run.json``; refuses runs on other data.
        device: where frozen models are to be computed.
        load_scorer: from the name of a finished run of ``deshi fit`` or ``deshi teach`` and a device to its scorer and
            its record; refuses runs on other data.
        ray: a Ray cluster whose workers encode texts; None: this process does.
        ranges: ``(n_users,)`` flat positions: the first, and one past the last event that the teacher may learn from.
    """

    bundle: Bundle
    cache: Path
    load_student: Callable[[str], tuple[SequentialRecommender, dict[str, Any]]]
    device: torch.device
    load_scorer: LoadScorer = no_runs
    ranges: Callable[[], tuple[Ints, Ints]] = no_ranges
    ray: RayConfig | None = None


class FittedTeacher(Component, Scorer):
    """A teacher that isn't trained by gradients: a scorer with a small state."""

    @abstractmethod
    def fit(self, validation: ExampleBatches) -> dict[str, Any]:
        """Choose whatever is to be chosen on the validation examples; returns the state, JSON-able."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Take up the state that :meth:`fit` returned."""

    def validation_metrics(self) -> dict[str, float] | None:
        """Metrics at 10 on validation, as ``validation/NAME``, that :meth:`fit` came to where answers are costly.

        None elsewhere: all examples are ranked.
        """
        return None

    def take_over(self, state: dict[str, Any]) -> dict[str, Any]:
        """Take up the choices of another run of this teacher, whose refit this one is.

        Args:
            state: that :meth:`fit` of the selected teacher returned.

        Returns:
            the state of this one: the choices without the validation figures of what was ``tried``.
        """
        chosen = {key: value for key, value in state.items() if key != "tried"}
        self.restore(chosen)
        return chosen
