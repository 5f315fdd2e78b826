"""Simple rankers that a student must beat: one algorithm a file."""

from __future__ import annotations

from deshi.evaluate.reference.base import ReferenceRanker
from deshi.evaluate.reference.ease import EASE
from deshi.evaluate.reference.itemknn import ItemKNN
from deshi.evaluate.reference.markov import Markov
from deshi.evaluate.reference.popularity import Popularity

REFERENCES: dict[str, type[ReferenceRanker]] = {
    "popularity": Popularity,
    "itemknn": ItemKNN,
    "ease": EASE,
    "markov": Markov,
}
