"""Networks that are trained, their item tables, and scorers: whatever ranks the catalogue after a history."""

from deshi.models.base import HistoryError, Recommender, SequentialRecommender
from deshi.models.blocks import BlockRecommender, SequenceBlock
from deshi.models.bsarec import BSARec
from deshi.models.caser import Caser
from deshi.models.gru4rec import GRU4Rec
from deshi.models.hstu import HSTU
from deshi.models.item_table import ItemEmbedding, ItemTable
from deshi.models.layers import Dropout
from deshi.models.ligr import LiGR
from deshi.models.sasrec import SASRec
from deshi.models.scorers import RecommenderScorer, Scorer, SequentialScorer, scorer_of

__all__ = [
    "HSTU", "BSARec", "BlockRecommender", "Caser", "Dropout", "GRU4Rec", "HistoryError", "ItemEmbedding", "ItemTable",
    "LiGR", "Recommender", "RecommenderScorer", "SASRec", "Scorer", "SequenceBlock", "SequentialRecommender",
    "SequentialScorer", "scorer_of",
]  # fmt: skip
