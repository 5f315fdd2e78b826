"""Teachers: networks over texts, language models that recommend, ensembles, and files of other programs."""

from deshi.teachers._embedding import embed, encode
from deshi.teachers._ilora_answers import Answers
from deshi.teachers._item_text import Template, item_names, item_texts
from deshi.teachers._weight_search import Pool, search_weights
from deshi.teachers.base import FittedTeacher, Resources
from deshi.teachers.bigrec import BigRec, Lora
from deshi.teachers.cost import Budget, Prices
from deshi.teachers.cross_fit import CrossFitted, draw_folds
from deshi.teachers.encoders import CausalEncoder, Encoder, NeuralEncoder, SentenceEncoder, WordEncoder
from deshi.teachers.endpoint import Endpoint
from deshi.teachers.ensemble import Ensemble
from deshi.teachers.file_vectors import ItemVectors
from deshi.teachers.files import RankedLists, ScoreMatrix
from deshi.teachers.ilora import ILoRA
from deshi.teachers.instance_lora import InstanceLora
from deshi.teachers.item_embeddings import ItemEmbeddings
from deshi.teachers.llm import LLM, LoadedLLM
from deshi.teachers.pairwise import PairwiseTeacher
from deshi.teachers.prompts import Prompt
from deshi.teachers.rerank import Rerank
from deshi.teachers.rerank_prompts import RerankPrompt
from deshi.teachers.residual_codes import ItemCodes, ResidualCodes
from deshi.teachers.semantic_ids import SemanticIds
from deshi.teachers.text import Text
from deshi.teachers.whitening import pca, whiten

__all__ = [
    "LLM", "Answers", "BigRec", "Budget", "CausalEncoder", "CrossFitted", "Encoder", "Endpoint", "Ensemble",
    "FittedTeacher", "ILoRA", "InstanceLora", "ItemCodes", "ItemEmbeddings", "ItemVectors", "LoadedLLM", "Lora",
    "NeuralEncoder", "PairwiseTeacher", "Pool", "Prices", "Prompt", "RankedLists", "Rerank", "RerankPrompt",
    "ResidualCodes", "Resources", "ScoreMatrix", "SemanticIds", "SentenceEncoder", "Template", "Text", "WordEncoder",
    "draw_folds", "embed", "encode", "item_names", "item_texts", "pca", "search_weights", "whiten",
]  # fmt: skip
