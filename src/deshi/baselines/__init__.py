"""Baselines: models without learnt weights that every figure is held against, one algorithm a file."""

from __future__ import annotations

from deshi.baselines.base import Baseline
from deshi.baselines.ease import EASE
from deshi.baselines.events import Events, training_events
from deshi.baselines.itemknn import ItemKNN
from deshi.baselines.markov import Markov
from deshi.baselines.popularity import Popularity

__all__ = [
    "BASELINES",
    "EASE",
    "Baseline",
    "Events",
    "ItemKNN",
    "Markov",
    "Popularity",
    "training_events",
]

BASELINES: dict[str, type[Baseline]] = {
    "popularity": Popularity,
    "itemknn": ItemKNN,
    "ease": EASE,
    "markov": Markov,
}
"""By the name that ``baseline=`` takes."""
