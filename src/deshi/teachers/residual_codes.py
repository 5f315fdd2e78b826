"""Semantic IDs of items: residual k-means codes of their vectors, made unique by one more code."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deshi.artifacts import fingerprint, read_json, read_tensors, write_json, write_tensors
from deshi.configuration.needs import Component
from deshi.teachers._models import locked
from deshi.types import DeshiError, check_shape

log = logging.getLogger(__name__)

FITTED = 65_536
"""Vectors that the centres of a level are computed from, drawn at random from larger catalogues."""

_ROWS = 65_536

_ROUNDING = 1e-5
"""Squared distances below this share of the points' mean square length are rounding: the points are one."""

_EXACT = 1e-10
"""A vector of which less than this share of the mean variance is left is its centre."""


@dataclass(frozen=True, eq=False)
class ItemCodes:
    """The codes of a catalogue.

    Attributes:
        codes: ``(n_items, L + 1)`` int64, one row an item, no two rows alike: the codes of the levels and the code
            that tells items apart that share all of these (0 for items that share them with no other).
        record: JSON-able: sizes of the codebooks, how many of their codes are used, the share of variance that is left
            after each level, the share of items that shared all codes, and the most items that did.
    """

    codes: Tensor
    record: dict[str, Any]


@dataclass(frozen=True)
class ResidualCodes(Component):
    """Residual k-means: each level's centres are those of what the levels before it left over.

    The codes of GRID (arXiv 2507.22224), which found them better than the residual quantised autoencoder of TIGER
    (arXiv 2305.05065); the code that makes them unique is TIGER's. The same vectors and seed give the same codes.

    Attributes:
        sizes: codes of each level; a level of fewer distinct vectors has as many codes as these.
        iterations: rounds of k-means at most.
        seed: of the first centres.

    Raises:
        DeshiError: for sizes below 2, no level at all, or fewer than one iteration.
    """

    sizes: tuple[int, ...] = (256, 256, 256)
    iterations: int = 25
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 2 or self.iterations < 1:
            raise DeshiError(
                f"The codes have sizes={list(self.sizes)} and iterations={self.iterations}, expected one level or more "
                "of 2 codes or more, e.g. [256,256,256], and 1 iteration or more."
            )

    def __call__(self, vectors: Tensor, cache: Path) -> ItemCodes:
        """Compute the codes of ``vectors`` ``(n_items, D)``, or take them from the cache."""
        check_shape("vectors", vectors, ("N", "D"))
        settings: dict[str, Any] = {"sizes": list(self.sizes), "iterations": self.iterations, "seed": self.seed}
        key = fingerprint([("vectors", vectors.numpy()), ("settings", settings)])[:32]
        path = cache / "codes" / f"{key}.safetensors"
        with locked(path):
            if not path.is_file():
                computed = self._compute(vectors)
                write_json(path.with_suffix(".json"), settings | computed.record)
                write_tensors({"codes": computed.codes.contiguous()}, path)
            return ItemCodes(read_tensors(path)["codes"], dict(read_json(path.with_suffix(".json"))))

    def _compute(self, vectors: Tensor) -> ItemCodes:
        generator = np.random.default_rng(self.seed)
        rest = vectors.float() - vectors.float().mean(0)
        variance = float(rest.square().sum().clamp(min=1e-12))
        levels, left = list[Tensor](), list[float]()
        for size in self.sizes:
            centres = k_means(rest, size, self.iterations, generator)
            codes, _ = nearest(rest, centres)
            rest = rest - centres[codes]
            lengths = rest.square().sum(1, keepdim=True)
            rest = torch.where(lengths > _EXACT * variance / len(rest), rest, 0.0)
            levels.append(codes)
            left.append(round(float(rest.square().sum()) / variance, 4))
        codes = torch.stack(levels, dim=1)
        extra, group_sizes = number_duplicates(codes)
        shared = group_sizes > 1
        record: dict[str, Any] = {
            "used": [int(len(level.unique())) for level in levels],
            "variance_left": left,
            "shared_codes": round(float(shared.double().mean()), 4),
            "most_items_of_equal_codes": int(group_sizes.max()),
        }
        log.info(
            "codes of %d levels: %.1f %% of the variance left, %.1f %% of the items shared all codes (up to %d items)",
            len(levels), 100 * left[-1], 100 * record["shared_codes"], record["most_items_of_equal_codes"],
        )  # fmt: skip
        return ItemCodes(torch.cat([codes, extra[:, None]], dim=1), record)


def number_duplicates(codes: Tensor) -> tuple[Tensor, Tensor]:
    """The number of each row among the equal rows of ``codes`` ``(N, L)``, in their order, and how many these are.

    Returns:
        numbers from 0 and sizes, ``(N,)`` int64 both.
    """
    _, groups, sizes = codes.unique(dim=0, return_inverse=True, return_counts=True)
    order = groups.argsort(stable=True)
    # rows of a group stand together in `order`: a row's number is its place less the place of the group's first row
    first = sizes.cumsum(0) - sizes
    numbers = torch.empty_like(groups)
    numbers[order] = torch.arange(len(groups)) - first[groups[order]]
    return numbers, sizes[groups]


def k_means(points: Tensor, size: int, iterations: int, generator: np.random.Generator) -> Tensor:
    """At most ``size`` centres ``(K, D)`` of ``points`` ``(N, D)`` by Lloyd's algorithm.

    It begins with the seeds of k-means++. A centre that loses all its points moves to the point that is farthest from
    its own centre. There are fewer centres than ``size`` only if the points have fewer distinct values.
    """
    if len(points) > FITTED:
        points = points[torch.from_numpy(generator.choice(len(points), FITTED, replace=False))]
    centres, before = first_centres(points, size, generator), torch.empty(0)
    for _ in range(iterations):
        nearest_centre, distances = nearest(points, centres)
        if torch.equal(nearest_centre, before):
            break
        before = nearest_centre
        counts = torch.bincount(nearest_centre, minlength=len(centres))
        sums = torch.zeros_like(centres).index_add_(0, nearest_centre, points)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
        empty = (counts == 0).nonzero()[:, 0]
        centres[empty] = points[distances.topk(len(empty)).indices]
    return centres


def first_centres(points: Tensor, size: int, generator: np.random.Generator) -> Tensor:
    """Seeds by k-means++ (Arthur & Vassilvitskii, SODA 2007).

    Each next one is a point drawn in proportion to its squared distance from the nearest seed so far.
    """
    chosen, lengths = [int(generator.integers(len(points)))], points.square().sum(1)
    nothing = _ROUNDING * lengths.mean()
    distances = torch.full((len(points),), torch.inf)
    while len(chosen) < size:
        seed = chosen[-1]
        to_seed = lengths + lengths[seed] - 2 * (points @ points[seed])
        distances = torch.minimum(distances, torch.where(to_seed > nothing, to_seed, 0.0))
        cumulative = distances.double().cumsum(0)
        if cumulative[-1] == 0:  # every point is a seed already
            break
        drawn = torch.tensor(generator.random(), dtype=torch.double) * cumulative[-1]
        chosen.append(min(int(torch.searchsorted(cumulative, drawn, right=True)), len(points) - 1))
    return points[chosen]


def nearest(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest of ``centres`` ``(K, D)`` for each of ``points`` ``(N, D)``: its index and squared distance."""
    indices, distances = [], []
    for part in points.split(_ROWS):
        # |x - c|^2 = |x|^2 - 2 x c + |c|^2
        parts = torch.addmm(centres.square().sum(1), part, centres.T, alpha=-2) + part.square().sum(1, keepdim=True)
        smallest, index = parts.min(1)
        indices.append(index)
        distances.append(smallest.clamp(min=0))
    return torch.cat(indices), torch.cat(distances)
