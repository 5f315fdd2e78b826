"""Simple rankers that a student must beat: one algorithm a file."""

from __future__ import annotations

from deshi.baselines.base import ReferenceRanker
from deshi.baselines.ease import EASE
from deshi.baselines.itemknn import ItemKNN
from deshi.baselines.markov import Markov
from deshi.baselines.popularity import Popularity

REFERENCES: dict[str, type[ReferenceRanker]] = {
    "popularity": Popularity,
    "itemknn": ItemKNN,
    "ease": EASE,
    "markov": Markov,
}
