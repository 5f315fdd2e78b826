"""The base classes of distillation terms: their inputs, their values, the course of their weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from deshi.distillation.score_chunk import ScoreChunk
from deshi.distillation.soft_label_batches import SoftLabelBatch
from deshi.types import DeshiError, ScoreKind


@dataclass(frozen=True)
class Context:
    """Facts about data, student and teacher that a term may need before training.

    Attributes:
        n_items: number of items.
        dim: width of the student's hidden states.
        score_kind: meaning of the teacher's scores.
        k: length of the longest list.
        counts: ``(n_items,)`` int64, how often each item is a training target.
        item_embeddings: ``(n_items, D)`` float32, the teacher's vectors of the items, or None if it left none.
        user_embeddings: ``(n_users, D)`` float32, vectors of the users' profiles, zeros for users without one, or None.
    """

    n_items: int
    dim: int
    score_kind: ScoreKind
    k: int
    counts: Tensor
    item_embeddings: Tensor | None = None
    user_embeddings: Tensor | None = None

    def needed_embeddings(self, term: str) -> Tensor:
        """The teacher's item vectors.

        Raises:
            DeshiError: if the store has none.
        """
        if self.item_embeddings is None:
            raise DeshiError(
                f"{term} needs the teacher's item vectors, but no soft-label store here holds item_embeddings. Export "
                "a teacher that has some (teacher=text, ilora, bigrec), import a foreign one with its vectors, "
                f"or leave {term} out."
            )
        return self.item_embeddings

    def needed_profiles(self, term: str) -> Tensor:
        """The vectors of the users' profiles.

        Raises:
            DeshiError: if the store has none.
        """
        if self.user_embeddings is None:
            raise DeshiError(
                f"{term} needs vectors of users' profiles, but no soft-label store here holds user_embeddings. Write "
                f"the store with profiles=texts profiles.path=FILE (deshi label), or leave {term} out."
            )
        return self.user_embeddings


class Term(nn.Module, ABC):
    """One term of a distillation: a value per position, averaged over the distilled positions, times a weight.

    Args:
        weight: factor at the beginning of training.
        final_weight: factor at its end, reached linearly over the epochs; None keeps ``weight``.
    """

    needs_calibrated_scores: bool = False
    """Whether the term compares scores and so refuses those whose order alone has a meaning."""

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

    def reseed(self, seed: list[int]) -> None:
        """Restart the term's own random draws, if it has any beside those from ``chunk.generator``."""

    def prepare(self, context: Context) -> None:
        """Take what the term needs before training.

        Raises:
            DeshiError: if the teacher's scores are of a kind that the term can't read, or something is missing.
        """
        if self.needs_calibrated_scores and not context.score_kind.is_calibrated:
            expected = " or ".join(kind for kind in ScoreKind if kind.is_calibrated)
            raise DeshiError(
                f"{type(self).__name__} can't read scores of the kind {context.score_kind.value!r}, expected "
                f"{expected}. Take a term that reads ranks (distill=rrd), or write the soft labels from "
                "a teacher with such scores (an ensemble with teacher.scale=log_softmax gives logits)."
            )


class ScoreTerm(Term):
    """A term over the student's scores of the catalogue, computed in the pass of the loss, chunk by chunk."""

    reads_few_scores: ClassVar[bool] = False
    """Whether ``chunk.scores_of`` and ``chunk.logsumexp`` are all that it reads of the scores: such a term is also
    computed where a large catalogue is never scored as a whole."""

    @abstractmethod
    def forward(self, chunk: ScoreChunk) -> Tensor:
        """The value ``(C,)`` at each position of a chunk; every position of it has a list of one item or more."""


class HiddenTerm(Term):
    """A term over hidden states and item vectors, computed once a batch; it may have parameters of its own."""

    @abstractmethod
    def forward(self, hidden: Tensor, table: Tensor, soft_labels: SoftLabelBatch) -> Tensor:
        """The value ``(P,)`` at each distilled position.

        Args:
            hidden: ``(P, dim)`` the student's states at positions that have a list.
            table: ``(n_items, dim)`` the student's item table.
            soft_labels: the teacher's lists there.
        """
