"""Binary cross-entropy with sampled negatives: SASRec's original loss, and the base of gBCE."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from deshi.losses.base import Loss, check_loss_inputs
from deshi.losses.negatives import grouped_negatives, grouped_scores
from deshi.losses.random_stream import RandomStream
from deshi.types import DeshiError, check_shape


def bce(positive: Tensor, negative: Tensor, kept: Tensor, beta: float = 1.0) -> Tensor:
    """Binary cross-entropy of one target and K negatives a position, averaged over the K + 1 terms.

    ``-(beta * log sigmoid(positive) + sum over kept negatives of log sigmoid(-negative)) / (K + 1)``

    Args:
        positive: ``(P,)`` scores of the targets.
        negative: ``(P, K)`` scores of the negatives.
        kept: ``(P, K)`` bool, False where a negative is the target and doesn't count.
        beta: exponent on the target's probability: 1 is BCE, less is gBCE.

    Returns:
        The mean over positions, a scalar.

    Raises:
        ShapeError: if the three don't belong together.
    """
    check_shape("positive", positive, ("P",))
    check_shape("negative", negative, (len(positive), "K"))
    check_shape("kept", kept, tuple(negative.shape))
    positives = beta * F.logsigmoid(positive).sum()
    negatives = F.logsigmoid(-negative).masked_fill(~kept, 0.0).sum()
    return -(positives + negatives) / (negative.numel() + len(positive))


def bce_over(
    hidden: Tensor, table: Tensor, targets: Tensor, negatives: Tensor, share: int, beta: float = 1.0,
    sparse: bool = False,
) -> Tensor:  # fmt: skip
    """:func:`bce` from hidden states ``(P, D)``, a table ``(N, D)``, targets ``(P,)`` and drawn negatives.

    ``negatives`` is ``(ceil(P / share), K)``, see :func:`deshi.losses.negatives.grouped_negatives`; with ``sparse`` the
    gradient of ``table`` is a sparse tensor of the rows that were read.

    Raises:
        ShapeError, DeshiError: see :func:`deshi.losses.base.check_loss_inputs`.
    """
    check_loss_inputs(hidden, table, targets)
    positive = (hidden * F.embedding(targets, table, sparse=sparse)).float().sum(1)
    negative = grouped_scores(hidden, table, negatives, share, sparse)
    each = negatives.repeat_interleave(share, dim=0)[: len(targets)]
    return bce(positive, negative, each != targets[:, None], beta)


class BCE(Loss):
    """BCE with uniform negatives, as SASRec was published (Kang & McAuley, ICDM 2018, arXiv 1808.09781).

    Deviations: a negative may be an item of the user's history (only the target itself is left out), and the
    loss is averaged over target and negatives.

    Args:
        negatives: number of negatives a position.
        share: number of neighbouring positions that share one set of negatives; 1 is the paper's, more is faster.
    """

    reads_few_rows = True

    def __init__(self, negatives: int = 1, share: int = 1) -> None:
        super().__init__()
        for name, value in (("negatives", negatives), ("share", share)):
            if value < 1:
                raise DeshiError(f"{type(self).__name__} got {name}={value}, expected a positive number.")
        self.negatives = negatives
        self.share = share
        self.random = RandomStream()

    def reseed(self, seed: list[int]) -> None:
        """See :meth:`~deshi.losses.base.Loss.reseed`."""
        self.random.reseed(seed)

    def beta(self, n_items: int) -> float:
        """The exponent on the target's probability; 1 for BCE."""
        return 1.0

    def forward(self, hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of ``hidden`` (P, D) against ``targets`` (P,) over ``table`` (N, D), in nats."""
        check_loss_inputs(hidden, table, targets)
        generator = self.random.generator(hidden.device)
        drawn = grouped_negatives(len(targets), len(table), self.negatives, self.share, generator)
        return bce_over(hidden, table, targets, drawn, self.share, self.beta(len(table)), self.sparse)
