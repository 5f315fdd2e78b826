"""The protocol of a distillation term: what it is given, what it returns, how its weight moves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from deshi.distillation.chunk import Chunk
from deshi.distillation.soft_label_batches import Signal
from deshi.soft_labels.manifest import SCORE_KINDS
from deshi.types import DeshiError


@dataclass(frozen=True)
class Context:
    """What a term may need to know before training.

    Attributes:
        n_items: number of items.
        dim: width of the student's hidden states.
        kind: what the teacher's scores are, one of :data:`deshi.soft_labels.manifest.SCORE_KINDS`.
        k: the longest list.
        counts: ``(n_items,)`` int64, how often each item is a training target.
        item_embeddings: ``(n_items, D)`` float32, the teacher's vectors of the items, or None if it left none.
    """

    n_items: int
    dim: int
    kind: str
    k: int
    counts: Tensor
    item_embeddings: Tensor | None = None

    def needed_embeddings(self, who: str) -> Tensor:
        """The teacher's item vectors.

        Raises:
            DeshiError: if the store has none.
        """
        if self.item_embeddings is None:
            raise DeshiError(
                f"{who} needs the teacher's item vectors, but no soft-label store here holds item_embeddings. Export a "
                "teacher that has some (teacher=text, ilora, bigrec), import a foreign one with its vectors, or leave "
                f"{who} out."
            )
        return self.item_embeddings


class Term(nn.Module, ABC):
    """One term of a distillation: a value per position, averaged over the distilled positions, times a weight.

    Args:
        weight: factor at the beginning of training.
        final_weight: factor at its end, reached linearly over the epochs; None keeps ``weight``.
    """

    kinds: tuple[str, ...] = SCORE_KINDS
    """Kinds of scores that the term can read; all by default, as ranks need no scale."""

    def __init__(self, weight: float = 1.0, final_weight: float | None = None) -> None:
        super().__init__()
        for name, value in (("weight", weight), ("final_weight", weight if final_weight is None else final_weight)):
            if not value >= 0:
                raise DeshiError(f"{type(self).__name__} got {name}={value}, expected 0 or more.")
        self.weight = weight
        self.final_weight = weight if final_weight is None else final_weight

    def weight_at(self, progress: float) -> float:
        """The factor after a share ``progress`` of the training, from 0 to 1."""
        return self.weight + (self.final_weight - self.weight) * progress

    def prepare(self, context: Context) -> None:
        """Look at what there is before training, and refuse it.

        Raises:
            DeshiError: if the teacher's scores are of a kind that the term can't read, or something is missing.
        """
        if context.kind not in self.kinds:
            raise DeshiError(
                f"{type(self).__name__} can't read scores of the kind {context.kind!r}, expected "
                f"{' or '.join(self.kinds)}. Take a term that reads ranks (distill=rrd), or write the soft labels from "
                "a teacher with such scores (an ensemble with teacher.scale=log_softmax gives logits)."
            )


class ScoreTerm(Term):
    """A term over the student's scores of the catalogue, computed in the pass of the loss, chunk by chunk."""

    @abstractmethod
    def forward(self, chunk: Chunk) -> Tensor:
        """The value ``(C,)`` at each position of a chunk; every position of it has a list of one item or more."""


class HiddenTerm(Term):
    """A term over hidden states and item vectors, computed once a batch; it may have parameters of its own."""

    @abstractmethod
    def forward(self, hidden: Tensor, table: Tensor, signal: Signal) -> Tensor:
        """The value ``(P,)`` at each distilled position.

        Args:
            hidden: ``(P, dim)`` the student's states at positions that have a list.
            table: ``(n_items, dim)`` the student's item table.
            signal: the teacher's lists there.
        """
