"""Sampled softmax: cross-entropy over the target and a sample of the catalogue, with logQ correction."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from deshi.losses.base import Loss, check_loss_inputs
from deshi.losses.negatives import SharedNegatives
from deshi.types import DeshiError, check_shape

_CHUNK, _GPU_CHUNK = 512, 16_384
"""Positions at a time on a CPU, where small buffers stay in the cache, which halves the time, and elsewhere."""


def sampled_softmax(
    hidden: Tensor, table: Tensor, targets: Tensor, negatives: Tensor, log_expected: Tensor, sparse: bool = False
) -> Tensor:  # fmt: skip
    """Mean cross-entropy with the full softmax's denominator estimated from a sample.

    The denominator is ``exp(target) + sum over sampled i != target of exp(score_i - log_expected_i)``
    (Bengio & Senécal, IEEE TNN 2008). Its expectation is the full denominator, because the target is always
    there and so isn't corrected itself (Khrylchenko et al., arXiv 2507.09331; Yi et al., RecSys 2019, also
    correct the target). A sampled item that is a position's target is left out there.

    Args:
        hidden: ``(P, D)`` hidden states of positions that have a target.
        table: ``(N, D)`` item table.
        targets: ``(P,)`` int64 item indices.
        negatives: ``(S,)`` int64 item indices, shared by all positions, repetitions allowed.
        log_expected: ``(S,)``, log of the expected number of each negative in the sample: ``log(S * q)``.
        sparse: whether the gradient of ``table`` is a sparse tensor of the rows that were read.

    Returns:
        The mean loss in nats, a scalar in fp32.

    Raises:
        ShapeError, DeshiError: see :func:`deshi.losses.base.check_loss_inputs`.
    """
    check_loss_inputs(hidden, table, targets)
    check_shape("negatives", negatives, ("S",))
    check_shape("log_expected", log_expected, (len(negatives),))
    rows = F.embedding(torch.cat([targets, negatives]), table, sparse=sparse)
    target_logit = (hidden * rows[: len(targets)]).float().sum(1)
    negative_rows = rows[len(targets) :].T
    total = target_logit.new_zeros(())
    chunk = _CHUNK if hidden.device.type == "cpu" else _GPU_CHUNK
    chunks = zip(hidden.split(chunk), targets.split(chunk), target_logit.split(chunk), strict=True)
    for states, chunk_targets, positives in chunks:
        # logQ correction: a negative that is drawn often counts less
        scores = (states.to(table.dtype) @ negative_rows).float() - log_expected
        # a negative that is the position's own target leaves the sum
        scores = scores.masked_fill_(negatives == chunk_targets[:, None], torch.finfo(torch.float32).min)
        total = total + (torch.logaddexp(positives, scores.logsumexp(1)) - positives).sum()
    return total / len(targets)


class SampledSoftmax(Loss):
    """Sampled softmax loss; see :func:`sampled_softmax`.

    Args:
        negatives: number of negatives, shared by all positions of a batch; a catalogue of no more items than that
            is taken whole, which is the full softmax.
        strategy: how they are drawn, see :class:`deshi.losses.negatives.SharedNegatives`. ``"popularity"``,
            ``"batch"`` and ``"mixed"`` need :meth:`set_counts` first.
        power: flattens the popularity.
        uniform_share: of ``"mixed"``: the share of the negatives that are drawn uniformly.
    """

    draws_for_batch = True
    reads_few_rows = True

    def __init__(
        self, negatives: int = 1024, strategy: Literal["uniform", "popularity", "batch", "mixed"] = "uniform",
        power: float = 1.0, uniform_share: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__()
        if negatives < 1:
            raise DeshiError(f"SampledSoftmax got negatives={negatives}, expected a positive number.")
        self.negatives = negatives
        self.sampler = SharedNegatives(strategy, power, uniform_share)

    def reseed(self, seed: list[int]) -> None:
        """See :meth:`~deshi.losses.base.Loss.reseed`."""
        self.sampler.random.reseed(seed)

    def set_counts(self, counts: Tensor) -> None:
        """See :meth:`~deshi.losses.base.Loss.set_counts`."""
        self.sampler.set_counts(counts)

    def forward(self, hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of ``hidden`` (P, D) against ``targets`` (P,) over ``table`` (N, D), in nats."""
        check_loss_inputs(hidden, table, targets)
        drawn, log_expected = self.sampler(targets, len(table), self.negatives)
        return sampled_softmax(hidden, table, targets, drawn, log_expected, self.sparse)
