"""Encoders of texts: a sentence encoder, the hidden states of a causal LM, or the words alone.

The default sentence encoder is all-MiniLM-L6-v2 (Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084; Wang et
al. 2020, https://arxiv.org/abs/2002.10957): 22 million parameters, 384 numbers a text.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from deshi.configuration.needs import LLM as PACKAGES
from deshi.configuration.needs import Component, Need
from deshi.teachers._models import PretrainedModel, find_model, model_on_disk, quiet
from deshi.teachers.llm import LLM
from deshi.types import DeshiError

Forward = Callable[[Tensor, Tensor], Tensor]

MOST_TERMS = 100_000
"""Terms that a :class:`WordEncoder` counts at most, the most frequent ones."""
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
"""Thai, Lao, Burmese, Khmer, kana and Chinese characters."""
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, eq=False)
class LoadedEncoder:
    """An encoder that is ready to work.

    Attributes:
        tokenizer: of transformers; pads on the right.
        forward: from token ids and attention mask, ``(B, L)`` both, to vectors ``(B, D)`` float32.
        device: where ``forward`` expects its input.
    """

    tokenizer: Any
    forward: Forward
    device: torch.device


class Encoder(Component, ABC):
    """A configuration node that names an encoder."""

    @abstractmethod
    def identity(self, cache: Path, device: torch.device) -> dict[str, Any]:
        """All that decides the vectors, as JSON-able values, without loading the weights."""

    @abstractmethod
    def is_on_disk(self, cache: Path) -> bool:
        """Whether no files need to be fetched."""

    @abstractmethod
    def origin(self, cache: Path) -> str:
        """Where it came from, for a run's record."""


class NeuralEncoder(Encoder):
    """A pretrained network, which encodes each text by itself.

    Attributes:
        max_tokens: longer texts are cut.
        batch_tokens: how many tokens, padding included, go through the model at once.
    """

    max_tokens: int
    batch_tokens: int

    @property
    @abstractmethod
    def model(self) -> str:
        """A name on the Hugging Face hub or a local path."""

    @abstractmethod
    def load(self, cache: Path, device: torch.device) -> LoadedEncoder:
        """Load the model."""

    def is_on_disk(self, cache: Path) -> bool:
        """Whether the model's files needn't be fetched."""
        return model_on_disk(self.model, cache) is not None

    def origin(self, cache: Path) -> str:
        """The place that served the model."""
        return find_model(self.model, cache).origin


@dataclass(frozen=True)
class SentenceEncoder(NeuralEncoder):
    """A bidirectional encoder in the hub's layout (BERT and its like).

    Attributes:
        name: a name on the Hugging Face hub or a local folder.
        dtype: number format; ``bf16`` rounds, and is several times faster on processors that compute in it.
        pooling: ``mean`` over the real tokens, or ``cls``, the first one.
        normalize: scale every vector to length one.
        max_tokens: longer texts are cut.
        batch_tokens: how many tokens, padding included, go through the model at once.
    """

    name: str = "sentence-transformers/all-MiniLM-L6-v2"
    dtype: Literal["fp32", "bf16"] = "fp32"
    pooling: Literal["mean", "cls"] = "mean"
    normalize: bool = True
    max_tokens: int = 256
    batch_tokens: int = 8192

    @classmethod
    def needs(cls, arguments: Mapping[str, Any]) -> list[Need]:
        """The packages and the model's files."""
        return [PACKAGES, PretrainedModel(str(arguments.get("name", cls.name)))]

    def identity(self, cache: Path, device: torch.device) -> dict[str, Any]:
        """All that decides the vectors, without loading the weights."""
        return {
            "name": self.name,
            "sha256": find_model(self.name, cache).sha256,
            **({} if self.dtype == "fp32" else {"dtype": self.dtype}),  # absent: older cached vectors keep their key
            "pooling": self.pooling,
            "normalize": self.normalize,
            "max_tokens": self.max_tokens,
        }

    @property
    def model(self) -> str:
        """Its name."""
        return self.name

    def load(self, cache: Path, device: torch.device) -> LoadedEncoder:
        """Load the model.

        Raises:
            DeshiError: if no place has it, or weights are missing in its files.
        """
        transformers = PACKAGES.load("transformers")
        folder = find_model(self.name, cache).path
        if folder.is_file():
            raise DeshiError(f"{folder} is a GGUF file: a sentence encoder needs a folder. Use a CausalEncoder.")
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model, report = transformers.AutoModel.from_pretrained(
                folder, output_loading_info=True, local_files_only=True, use_safetensors=True, dtype=_DTYPES[self.dtype]
            )
        missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))  # pooler: not used
        if missing:
            raise DeshiError(f"The weights of {self.name} in {folder} lack {missing[:5]}. The files are incomplete.")
        model.to(device).eval().requires_grad_(False)

        def forward(tokens: Tensor, mask: Tensor) -> Tensor:
            states = model(input_ids=tokens, attention_mask=mask).last_hidden_state.float()
            pooled = states[:, 0] if self.pooling == "cls" else mean_of_real(states, mask)
            return torch.nn.functional.normalize(pooled, dim=1) if self.normalize else pooled

        return LoadedEncoder(tokenizer, forward, device)


@dataclass(frozen=True)
class CausalEncoder(NeuralEncoder):
    """The last layer's hidden states of a causal LM.

    Attributes:
        llm: the model; by default in fp32, so that the vectors are the same wherever they are computed.
        pooling: ``mean`` over the real tokens, or ``last``, the only one that has seen the whole text.
        max_tokens: longer texts are cut.
        batch_tokens: how many tokens, padding included, go through the model at once.
    """

    llm: LLM = field(default_factory=lambda: LLM(dtype="fp32"))
    pooling: Literal["mean", "last"] = "mean"
    max_tokens: int = 128
    batch_tokens: int = 4096

    @classmethod
    def needs(cls, arguments: Mapping[str, Any]) -> list[Need]:
        """Those of the default LLM, if none is given."""
        return [] if arguments.get("llm") else LLM.needs({})

    def identity(self, cache: Path, device: torch.device) -> dict[str, Any]:
        """All that decides the vectors, without loading the weights."""
        return self.llm.identity(cache, device) | {"pooling": self.pooling, "max_tokens": self.max_tokens}

    @property
    def model(self) -> str:
        """The LLM's name."""
        return self.llm.name

    def load(self, cache: Path, device: torch.device) -> LoadedEncoder:
        """Load the model; errors as :meth:`deshi.teachers.llm.LLM.load`."""
        loaded = self.llm.load(cache, device)
        loaded.tokenizer.padding_side = "right"
        pool = last_real if self.pooling == "last" else mean_of_real

        def forward(tokens: Tensor, mask: Tensor) -> Tensor:
            return pool(loaded.hidden(loaded.embed_tokens(tokens), mask).float(), mask)

        return LoadedEncoder(loaded.tokenizer, forward, device)


@dataclass(frozen=True)
class WordEncoder(Encoder):
    """The words of the texts: TF-IDF of words and pairs of words, reduced by a truncated SVD; no language model.

    Latent semantic analysis (Deerwester et al. 1990, https://doi.org/10.1002/(SICI)1097-4571(199009)41:6%3C391::AID-ASI1%3E3.0.CO;2-9).
    It is fitted on the texts that it encodes. Terms that a single text has are left out, and of more than 100,000 the
    rarest. What a language model adds is what it adds to this.

    Attributes:
        dim: numbers of a vector; fewer where the texts span less.
        analyzer: ``word``; or ``char_wb``, 2 to 5 characters of a word, for languages that put no spaces between words:
            ``auto`` takes it where a tenth of the characters is of such a script, or where no two texts share a word.

    Raises:
        DeshiError: if ``dim`` is below 1.
    """

    dim: int = 256
    analyzer: Literal["auto", "word", "char_wb"] = "auto"

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise DeshiError(f"WordEncoder got dim={self.dim}, expected at least 1.")

    def identity(self, cache: Path, device: torch.device) -> dict[str, Any]:
        """All that decides the vectors."""
        return {"name": "words", "dim": self.dim, "analyzer": self.analyzer}

    def is_on_disk(self, cache: Path) -> bool:
        """True: there are no files."""
        return True

    def origin(self, cache: Path) -> str:
        """The texts themselves."""
        return "the texts"

    def encode(self, texts: Sequence[str]) -> Tensor:
        """The vectors of distinct texts.

        Returns:
            ``(N, D)`` float32, each of length one, or zeros for a text that shares no term with another.

        Raises:
            DeshiError: if no two texts have a term in common.
        """
        from sklearn.decomposition import TruncatedSVD

        analyzers: list[str] = [self.analyzer]
        if self.analyzer == "auto":
            analyzers = ["char_wb"] if _unspaced(texts) else ["word", "char_wb"]
        found = (_tf_idf(texts, analyzer) for analyzer in analyzers)
        weights = next((each for each in found if each is not None), None)
        if weights is None:
            raise DeshiError(
                f"The {len(texts)} different texts of the items have no term in common (analyzer={self.analyzer}). "
                "Use another encoder (recipe=counts has none of words), or analyzer=auto."
            )
        dim = min(self.dim, min(weights.shape) - 1)
        if dim < 1:
            return torch.from_numpy(weights.toarray()).float()
        reduced = TruncatedSVD(dim, algorithm="arpack", random_state=0).fit_transform(weights)
        vectors = torch.from_numpy(reduced).float()
        lengths = vectors.norm(dim=1, keepdim=True)
        return torch.where(lengths > 1e-6, vectors / lengths.clamp(min=1e-6), 0.0)  # below it is rounding


def _unspaced(texts: Sequence[str]) -> bool:
    """Whether a tenth of the characters are of a script without spaces between words."""
    return sum(len(_UNSPACED.findall(text)) for text in texts) * 10 >= max(1, sum(map(len, texts)))


def _tf_idf(texts: Sequence[str], analyzer: str) -> Any:
    """The weights ``(N, T)``, sparse, of the terms that two texts or more share; None if there is no such term."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    ngrams = (1, 2) if analyzer == "word" else (2, 5)
    terms = TfidfVectorizer(analyzer=analyzer, ngram_range=ngrams, min_df=2, max_features=MOST_TERMS, sublinear_tf=True)
    try:
        return terms.fit_transform(texts)
    except ValueError:  # "no terms remain", "empty vocabulary"
        return None


def mean_of_real(states: Tensor, mask: Tensor) -> Tensor:
    """The mean of ``(B, L, D)`` over the positions where ``mask`` ``(B, L)`` is 1; zeros where there are none."""
    weights = mask.unsqueeze(2).to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def last_real(states: Tensor, mask: Tensor) -> Tensor:
    """The state ``(B, D)`` at the last position where ``mask`` is 1, padding being on the right."""
    last = (mask.sum(dim=1) - 1).clamp(min=0)
    return states[torch.arange(len(states), device=states.device), last]
