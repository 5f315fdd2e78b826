"""Batches dealt out over ranks: together they are the epoch, and their shares make means over all positions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deshi.data.example_batches import ExampleBatches
from deshi.data.extra_histories import JoinedBatches
from deshi.data.rank_batches import RankBatch, RankBatches
from deshi.data.sequences import Augmentation, TrainingBatches
from deshi.data.splits import LeaveOneOut
from deshi.types import PAD, Batch
from tiny_bundles import random_sequences, tiny_bundle

DRAW = np.random.default_rng(3)
LENGTHS = DRAW.integers(1, 12, 17)
ENDS = LENGTHS.cumsum()
ITEMS = DRAW.integers(0, 20, ENDS[-1]).astype(np.int32)


def epoch(seed: int = 0, size: int = 5) -> TrainingBatches:
    augmentation = Augmentation(item_drop=0.2, crop=0.3, reorder=0.2)
    return TrainingBatches(ITEMS, ENDS - LENGTHS, ENDS, 8, 24, size, "all", augmentation, seed, 1)


def joined() -> JoinedBatches:
    return JoinedBatches(epoch(), epoch(seed=1), with_targets=False)


def histories(batch: Batch) -> list[tuple[int, ...]]:
    columns = (batch.users[:, None], batch.items, batch.targets, batch.rows)
    return sorted(tuple(row) for row in torch.cat(columns, 1).tolist())


def targets(batch: Batch) -> int:
    return int((batch.targets != PAD).sum())


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_the_ranks_have_the_epoch_between_them(ranks: int) -> None:
    """Each history of each batch, augmented as for one process, is one rank's, and no rank has fewer batches."""
    dealt = [list(RankBatches(joined(), rank, ranks)) for rank in range(ranks)]
    assert all(len(RankBatches(joined(), rank, ranks)) == len(dealt[rank]) for rank in range(ranks))
    for whole, parts in zip(joined(), zip(*dealt, strict=True), strict=True):
        real = [part for part in parts if len(part.dealt)]
        assert sorted(row for part in real for row in histories(part)) == histories(whole)
        assert all(histories(part.whole) == histories(whole) for part in parts)
        assert sum(part.share(targets) for part in parts) == pytest.approx(ranks)
        assert all(part.share(targets) == 0 and len(part.users) == 1 for part in parts if not len(part.dealt))
    assert any(not len(part.dealt) for part in dealt[-1]) == (ranks == 7), "a batch may have fewer histories than ranks"


def test_a_part_goes_to_a_device_and_leaves_the_whole_batch_behind() -> None:
    """Positions are counted on the CPU, where nothing has to be waited for."""
    part = RankBatch.of(next(iter(epoch())), 1, 2)
    moved = part.to("meta")
    assert isinstance(moved, RankBatch) and moved.items.device.type == "meta"
    assert moved.whole is part.whole and moved.share(targets) == part.share(targets)


@pytest.mark.parametrize(("ranks", "size"), [(2, 3), (3, 128), (40, 2)])
def test_each_example_is_one_rank_s(tmp_path: object, ranks: int, size: int) -> None:
    """No example twice, as a sampler that fills up would have it, and no rank with much more than another."""
    bundle = tiny_bundle(tmp_path, random_sequences(30, 20, 3, 9))  # type: ignore[arg-type]
    examples = LeaveOneOut()(bundle).examples(bundle, "validation")
    loaders = [ExampleBatches(bundle, examples, 8, size, True, part=(rank, ranks)) for rank in range(ranks)]
    numbers = [[int(n) for batch in loader for n in batch.numbers] for loader in loaders]
    assert sorted(n for part in numbers for n in part) == list(range(len(examples)))
    assert max(map(len, numbers)) - min(map(len, numbers)) <= 1
    assert [len(loader) for loader in loaders] == [len(list(loader)) for loader in loaders]
