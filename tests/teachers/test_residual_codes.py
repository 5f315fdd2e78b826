"""Semantic IDs: the same for the same seed, one for each item, and counted where items had shared one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from deshi.teachers.residual_codes import ResidualCodes, first_centres, k_means, nearest, number_duplicates
from deshi.types import DeshiError


def vectors(rows: int = 200, repeated: int = 30) -> Tensor:
    """Random vectors, the last ones equal to the first ones."""
    drawn = torch.randn(rows, 8, generator=torch.Generator().manual_seed(0))
    drawn[rows - repeated :] = drawn[:repeated]
    return drawn


def test_the_same_seed_gives_the_same_codes(tmp_path: Path) -> None:
    """A run that is opened on another day must find the codes that it was trained on."""
    codes = ResidualCodes((8, 8))
    first, again = codes(vectors(), tmp_path / "one"), codes(vectors(), tmp_path / "two")
    assert torch.equal(first.codes, again.codes) and first.record == again.record
    assert not torch.equal(first.codes, ResidualCodes((8, 8), seed=1)(vectors(), tmp_path / "one").codes)


def test_codes_come_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are computed once for the same vectors and settings, and anew for others."""
    first = ResidualCodes((8, 8))(vectors(), tmp_path)
    monkeypatch.setattr(ResidualCodes, "_compute", lambda *_: pytest.fail("computed again"))
    again = ResidualCodes((8, 8))(vectors(), tmp_path)
    assert torch.equal(first.codes, again.codes) and first.record == again.record
    with pytest.raises(pytest.fail.Exception):
        ResidualCodes((8, 8, 8))(vectors(), tmp_path)


@pytest.mark.parametrize("sizes", [(2,), (8, 8), (64, 64, 64)])
def test_every_item_has_an_id_of_its_own(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    """A hit on an ID that several items share would count for all of them; equal texts share every level."""
    items = ResidualCodes(sizes)(vectors(), tmp_path)
    rows = [tuple(row) for row in items.codes.tolist()]
    assert len(set(rows)) == len(rows) == 200
    beginnings = [row[:-1] for row in rows]
    counts = [beginnings.count(row) for row in beginnings]
    assert items.record["shared_codes"] == pytest.approx(np.mean(np.array(counts) > 1), abs=1e-4)
    assert items.record["most_items_of_equal_codes"] == max(counts)
    assert all(rows[item][:-1] == rows[170 + item][:-1] for item in range(30)), "equal vectors share their codes"
    assert all(row[-1] == 0 for row, count in zip(rows, counts, strict=True) if count == 1)


def test_the_record_tells_use_and_error(tmp_path: Path) -> None:
    """The share of variance that is left falls from level to level and is that of the nearest centres."""
    record = ResidualCodes((8, 8, 8))(vectors(), tmp_path).record
    assert record["used"] == [8, 8, 8] and record["sizes"] == [8, 8, 8]
    assert 1 > record["variance_left"][0] > record["variance_left"][1] > record["variance_left"][2] > 0


def test_k_means_finds_separate_groups() -> None:
    """Four far groups have four centres, their means, from any seed."""
    groups = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0], [50.0, 50.0]])
    points = (groups[:, None] + torch.rand(4, 20, 2, generator=torch.Generator().manual_seed(1))).flatten(0, 1)
    for seed in range(5):
        centres = k_means(points, 4, 20, np.random.default_rng(seed))
        codes, distances = nearest(points, centres)
        assert len(codes.view(4, 20).unique(dim=1)[0]) == 1 and float(distances.max()) < 2
        torch.testing.assert_close(centres[codes[::20]], points.view(4, 20, 2).mean(1), atol=1e-4, rtol=1e-4)


def test_fewer_distinct_vectors_than_codes(tmp_path: Path) -> None:
    """Seeds stop at the distinct points, and a level without anything left to code has one code."""
    points = vectors(3, 0)[torch.arange(30) % 3]
    assert len(first_centres(points, 10, np.random.default_rng(0))) == 3
    items = ResidualCodes((10, 10))(points, tmp_path)
    assert items.record["used"] == [3, 1] and items.record["variance_left"] == [0.0, 0.0]
    assert len(items.codes.unique(dim=0)) == 30 and items.record["most_items_of_equal_codes"] == 10


def test_duplicates_are_numbered_in_their_order() -> None:
    """The extra code of TIGER: 0, 1, ... inside each set of equal rows."""
    numbers, sizes = number_duplicates(torch.tensor([[1, 2], [0, 0], [1, 2], [3, 1], [1, 2]]))
    assert numbers.tolist() == [0, 0, 1, 0, 2] and sizes.tolist() == [3, 1, 3, 1, 3]


@pytest.mark.parametrize(("sizes", "iterations"), [((), 25), ((8, 1), 25), ((8,), 0)])
def test_impossible_settings_are_refused(sizes: tuple[int, ...], iterations: int) -> None:
    """A level of one code says nothing."""
    with pytest.raises(DeshiError, match="expected one level or more"):
        ResidualCodes(sizes, iterations)
