"""What a distilled student is trained on: its own loss on what really came next, and terms on what the teacher says."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from deshi.distillation.fused import Pass, fused_pass
from deshi.distillation.soft_label_batches import Lists, Signal
from deshi.distillation.term import HiddenTerm, ScoreTerm, Term
from deshi.losses.negatives import RandomStream
from deshi.losses.softmax import Softmax, chunk_for
from deshi.models.base import Student
from deshi.types import PAD, Batch, DeshiError


class Distillation(RandomStream):
    """A student's loss with distillation terms, a named and weighted list.

    The full softmax and all terms over scores share one pass over the catalogue; another loss is computed apart.
    A row of the teacher that is missing is not distilled, whatever its position's target.

    Args:
        loss: the student's own, called as ``loss(hidden (P, D), table (N, D), targets (P,))``.
        terms: by name, each prepared.
        lists: what the teacher says.
        hard_loss_weight: weight of ``loss``.

    Attributes:
        values: the latest batch's mean of the loss (``loss``) and of each term, before their weights, as far as the
            batch had something for them.
    """

    def __init__(self, loss: nn.Module, terms: Mapping[str, Term], lists: Lists, hard_loss_weight: float = 1.0) -> None:
        super().__init__()
        if not hard_loss_weight >= 0:
            raise DeshiError(f"The weight of the student's own loss is {hard_loss_weight}, expected 0 or more.")
        wrong = {name: type(term).__name__ for name, term in terms.items() if not isinstance(term, Term)}
        if wrong:
            raise DeshiError(f"The distillation's terms {wrong} are no terms, see deshi.distillation.term.")
        self.loss = loss
        self.terms = nn.ModuleDict(terms)
        self.hard_loss_weight = hard_loss_weight
        self.lists = lists
        self.progress = 0.0
        self.values: dict[str, float] = {}
        self._covered = torch.from_numpy(lists.covered)
        self._on_scores = {name: term for name, term in terms.items() if isinstance(term, ScoreTerm)}
        self._on_hidden = {name: term for name, term in terms.items() if isinstance(term, HiddenTerm)}

    def reseed(self, seed: list[int]) -> None:
        """Start all random numbers anew; called before every epoch."""
        super().reseed(seed)
        inner = getattr(getattr(self, "loss", None), "reseed", None)
        if callable(inner):
            inner([*seed, 1])
        for number, term in enumerate(getattr(self, "terms", {}).values()):
            for module in term.modules():
                if isinstance(module, RandomStream):
                    module.reseed([*seed, 2, number])

    def set_counts(self, counts: Tensor) -> None:
        """Pass the training counts on to a loss that samples by them."""
        take = getattr(self.loss, "set_counts", None)
        if callable(take):
            take(counts)

    def training_loss(self, student: Student, batch: Batch) -> Tensor:
        """The weighted sum over a batch, a scalar.

        Args:
            student: what is trained.
            batch: histories; ``rows`` say which lists belong to their positions.
        """
        hidden, table = student(batch.items, batch.lengths), student.item_table()
        taught = self._taught(batch.rows)
        told = (batch.targets != PAD) & ~taught
        states = torch.cat([hidden[taught], hidden[told]])  # distilled positions first
        targets = torch.cat([batch.targets[taught], batch.targets[told]])
        signal = self.lists.at(batch.rows[taught])
        total = states[:0].float().sum()  # 0 with gradients, should there be nothing to learn
        fused = isinstance(self.loss, Softmax)
        self.values = {}
        if len(states) and (fused or self._on_scores):
            work = self._pass(states, targets, signal, fused, len(table))
            value, means = fused_pass(states, table, work)
            total = total + value
            names = ["loss", *(self._on_scores if len(signal.items) else ())]
            found = zip(names, means.tolist(), strict=False)
            self.values = {name: mean for name, mean in found if name != "loss" or work.weights[0]}
        if not fused:
            total = total + self._apart(states, table, targets)
        for name, term in self._on_hidden.items() if len(signal.items) else ():
            mean = term(states[: len(signal.items)], table, signal).mean()
            self.values[name] = float(mean.detach())
            total = total + term.weight_at(self.progress) * mean
        return total

    def _taught(self, rows: Tensor) -> Tensor:
        """``(B, L)`` whether the position has a list to learn."""
        if self._covered.device != rows.device:
            self._covered = self._covered.to(rows.device)
        return self._covered[rows.clamp(min=0)] & (rows != PAD)

    def _pass(self, states: Tensor, targets: Tensor, signal: Signal, fused: bool, n_items: int) -> Pass:
        fast = torch.is_autocast_enabled(states.device.type)
        dtype = torch.get_autocast_dtype(states.device.type) if fast else torch.float32
        weights = [
            self.hard_loss_weight if fused else 0.0,
            *(t.weight_at(self.progress) for t in self._on_scores.values()),
        ]
        chunk = getattr(self.loss, "chunk", None) or chunk_for(n_items)
        terms = list(self._on_scores.values())
        return Pass(targets, signal, terms, weights, chunk, dtype, self.generator(states.device))

    def _apart(self, states: Tensor, table: Tensor, targets: Tensor) -> Tensor:
        """A loss that isn't the full softmax, over the positions that have a target."""
        real = targets != PAD
        if not self.hard_loss_weight or not bool(real.any()):
            return states.new_zeros((), dtype=torch.float32)
        value: Tensor = self.loss(states[real], table, targets[real])
        self.values["loss"] = float(value.detach())
        return value * self.hard_loss_weight
