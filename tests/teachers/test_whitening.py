"""PCA and whitening: hand values, the covariance they promise, signs, rank, refusals."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from deshi.teachers.whitening import pca, whiten
from deshi.types import DeshiError


def _cloud(rows: int = 200, width: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(width, width, generator=generator)
    return torch.randn(rows, width, generator=generator) @ mix + 5


def test_hand_value() -> None:
    """Points on a line: the first component is their place on it, and nothing is left for the second."""
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
    torch.testing.assert_close(pca(points), torch.tensor([[-5.0, 0.0], [0.0, 0.0], [5.0, 0.0]]))
    step = 1.5**0.5  # variance over N of (-5, 0, 5) is 50/3: 5 / sqrt(50/3)
    torch.testing.assert_close(whiten(points), torch.tensor([[-step, 0.0], [0.0, 0.0], [step, 0.0]]))


def test_whitened_covariance_is_the_identity() -> None:
    """That is what whitening promises, for all columns and for the first few."""
    for dim in (None, 3):
        white = whiten(_cloud(), dim)
        torch.testing.assert_close(white.mean(dim=0), torch.zeros(dim or 6), atol=1e-5, rtol=0)
        torch.testing.assert_close(white.T @ white / 200, torch.eye(dim or 6), atol=1e-5, rtol=0)


def test_pca_keeps_distances_and_orders_by_variance() -> None:
    """Without a cut it is a rotation about the mean; with one it keeps the columns of largest variance."""
    cloud = _cloud()
    rotated = pca(cloud)
    exact = "donot_use_mm_for_euclid_dist"
    distances = [torch.cdist(points, points, compute_mode=exact) for points in (rotated, cloud)]
    torch.testing.assert_close(*distances, atol=1e-4, rtol=1e-4)
    variances = rotated.var(dim=0)
    assert (variances.diff() < 0).all()
    torch.testing.assert_close(pca(cloud, 2), rotated[:, :2])


def test_signs_do_not_depend_on_the_order_of_rows() -> None:
    """An eigenvector's sign is free; if it were left to chance, a table and its copy could disagree."""
    cloud = _cloud()
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(whiten(cloud[order]), whiten(cloud)[order], atol=1e-4, rtol=1e-4)
    assert torch.equal(whiten(cloud), whiten(cloud))


@pytest.mark.parametrize("transform", [pca, whiten])
def test_directions_without_variance_are_zero(transform: Callable[[Tensor], Tensor]) -> None:
    """Fewer items than numbers, or copies of one: zeros, never amplified rounding or NaN."""
    few = transform(_cloud()[:3])
    assert few.shape == (3, 6) and (few[:, 2:] == 0).all() and (few[:, :2] != 0).any(dim=0).all()
    same = transform(torch.full((5, 4), 0.1))
    assert torch.equal(same, torch.zeros(5, 4))


@pytest.mark.parametrize("dim", [0, 7])
def test_impossible_width_is_refused(dim: int) -> None:
    """There are as many components as numbers."""
    with pytest.raises(DeshiError, match="expected 1 to 6"):
        pca(_cloud(), dim)


def test_numbers_that_are_not_finite_are_refused() -> None:
    """One NaN would make every component NaN."""
    cloud = _cloud()
    cloud[3, 2] = torch.nan
    with pytest.raises(DeshiError, match="1 of 200"):
        whiten(cloud)
