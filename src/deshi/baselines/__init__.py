"""Baselines: models without learnt weights that every figure is held against, one algorithm a file."""

from __future__ import annotations

from deshi.baselines._base import Baseline
from deshi.baselines._ease import EASE
from deshi.baselines._events import Events, training_events
from deshi.baselines._itemknn import ItemKNN
from deshi.baselines._markov import Markov
from deshi.baselines._pairwise import Pairwise, similar_items
from deshi.baselines._popularity import Popularity
from deshi.baselines._search import Grid, best_settings
from deshi.baselines._seqrules import SeqRules
from deshi.baselines._star import Star

__all__ = [
    "BASELINES",
    "EASE",
    "STAR",
    "Baseline",
    "Events",
    "Grid",
    "ItemKNN",
    "Markov",
    "Pairwise",
    "Popularity",
    "SeqRules",
    "Star",
    "best_settings",
    "similar_items",
    "training_events",
]

BASELINES: dict[str, type[Baseline]] = {
    "popularity": Popularity,
    "itemknn": ItemKNN,
    "ease": EASE,
    "markov": Markov,
    "pairwise": Pairwise,
    "seqrules": SeqRules,
}
"""By the name that ``baseline=`` takes."""

STAR = "star"
"""The name of the baseline :class:`Star`, which is made of the items' text vectors."""
