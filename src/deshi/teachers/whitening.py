"""Principal components and whitening of embeddings: pure functions, in double precision, with a fixed sign.

J. Su, J. Cao, W. Liu and Y. Ou, Whitening Sentence Representations for Better Semantics and Faster Retrieval, 2021,
https://arxiv.org/abs/2103.15316: embeddings of language models lie in a narrow cone, in which all cosines are near one;
with mean zero and covariance identity they spread, and the first components carry what matters. Two additions to the
paper: directions without variance give zeros instead of a division by zero, and signs don't depend on the machine.
"""

from __future__ import annotations

import torch
from torch import Tensor

from deshi.types import DeshiError, check_shape

_ROUNDING = 1e-12
"""A direction with less than this share of the mean square length is rounding of the float32 input."""

_ROWS = 65_536


def pca(embeddings: Tensor, dim: int | None = None) -> Tensor:
    """The first ``dim`` principal components of ``(N, D)`` embeddings, largest variance first.

    Returns:
        ``(N, dim)`` float32, each column with mean zero, columns uncorrelated; ``dim`` None keeps ``D``. Columns beyond
        the embeddings' rank (at most ``N - 1``) are zero.

    Raises:
        DeshiError: if ``dim`` is not between 1 and ``D``, or a number is not finite.
    """
    return _transformed(embeddings, dim, unit_variance=False)


def whiten(embeddings: Tensor, dim: int | None = None) -> Tensor:
    """As :func:`pca`, with every column scaled to variance one (over ``N``): the covariance is the identity."""
    return _transformed(embeddings, dim, unit_variance=True)


def _transformed(embeddings: Tensor, dim: int | None, unit_variance: bool) -> Tensor:
    check_shape("embeddings", embeddings, ("N", "D"))
    size = embeddings.shape[1]
    kept = size if dim is None else dim
    if not 1 <= kept <= size:
        raise DeshiError(f"dim is {dim}, expected 1 to {size}, the width of the embeddings, or null for all of it.")
    mean, variances, directions = _directions(embeddings)
    directions, variances = directions[:, :kept], variances[:kept]
    scale = torch.where(variances > 0, 1.0, 0.0)
    if unit_variance:
        scale = torch.where(variances > 0, variances.clamp(min=torch.finfo(torch.float64).tiny).rsqrt(), 0.0)
    projection = directions * scale
    return torch.cat([((part.double() - mean) @ projection).float() for part in embeddings.split(_ROWS)])


def _directions(embeddings: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean ``(D,)``, variances ``(D,)`` in falling order (0 where there is none) and directions ``(D, D)`` as columns.

    A direction's sign is that which makes its largest entry positive.
    """
    if not embeddings.isfinite().all():
        bad = int((~embeddings.isfinite()).any(dim=1).sum())
        raise DeshiError(f"{bad} of {len(embeddings)} embeddings have numbers that are not finite. Check their source.")
    mean = embeddings.mean(dim=0, dtype=torch.float64)
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=embeddings.device)
    for part in embeddings.split(_ROWS):  # in parts, so that a large catalogue isn't copied to double at once
        centred = part.double() - mean
        covariance += centred.T @ centred / len(embeddings)
    variances, directions = torch.linalg.eigh(covariance)
    variances, directions = variances.flip(0), directions.flip(1)
    square = covariance.trace() + mean.square().sum()
    variances = torch.where(variances > _ROUNDING * square, variances, 0.0)
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    return mean, variances, directions * torch.where(largest < 0, -1.0, 1.0)
