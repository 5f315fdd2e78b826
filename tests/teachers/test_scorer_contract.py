"""The contract of scorers, for networks, cross-fitted teachers and ensembles of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from deshi.models.base import Recommender
from deshi.models.gru4rec import GRU4Rec
from deshi.models.sasrec import SASRec
from deshi.models.scorers import RecommenderScorer, Scorer, SequentialScorer
from deshi.teachers.base import Resources
from deshi.teachers.cross_fit import CrossFitted
from deshi.teachers.ensemble import Ensemble
from deshi.testing import TeacherContract

ITEMS = 20


def network(kind: type, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(ITEMS, 8, 4)


def cross_fitted() -> CrossFitted:
    return CrossFitted([SequentialScorer(network(SASRec, seed)) for seed in (1, 2)], np.array([0, 1, 1, 0]))


def ensemble() -> Ensemble:
    scorers: dict[str, Scorer] = {"one": SequentialScorer(network(GRU4Rec, 3)), "two": cross_fitted()}
    resources = Resources(
        cast(Any, None), Path(), cast(Any, None), torch.device("cpu"), lambda name, _: (scorers[name], {})
    )
    return Ensemble(ITEMS, resources, ["one", "two"], weights=[0.3, 0.7])


class TestScorers(TeacherContract):
    @pytest.fixture(params=["sequential", "whole histories", "cross-fitted", "ensemble"])
    def scorer(self, request: pytest.FixtureRequest) -> Scorer:
        scorers: dict[str, Any] = {
            "sequential": lambda: SequentialScorer(network(SASRec, 0)),
            "whole histories": lambda: RecommenderScorer(cast(Recommender, network(SASRec, 0))),
            "cross-fitted": cross_fitted,
            "ensemble": ensemble,
        }
        return cast(Scorer, scorers[request.param]())
