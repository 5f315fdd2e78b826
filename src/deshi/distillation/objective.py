"""The objective of a training: the loss on the true next items, alone or with distillation terms on soft labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from deshi.distillation.labelled_positions import LabelledPositions
from deshi.distillation.score_chunk import FewScores
from deshi.distillation.score_terms import SoftmaxWithTerms
from deshi.distillation.soft_label_batches import SoftLabelLists
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

    def start_epoch(self, seed: list[int], progress: float, rank: int = 0) -> None:
        """Restart all random draws.

        Args:
            seed: of the epoch.
            progress: share of the training that is done, from 0 to 1.
            rank: of this process; each draws numbers of its own, but for those that the positions of a batch share.
        """
        self.loss.reseed(seed if self.loss.draws_for_batch else of_rank(seed, rank))

    def look_up(self, batch: Batch) -> LabelledPositions | None:
        """What a step on a batch needs beside it, from the batch on the CPU; None for nothing."""
        return None

    def forward(
        self, network: Recommender, batch: Batch, labelled: LabelledPositions | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, a scalar, and its parts by name (none but the loss itself here).

        Of a rank's part of a batch they are weighted so that the means over the ranks are those of the whole batch.
        Nothing here waits for a device.

        Args:
            network: to be trained.
            batch: on the network's device.
            labelled: what :meth:`look_up` gave for it, on the same device; None looks it up now.
        """
        loss = network.training_loss(batch, self.loss)
        return loss if batch.whole is batch else loss * batch.share(network.loss_positions), {}


def of_rank(seed: list[int], rank: int) -> list[int]:
    """The seed of what each rank draws for itself: that of a single process for the first."""
    return [*seed, _RANK, rank] if rank else seed


_RANK = 83  # so that no other part of deshi draws the same numbers from the same seed


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

    def start_epoch(self, seed: list[int], progress: float, rank: int = 0) -> None:
        """See :meth:`Objective.start_epoch`; the terms' weights follow ``progress``."""
        super().start_epoch([*seed, 1], progress, rank)
        self._progress = progress
        self.random.reseed(of_rank(seed, rank))
        for number, term in enumerate(self.terms.values()):
            cast(Term, term).reseed(of_rank([*seed, 2, number], rank))

    def look_up(self, batch: Batch) -> LabelledPositions:
        """See :meth:`Objective.look_up`: the positions to learn at, and their lists."""
        return LabelledPositions.of(batch, self._has_soft_label(batch.rows), self.soft_labels.at)

    def forward(
        self, network: Recommender, batch: Batch, labelled: LabelledPositions | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum over a batch, a scalar, and the means of the loss and of each term before their weights.

        A part that the batch has no positions for isn't among the means. Of a rank's part of a batch all are weighted
        so that the means over the ranks are those of the whole batch. Arguments as for :meth:`Objective.forward`.
        """
        assert isinstance(network, SequentialRecommender)
        if labelled is None:
            labelled = self.look_up(batch.on_cpu).to(batch.items.device)
        shares = batch.share(network.loss_positions), batch.share(self._count_soft_labels)
        hidden, table = network.hidden_states(batch), network.item_table()
        states, labels = hidden.flatten(0, 1).index_select(0, labelled.positions), labelled.soft_labels
        total, logs = states[:0].float().sum(), dict[str, Tensor]()  # 0 with gradients, should a batch have no position
        if self.loss.sparse:
            total = total + self._few_scores(states, table, labelled, shares[1], logs)
        elif len(states) and (self.loss.is_full_softmax or self._score_terms):
            total = total + self._fused(states, table, labelled, shares, logs)
        if not self.loss.is_full_softmax:
            total = total + self._separate_loss(states, table, labelled, shares[0], logs)
        for name, term in self._hidden_terms.items() if len(labels) else ():
            mean = term(states[: len(labels)], table, labels).mean()
            logs[name] = mean.detach().double() * shares[1]
            total = total + term.weight_at(self._progress) * shares[1] * mean
        return total, logs if batch.whole is batch else self._of_whole(logs, batch.whole, total)

    def _of_whole(self, logs: dict[str, Tensor], batch: Batch, total: Tensor) -> dict[str, Tensor]:
        """A rank's means, with 0 for those of which only other ranks have positions."""
        names = ["loss"] if self.hard_loss_weight and batch.n_targets else []
        names += list(self.terms) if self._count_soft_labels(batch) else []
        zero = torch.zeros((), dtype=torch.float64, device=total.device)
        return {name: logs.get(name, zero) for name in names}

    def _count_soft_labels(self, batch: Batch) -> int:
        """The number of positions of a batch on the CPU that have a list to learn."""
        return int(self._has_soft_label(batch.rows).sum())

    def _has_soft_label(self, rows: Tensor) -> Tensor:
        """``(B, L)`` whether the position has a list to learn, for rows on the CPU."""
        return self._covered[rows.clamp(min=0)] & (rows != PAD)

    def _fused(
        self, states: Tensor, table: Tensor, labelled: LabelledPositions, shares: tuple[float, float],
        logs: dict[str, Tensor],
    ) -> Tensor:  # fmt: skip
        """The full softmax, if that is the loss, and the terms over scores, times the rank's shares of both."""
        hard = self.hard_loss_weight if self.loss.is_full_softmax else 0.0
        weights = [hard * shares[0]]
        weights += [term.weight_at(self._progress) * shares[1] for term in self._score_terms.values()]
        chunk, labels = self.loss.chunk or chunk_for(len(table), states.device), labelled.soft_labels
        loss = SoftmaxWithTerms(
            labelled.targets, labels, list(self._score_terms.values()), weights, chunk,
            self.random.generator(states.device), labelled.has_target,
        )  # fmt: skip
        total, sums = fused_pass(states, table, loss, product_dtype(states.device))
        factors = [shares[0], *[shares[1]] * len(self._score_terms)]
        values = (mean * factor for mean, factor in zip(loss.means(sums), factors, strict=True))
        means = dict(zip(["loss", *self._score_terms], values, strict=True))
        computed = [*(["loss"] if hard else []), *(self._score_terms if len(labels) else [])]
        logs.update({name: means[name] for name in computed})
        return total

    def _few_scores(
        self, states: Tensor, table: Tensor, labelled: LabelledPositions, share: float, logs: dict[str, Tensor]
    ) -> Tensor:
        """The terms at the distilled positions from the scores of their lists and of shared negatives alone."""
        labels = labelled.soft_labels
        states, targets = states[: len(labels)], labelled.targets[: len(labels)]
        total = states.new_zeros((), dtype=torch.float32)
        if not len(labels) or not self._score_terms:
            return total
        generator = self.random.generator(states.device)
        draws = torch.randint(len(table), (FEW_NEGATIVES,), generator=generator, device=states.device)
        log_expected = torch.full((FEW_NEGATIVES,), math.log(FEW_NEGATIVES / len(table)), device=states.device)
        chunk = FewScores(states, table, targets, labels, generator, draws, log_expected)
        for name, term in self._score_terms.items():
            mean = term(chunk).mean()
            logs[name] = mean.detach().double() * share
            total = total + term.weight_at(self._progress) * share * mean
        return total

    def _separate_loss(
        self, states: Tensor, table: Tensor, labelled: LabelledPositions, share: float, logs: dict[str, Tensor]
    ) -> Tensor:
        """A loss that isn't the full softmax, over the positions that have a target, times the rank's share."""
        with_target = labelled.with_target
        if not self.hard_loss_weight or not len(with_target):
            return states.new_zeros((), dtype=torch.float32)
        value: Tensor = self.loss(states.index_select(0, with_target), table, labelled.targets[with_target])
        logs["loss"] = value.detach().double() * share
        return value * (self.hard_loss_weight * share)
