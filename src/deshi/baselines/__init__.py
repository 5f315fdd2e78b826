"""Simple rankers that a student must beat: one algorithm a file."""

from __future__ import annotations

from deshi.baselines.base import Baseline
from deshi.baselines.ease import EASE
from deshi.baselines.itemknn import ItemKNN
from deshi.baselines.markov import Markov
from deshi.baselines.popularity import Popularity

BASELINES: dict[str, type[Baseline]] = {
    "popularity": Popularity,
    "itemknn": ItemKNN,
    "ease": EASE,
    "markov": Markov,
}
