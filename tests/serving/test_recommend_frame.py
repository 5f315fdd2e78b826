"""Recommendations in memory: the exported engine's answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from deshi.configuration.schemas import PathsConfig
from deshi.data.histories import histories_of
from deshi.models.recommend import Catalogue, recommend
from deshi.models.scorers import Scorer
from deshi.runs import Run
from deshi.serving.engine import Engine
from deshi.types import Batch, DeshiError

HISTORIES = {"ann": ["3", "14", "15"], "bob": ["9", "new", "2"], "cy": ["nothing"], "dee": ["1"] * 12 + ["40"]}


LIST = {"user_id": ["ann"] * 3, "item_id": HISTORIES["ann"], "timestamp": [1, 2, 3]}


@pytest.mark.parametrize("filter_seen", [True, False])
def test_answers_are_the_exported_engines(filter_seen: bool, _finished_root: Path, engine: Engine) -> None:
    """Someone who tries a run in a notebook must see what the service will answer, popular items included."""
    scorer = Run.open("tiny_seed0", PathsConfig.model_validate({"root": str(_finished_root)})).scorer()
    catalogue = Catalogue(engine.bundle.items, engine.bundle.items["count"].to_numpy())
    histories = histories_of(HISTORIES, engine.bundle.items["item_id"])
    answers = recommend(scorer, catalogue, histories, 7, filter_seen)
    assert answers.columns == ["user_id", "item_id", "score", "rank", "title"]
    assert answers["user_id"].unique(maintain_order=True).to_list() == list(HISTORIES)
    for user, history in HISTORIES.items():
        answer = answers.filter(pl.col("user_id") == user)
        expected = engine.recommend(history, 7, filter_seen=filter_seen).items
        assert answer["item_id"].to_list() == [item.item_id for item in expected]
        assert answer["title"].to_list() == [item.title for item in expected]
        assert answer["score"].to_list() == pytest.approx([item.score for item in expected], rel=1e-4)
        assert answer["rank"].to_list() == list(range(1, 8))


def test_the_default_filter_is_the_engines(_finished_root: Path, engine: Engine) -> None:
    """Without a word both leave out what was seen, or both don't."""
    answers = Run.open("tiny_seed0", PathsConfig(root=_finished_root)).recommend(pl.DataFrame(LIST), 5)
    expected = engine.recommend(HISTORIES["ann"], 5).items
    assert answers["item_id"].to_list() == [item.item_id for item in expected]


class Constant(Scorer):
    """A scorer that can't tell items apart."""

    n_items = 4

    def scores(self, batch: Batch) -> Tensor:
        return torch.zeros(len(batch.items), 4)


def test_ties_and_short_lists() -> None:
    """Equal scores go by index, and a list ends where no unseen item is left."""
    items = pl.DataFrame({"item_id": ["a", "b", "c", "d"], "title": ["A", None, None, None]})
    histories = histories_of({1: ["c"], 2: ["a", "b", "c", "d"], 3: []}, items["item_id"])
    answers = recommend(Constant(), Catalogue(items, np.array([1, 5, 1, 0])), histories, 10)
    assert answers.select("user_id", "item_id").rows() == [
        *(("1", item) for item in "abd"), *(("3", item) for item in "bacd")
    ]  # fmt: skip
    assert answers["title"].to_list() == ["A", None, None, None, "A", None, None]
    with pytest.raises(DeshiError, match="k is 0"):
        recommend(Constant(), Catalogue(items, np.ones(4, int)), histories, 0)
