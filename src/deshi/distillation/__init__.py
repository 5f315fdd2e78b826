"""Distillation: the objective of a training, terms on soft labels, selection strategies, item tables of a teacher."""

from deshi.distillation.cd import CD
from deshi.distillation.de import DE
from deshi.distillation.dllm2rec import DLLM2Rec, DLLM2RecReleased
from deshi.distillation.dro import DRO
from deshi.distillation.embedding import EmbeddingMatch
from deshi.distillation.item_tables import InitialisedItemTable, ItemTableAdapter
from deshi.distillation.listwise import ListwiseKL
from deshi.distillation.margin_mse import MarginMSE
from deshi.distillation.objective import Distillation, Objective
from deshi.distillation.rd import RD
from deshi.distillation.rrd import RRD
from deshi.distillation.score_chunk import ScoreChunk
from deshi.distillation.selection import SelectionStrategy
from deshi.distillation.selection_inputs import SelectionInputs
from deshi.distillation.soft_label_batches import SoftLabelBatch, SoftLabelLists
from deshi.distillation.term import Context, HiddenTerm, ScoreTerm, Term
from deshi.distillation.unkd import UnKD

__all__ = [
    "CD", "DE", "DRO", "RD", "RRD", "Context", "DLLM2Rec", "DLLM2RecReleased", "Distillation", "EmbeddingMatch",
    "HiddenTerm", "InitialisedItemTable", "ItemTableAdapter", "ListwiseKL", "MarginMSE", "Objective", "ScoreChunk",
    "ScoreTerm", "SelectionInputs", "SelectionStrategy", "SoftLabelBatch", "SoftLabelLists", "Term", "UnKD",
]  # fmt: skip
