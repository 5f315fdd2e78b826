"""The objective of a training: the loss on the true next items, alone or with distillation terms on soft labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from deshi.distillation.score_chunk import FewScores
from deshi.distillation.score_terms import SoftmaxWithTerms
from deshi.distillation.soft_label_batches import SoftLabelBatch, SoftLabelLists
from deshi.distillation.term import HiddenTerm, ScoreTerm, Term
from deshi.losses.base import Loss
from deshi.losses.fused_pass import chunk_for, fused_pass, product_dtype
from deshi.losses.random_stream import RandomStream
from deshi.models.base import Recommender, SequentialRecommender
from deshi.types import PAD, Batch, DeshiError

FEW_NEGATIVES = 1024
"""Uniform negatives from which terms estimate sums over a catalogue that is never scored as a whole."""


class Objective(nn.Module):
    """The objective of a training: ``loss, logs = objective(network, batch)``.

    Args:
        loss: the hard loss, on the true next items.

    Raises:
        DeshiError: for something else than a :class:`~deshi.losses.base.Loss`.
    """

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        if not isinstance(loss, Loss):
            raise DeshiError(f"The loss is a {type(loss).__name__}, expected a subclass of deshi.losses.Loss.")
        self.loss = loss

    def set_counts(self, counts: Tensor) -> None:
        """Receive ``counts`` ``(N,)``, how often each item is a training target, before training."""
        self.loss.set_counts(counts)

    def problem_of_sparse_gradients(self) -> str | None:
        """The reason why the item table can't have sparse gradients, None if it can."""
        return None if self.loss.reads_few_rows else f"{type(self.loss).__name__} scores all items"

    def use_sparse_gradients(self) -> None:
        """Give the item table sparse gradients, of the rows that were read."""
        self.loss.sparse = True

    def start_epoch(self, seed: list[int], progress: float) -> None:
        """Restart all random draws from ``seed`` after a share ``progress`` of the training, from 0 to 1."""
        self.loss.reseed(seed)

    def forward(self, network: Recommender, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch, a scalar, and its parts by name (none but the loss itself here)."""
        return network.training_loss(batch, self.loss), {}


class Distillation(Objective):
    """The hard loss with distillation terms, a named and weighted list.

    The full softmax and all terms over scores share one pass over the catalogue; another loss is computed apart.
    A position whose row has no soft label isn't distilled, whether it has a target or not.

    Args:
        loss: the hard loss.
        terms: by name, each prepared.
        soft_labels: the teacher's lists.
        hard_loss_weight: weight of ``loss``.
    """

    def __init__(
        self, loss: Loss, terms: Mapping[str, Term], soft_labels: SoftLabelLists, hard_loss_weight: float = 1.0
    ) -> None:
        super().__init__(loss)
        if not hard_loss_weight >= 0:
            raise DeshiError(f"distill.hard_loss_weight is {hard_loss_weight}, expected 0 or more.")
        wrong = {name: type(term).__name__ for name, term in terms.items() if not isinstance(term, Term)}
        if wrong:
            raise DeshiError(f"distill.terms has {wrong}, expected subclasses of deshi.distillation.term.Term.")
        self.terms = nn.ModuleDict(terms)
        self.hard_loss_weight = hard_loss_weight
        self.soft_labels = soft_labels
        self.random = RandomStream()
        self._progress = 0.0
        self._covered = torch.from_numpy(soft_labels.covered)
        self._score_terms = {name: term for name, term in terms.items() if isinstance(term, ScoreTerm)}
        self._hidden_terms = {name: term for name, term in terms.items() if isinstance(term, HiddenTerm)}

    def problem_of_sparse_gradients(self) -> str | None:
        """See :meth:`Objective.problem_of_sparse_gradients`; terms must read few scores, too."""
        for name, term in self.terms.items():
            if not (isinstance(term, ScoreTerm) and term.reads_few_scores):
                return f"distill.terms.{name} reads the whole item table"
        return super().problem_of_sparse_gradients()

    def start_epoch(self, seed: list[int], progress: float) -> None:
        """See :meth:`Objective.start_epoch`; the terms' weights follow ``progress``."""
        self._progress = progress
        self.random.reseed(seed)
        self.loss.reseed([*seed, 1])
        for number, term in enumerate(self.terms.values()):
            cast(Term, term).reseed([*seed, 2, number])

    def forward(self, network: Recommender, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """The weighted sum over a batch, a scalar, and the means of the loss and of each term before their weights.

        A part that the batch has no positions for isn't among the means.
        """
        assert isinstance(network, SequentialRecommender)
        hidden, table = network(batch.items, batch.lengths), network.item_table()
        has_soft_label = self._has_soft_label(batch.rows)
        has_target_only = (batch.targets != PAD) & ~has_soft_label
        states = torch.cat([hidden[has_soft_label], hidden[has_target_only]])  # distilled positions first
        targets = torch.cat([batch.targets[has_soft_label], batch.targets[has_target_only]])
        labels = self.soft_labels.at(batch.rows[has_soft_label])
        total, logs = states[:0].float().sum(), dict[str, float]()  # 0 with gradients, should a batch have no position
        if self.loss.sparse:
            total = total + self._few_scores(states[: len(labels)], table, targets[: len(labels)], labels, logs)
        elif len(states) and (self.loss.is_full_softmax or self._score_terms):
            total = total + self._fused(states, table, targets, labels, logs)
        if not self.loss.is_full_softmax:
            total = total + self._separate_loss(states, table, targets, logs)
        for name, term in self._hidden_terms.items() if len(labels) else ():
            mean = term(states[: len(labels)], table, labels).mean()
            logs[name] = float(mean.detach())
            total = total + term.weight_at(self._progress) * mean
        return total, logs

    def _has_soft_label(self, rows: Tensor) -> Tensor:
        """``(B, L)`` whether the position has a list to learn."""
        if self._covered.device != rows.device:
            self._covered = self._covered.to(rows.device)
        return self._covered[rows.clamp(min=0)] & (rows != PAD)

    def _fused(
        self, states: Tensor, table: Tensor, targets: Tensor, labels: SoftLabelBatch, logs: dict[str, float]
    ) -> Tensor:
        """The full softmax, if that is the loss, and the terms over scores."""
        hard = self.hard_loss_weight if self.loss.is_full_softmax else 0.0
        weights = [hard, *(term.weight_at(self._progress) for term in self._score_terms.values())]
        chunk, generator = self.loss.chunk or chunk_for(len(table)), self.random.generator(states.device)
        loss = SoftmaxWithTerms(targets, labels, list(self._score_terms.values()), weights, chunk, generator)
        total, sums = fused_pass(states, table, loss, product_dtype(states.device))
        means = dict(zip(["loss", *self._score_terms], loss.means(sums), strict=True))
        computed = [*(["loss"] if hard else []), *(self._score_terms if len(labels) else [])]
        logs.update({name: means[name] for name in computed})
        return total

    def _few_scores(
        self, states: Tensor, table: Tensor, targets: Tensor, labels: SoftLabelBatch, logs: dict[str, float]
    ) -> Tensor:
        """The terms at the distilled positions from the scores of their lists and of shared negatives alone."""
        total = states.new_zeros((), dtype=torch.float32)
        if not len(labels) or not self._score_terms:
            return total
        generator = self.random.generator(states.device)
        draws = torch.randint(len(table), (FEW_NEGATIVES,), generator=generator, device=states.device)
        log_expected = torch.full((FEW_NEGATIVES,), math.log(FEW_NEGATIVES / len(table)), device=states.device)
        chunk = FewScores(states, table, targets, labels, generator, draws, log_expected)
        for name, term in self._score_terms.items():
            mean = term(chunk).mean()
            logs[name] = float(mean.detach())
            total = total + term.weight_at(self._progress) * mean
        return total

    def _separate_loss(self, states: Tensor, table: Tensor, targets: Tensor, logs: dict[str, float]) -> Tensor:
        """A loss that isn't the full softmax, over the positions that have a target."""
        has_target = targets != PAD
        if not self.hard_loss_weight or not bool(has_target.any()):
            return states.new_zeros((), dtype=torch.float32)
        value: Tensor = self.loss(states[has_target], table, targets[has_target])
        logs["loss"] = float(value.detach())
        return value * self.hard_loss_weight
