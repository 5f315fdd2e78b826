"""Warm start: a student begins with an older run's weights, its item vectors matched by the items' ids."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from deshi.artifacts import read_parquet
from deshi.configuration.run_folders import VOCABULARY_FILE
from deshi.data.bundle import Bundle
from deshi.models.base import Recommender, SequentialRecommender
from deshi.models.item_table import ItemEmbedding
from deshi.runs import Run
from deshi.types import ITEM, DeshiError

log = logging.getLogger(__name__)


def start_from(network: Recommender, run: Run, bundle: Bundle) -> dict[str, Any]:
    """Fill a new student with the weights of an older run.

    Items of both catalogues keep the older run's vectors, found by id through both vocabularies; new items, and the
    padding, stay as they were initialised.

    Args:
        network: the new student.
        run: the older one, of ``deshi fit`` or ``deshi distill``.
        bundle: the data of the new student.

    Returns:
        the run's name and the numbers of items taken over and new, for the record.

    Raises:
        DeshiError: for another kind of network, weights of other shapes, an older run that has trained on validation
            events, or one whose items aren't known any more.
    """
    older = run.student()
    if type(older) is not type(network):
        raise _misfit(run, f"holds a {type(older).__name__}, but the student is a {type(network).__name__}")
    train = run.config.train
    if train.refit or train.train_targets == "including_validation":
        raise DeshiError(
            f"train.start_from={run.name} has trained on validation events, by which the new student is selected: the "
            "choice would mean nothing. Start from a run with train.refit=false and train.train_targets=train."
        )
    assert isinstance(network, SequentialRecommender)
    here, there = _matches(bundle, _item_ids(run))
    _copy(network, older, run, here, there)
    known = {"run": run.name, "items": len(here), "new_items": bundle.n_items - len(here)}
    log.info("weights of %s; vectors of %d items by their ids, %d items are new", *known.values())
    return known


def _item_ids(run: Run) -> pl.Series:
    """The item ids of a run in index order, as it kept them, or of its data if they are unchanged."""
    path = run.folder / VOCABULARY_FILE
    return read_parquet(path, (ITEM,))[ITEM] if path.is_file() else run.bundle.vocabulary[ITEM]


def _matches(bundle: Bundle, older: pl.Series) -> tuple[Tensor, Tensor]:
    """Indices ``(M,)`` of the items of both vocabularies, in the new one and in the older one."""
    position = pl.DataFrame({ITEM: older, "there": np.arange(len(older))})
    both = bundle.vocabulary.join(position, on=ITEM, how="inner", maintain_order="left")
    return both["index"].cast(pl.Int64).to_torch(), both["there"].to_torch()


def _copy(network: nn.Module, older: nn.Module, run: Run, here: Tensor, there: Tensor) -> None:
    """Copy all weights; of item tables the rows of the matched items, which stand one below their index."""
    tables = {f"{name}.weight" for name, part in network.named_modules() if isinstance(part, ItemEmbedding)}
    weights, previous = network.state_dict(), older.state_dict()
    shapes = {name: tuple(weight.shape[name in tables :]) for name, weight in weights.items()}
    before = {name: tuple(weight.shape[name in tables :]) for name, weight in previous.items()}
    misfits = [name for name in {**shapes, **before} if shapes.get(name) != before.get(name)]
    if misfits:
        name = misfits[0]
        raise _misfit(run, f"has {name} of shape {before.get(name)}, but the student's is {shapes.get(name)}")
    with torch.no_grad():
        for name, weight in weights.items():
            if name in tables:
                weight[here + 1] = previous[name][there + 1]
            else:
                weight.copy_(previous[name])


def _misfit(run: Run, reason: str) -> DeshiError:
    return DeshiError(
        f"train.start_from={run.name} {reason}. Train a student with that run's student.* keys, or start anew."
    )
