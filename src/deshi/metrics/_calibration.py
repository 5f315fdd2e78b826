"""Calibration: the probabilities of a model's best candidates against the share of them that are right.

A model's scores are read as logits: the softmax over an example's candidates gives every candidate a probability. That
is what a student is trained for by ``loss=softmax``; after other losses it is only a way to compare. Defined for
examples with one target. Formulas are in ``docs/metrics.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deshi.arrays import Floats, Ints
from deshi.metrics._ranks import candidate_scores, row_slices
from deshi.types import DeshiError, check_shape

BINS = 15
"""Number of bins of the reliability table, as in Guo et al. 2017."""


@torch.no_grad()
def softmax_of_rows(scores: Tensor, targets: Tensor, seen: Tensor | None = None) -> Tensor:
    """What the softmax over each row's candidates says of its best candidate and of its target.

    Args:
        scores: ``(B, N)`` floating; higher is better.
        targets: ``(B,)`` int64 item indices.
        seen: ``(B, S)`` int64 items that aren't candidates, padded with ``PAD``.

    Returns:
        ``(B, 3)`` float64: the log-probability of the best candidate, the log-probability of the target, and whether
        the target is the best candidate: 1, 0, or ``1 / m`` if it is one of ``m`` that share the highest score. A
        target among ``seen`` has minus infinity and 0; a row without a candidate has NaN, NaN and 0.
    """
    check_shape("scores", scores, ("B", "N"))
    check_shape("targets", targets, (len(scores),))
    values = torch.empty(len(scores), 3, dtype=torch.float64, device=scores.device)
    for rows in row_slices(len(scores)):
        block, columns = scores[rows], targets[rows, None]
        if seen is not None and seen.shape[1]:
            block = candidate_scores(block, seen[rows], -torch.inf)
        best, target = block.amax(1), block.gather(1, columns).squeeze(1)
        normaliser = torch.logsumexp(block, 1).double()
        tied = (block == best[:, None]).sum(1)
        hit = torch.where((target == best) & best.isfinite(), 1 / tied.double(), 0.0)
        values[rows] = torch.stack([best.double() - normaliser, target.double() - normaliser, hit], 1)
    return values


@dataclass(frozen=True, eq=False)
class Reliability:
    """Probability against success, in bins.

    Attributes:
        confidence: ``(M,)`` mean probability of the best candidate.
        accuracy: ``(M,)`` share of the examples whose best candidate is the target.
        n_examples: ``(M,)`` int64, at least 1.
    """

    confidence: Floats
    accuracy: Floats
    n_examples: Ints

    @property
    def error(self) -> float:
        """Expected calibration error: the mean of ``|accuracy - confidence|`` weighted by examples; NaN for none."""
        if not len(self.n_examples):
            return float("nan")
        return float(np.average(np.abs(self.accuracy - self.confidence), weights=self.n_examples))


def reliability(confidence: Floats, hits: Floats, bins: int = BINS) -> Reliability:
    """Group examples by confidence into bins of equal *mass*: about as many examples in each.

    The probabilities of a best candidate among thousands crowd near 0; bins of equal width would put nearly all
    examples into one. Examples with the same confidence share a bin, so there may be fewer bins. Sources: Guo et al.
    2017 (arXiv 1706.04599) for the error, Nguyen and O'Connor 2015 (arXiv 1508.05154) for the bins.

    Args:
        confidence: ``(C,)`` 0 .. 1, the probability of each example's best candidate.
        hits: ``(C,)`` 0 .. 1, whether it is the target.
        bins: their number, at most.

    Raises:
        DeshiError: for shapes that don't fit, or probabilities outside 0 .. 1.
    """
    if confidence.ndim != 1 or confidence.shape != hits.shape:
        raise DeshiError(f"confidence has shape {confidence.shape} and hits {hits.shape}, expected both (C,).")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise DeshiError("confidence holds values outside 0 .. 1, or NaN: expected probabilities.")
    if not len(confidence):
        return Reliability(np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64))
    # edges are values that occur, so that equal confidences fall into one bin; bins that stay empty are numbered away
    edges = np.quantile(confidence, np.arange(1, bins) / bins, method="lower")
    number = np.unique(np.searchsorted(edges, confidence, side="left"), return_inverse=True)[1]
    sizes = np.bincount(number)
    return Reliability(
        np.bincount(number, weights=confidence) / sizes, np.bincount(number, weights=hits) / sizes, sizes
    )
