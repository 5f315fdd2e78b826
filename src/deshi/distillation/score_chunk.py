"""The scores that distillation terms see: one chunk of positions against the whole catalogue, or against few items."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from deshi.distillation.soft_label_batches import SoftLabelBatch
from deshi.losses.negatives import grouped_scores
from deshi.types import PAD, DeshiError


class ScoreChunk:
    """The scores of a chunk of positions, from which terms take a few differentiable numbers.

    The chunk's score matrix ``(C, N)`` isn't differentiated as a whole, unless a term asks for it by :meth:`whole`. A
    term takes what it needs by :meth:`scores_of` and :meth:`logsumexp`, and those small tensors carry the gradients;
    :attr:`scores` itself has none and serves ranks and memberships.

    Args:
        scores: ``(C, N)`` float32, the student's scores, without gradients.
        targets: ``(C,)`` int64, the true next items, ``PAD`` where there is none.
        soft_labels: the teacher's lists at the positions.
        generator: source of the terms' random numbers, on the scores' device.
    """

    def __init__(
        self, scores: Tensor, targets: Tensor, soft_labels: SoftLabelBatch, generator: torch.Generator
    ) -> None:  # fmt: skip
        self.scores = scores
        self.targets = targets
        self.soft_labels = soft_labels
        self.generator = generator
        self._logsumexps: dict[float, tuple[Tensor, Tensor, Tensor]] = {}
        self._gathered: list[tuple[Tensor, Tensor]] = []
        self._whole: Tensor | None = None

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def n_items(self) -> int:
        """Number of items of the catalogue."""
        return self.scores.shape[1]

    def scores_of(self, items: Tensor) -> Tensor:
        """The scores of some items, with gradients: ``(C, M)`` int64 -> ``(C, M)`` float32, 0 where ``PAD``."""
        absent = items == PAD
        values = self.scores.gather(1, items.clamp(min=0)).masked_fill_(absent, 0.0).requires_grad_()
        self._gathered.append((items, values))
        return values

    def logsumexp(self, temperature: float = 1.0) -> Tensor:
        """``log sum_n exp(score_n / temperature)`` over the catalogue, with gradients: ``(C,)``."""
        if temperature not in self._logsumexps:
            maximum = self.scores.amax(1, keepdim=True)
            powers = self.scores - maximum
            powers = (powers if temperature == 1.0 else powers.div_(temperature)).exp_()
            sumexp = powers.sum(1, keepdim=True)
            leaf = (sumexp.log() + maximum / temperature).squeeze(1).requires_grad_()
            self._logsumexps[temperature] = leaf, powers, sumexp
        return self._logsumexps[temperature][0]

    def whole(self) -> Tensor:
        """All scores ``(C, N)`` with gradients: for a term that can't do with less, and pays for it."""
        if self._whole is None:
            self._whole = self.scores.clone().requires_grad_()
        return self._whole

    def gradient_in_place(self, value: Tensor) -> Tensor:
        """The gradient ``(C, N)`` of the scalar ``value`` by the scores; the chunk's buffers are overwritten by it.

        Autograd differentiates ``value`` by the small leaves that the terms took. Each leaf's gradient then goes back
        to the scores by hand: a log-sum-exp's through its softmax, a gathered score's by a scatter.
        """
        logsumexps = list(self._logsumexps.items())
        leaves = [leaf for _, (leaf, _, _) in logsumexps] + [leaf for _, leaf in self._gathered]
        leaves += [] if self._whole is None else [self._whole]
        grads = [torch.zeros_like(leaf) for leaf in leaves]
        if value.requires_grad:
            derivatives = torch.autograd.grad(value, leaves, allow_unused=True)
            grads = [zero if grad is None else grad for grad, zero in zip(derivatives, grads, strict=True)]
        total: Tensor | None = None
        for (temperature, (_, powers, sumexp)), grad in zip(logsumexps, grads, strict=False):
            powers.mul_(grad[:, None] / (sumexp * temperature))  # softmax / temperature times the leaf's gradient
            total = powers if total is None else total.add_(powers)
        total = self.scores.zero_() if total is None else total
        if self._whole is not None:
            total.add_(grads.pop())
        for (items, _), grad in zip(self._gathered, grads[len(logsumexps) :], strict=True):
            total.scatter_add_(1, items.clamp(min=0), grad.masked_fill(items == PAD, 0.0))
        return total


class FewScores(ScoreChunk):
    """Distilled positions whose scores are computed for the items that terms ask for, by autograd.

    The catalogue is never scored: the table's gradient is sparse, of the rows that were read. :meth:`logsumexp` is
    estimated by the list's items, which are exact, and shared negatives with logQ correction for all others: its
    ``sum exp`` is unbiased. Terms that need more (``reads_few_scores`` is False) can't be computed.

    Args:
        hidden: ``(C, D)`` states.
        table: ``(N, D)`` item table.
        targets: ``(C,)`` int64, ``PAD`` where there is none.
        soft_labels: the teacher's lists at the positions.
        generator: source of the terms' random numbers.
        negatives: ``(S,)`` int64 items drawn from the catalogue.
        log_expected: ``(S,)`` the log of each one's expected number in the sample.
    """

    def __init__(
        self, hidden: Tensor, table: Tensor, targets: Tensor, soft_labels: SoftLabelBatch, generator: torch.Generator,
        negatives: Tensor, log_expected: Tensor,
    ) -> None:  # fmt: skip
        super().__init__(hidden, targets, soft_labels, generator)
        self._hidden, self._table = hidden, table
        self._negatives, self._log_expected = negatives, log_expected

    @property
    def n_items(self) -> int:
        """Number of items of the catalogue."""
        return len(self._table)

    def scores_of(self, items: Tensor) -> Tensor:
        """See :meth:`ScoreChunk.scores_of`."""
        scores = grouped_scores(self._hidden, self._table, items.clamp(min=0), share=1, sparse=True)
        return scores.masked_fill(items == PAD, 0.0)

    def logsumexp(self, temperature: float = 1.0) -> Tensor:
        """The estimate of :meth:`ScoreChunk.logsumexp` described above."""
        lists, least = self.soft_labels.items, torch.finfo(torch.float32).min
        listed = self.scores_of(lists).masked_fill(lists == PAD, least)
        rows = F.embedding(self._negatives, self._table, sparse=True)
        others = (self._hidden.to(rows.dtype) @ rows.T).float()
        # a negative on the position's list is counted there already
        order = lists.sort(1).values
        positions = torch.searchsorted(order, self._negatives.expand(len(order), -1).contiguous())
        on_list = order.gather(1, positions.clamp(max=order.shape[1] - 1)) == self._negatives
        others = (others / temperature - self._log_expected).masked_fill(on_list, least)
        return torch.cat([listed / temperature, others], 1).logsumexp(1)

    def whole(self) -> Tensor:
        """Refused: there is no whole."""
        raise DeshiError(
            "A term asked for the scores of all items, which a large catalogue's training doesn't compute."
        )
