"""The choice of rows by a configured selection strategy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deshi.arrays import Ints
from deshi.configuration.schemas import PathsConfig
from deshi.configuration.targets import build
from deshi.data.bundle import Bundle
from deshi.distillation.selection import SelectionStrategy
from deshi.distillation.selection_inputs import SelectionInputs
from deshi.models.base import SequentialRecommender
from deshi.runs import Run
from deshi.soft_labels import Histories, SoftLabels
from deshi.types import DeshiError

_STREAM = 37  # so that no other part of deshi draws the same numbers from the same seed


def choose(
    node: dict[str, Any],
    histories: Histories,
    rows: Ints,
    *,
    bundle: Bundle,
    split: dict[str, Any],
    paths: PathsConfig,
    soft_labels: SoftLabels | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> NDArray[np.bool_]:
    """What a strategy chooses among training rows.

    Args:
        node: the strategy's.
        histories: what the rows are about.
        rows: ``(M,)`` ascending flat positions to choose from.
        bundle: the data.
        split: how the split is configured; the student that is looked at must have been trained on it.
        paths: where run folders lie.
        soft_labels: the teacher's answers; None where they are yet to be asked for.
        seed: of what is drawn.
        device: where the student computes.

    Returns:
        ``(R,)`` over all events of ``histories``.

    Raises:
        DeshiError: for a node that is no strategy, a student of other data or of another split, or inputs that
            the strategy needs and that don't exist.
    """
    strategy = build(node)
    if not isinstance(strategy, SelectionStrategy):
        raise DeshiError(
            f"{node['_target_']} is no strategy, expected a class of deshi.distillation.selection or one like it."
        )
    student = None if strategy.student is None else _student(paths, strategy.student, bundle, split)
    lists = soft_labels if "teacher" in strategy.needs else None
    inputs = SelectionInputs(histories, rows, student, lists, device)
    return strategy.choose(inputs, np.random.Generator(np.random.SFC64([seed, _STREAM])))


def _student(paths: PathsConfig, name: str, bundle: Bundle, split: dict[str, Any]) -> SequentialRecommender:
    """The student that validation selected, if it knows nothing that the choice must not depend on."""
    run = Run.open(name, paths)
    run.check_same_data(bundle)
    trained = run.config
    if trained.split != split or trained.train.train_targets == "including_validation":
        raise DeshiError(
            f"The student of {run.folder} was trained on the split {trained.split} with train.train_targets="
            f"{trained.train.train_targets}, the choice is for {split}: it may have seen what is validated and tested "
            "on. Give a run of the same split that was trained on the training events alone."
        )
    return run.selected_student()
