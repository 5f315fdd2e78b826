"""Training and evaluation batches of all sources, splits, windows and augmentations against an independent oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from batch_oracle import Problems, evaluation_problems, training_problems
from torch import Tensor

import deshi
from deshi.data.bundle import Bundle
from deshi.data.example_batches import ExampleBatches
from deshi.data.sequences import Augmentation, TrainingBatches, WindowMode
from deshi.data.splits import LeaveOneOut, Ratio, Split, Temporal
from deshi.types import PAD, Batch
from planted_faults import ITEMS, USERS, Shop, open_shop
from shop_files import SOURCES

SPLITS: dict[str, Callable[[Bundle], Split]] = {
    "leave-one-out": LeaveOneOut(),
    "temporal next": Temporal(validation_share=0.2, test_share=0.2),
    "temporal all": Temporal(validation_share=0.2, test_share=0.2, targets="all"),
    "ratio next": Ratio(0.2, 0.2),
    "ratio all": Ratio(0.2, 0.2, targets="all"),
}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """The shop, prepared from the format of every source."""
    root = tmp_path_factory.mktemp("shops")
    opened = {}
    for name, source in SOURCES.items():
        (root / name).mkdir()
        opened[name] = deshi.prepare(f"paths.root={root / name}", *source.write(root / name)).bundle
    return opened


def epoch_of(
    bundle: Bundle,
    ranges: tuple[np.ndarray, np.ndarray],
    windows: WindowMode = "all",
    changes: Augmentation | None = None,
) -> TrainingBatches:
    """An epoch of small batches."""
    items, augmentation = np.asarray(bundle.items), changes or Augmentation()
    return TrainingBatches(items, *ranges, 4, 50, 16, windows, augmentation, seed=1, epoch=0)


@pytest.mark.parametrize("rule", SPLITS)
@pytest.mark.parametrize("name", SOURCES)
def test_batches_hold_what_the_bundle_holds(name: str, rule: str, bundles: dict[str, Bundle]) -> None:
    """A loader that is off by one event trains and measures something else, and no figure shows it."""
    if rule.startswith("temporal") and not SOURCES[name].timed:
        pytest.skip("a split by time needs times")
    bundle = bundles[name]
    split: Split = SPLITS[rule](bundle)
    assert training_problems(bundle, split, epoch_of(bundle, split.train_ranges(bundle))) == {}
    for part in ("validation", "test"):
        examples = split.examples(bundle, part)
        assert evaluation_problems(bundle, examples, ExampleBatches(bundle, examples, 4, 7, True)) == {}


@pytest.mark.parametrize(
    "changes",
    [Augmentation(item_drop=0.5), Augmentation(crop=0.9), Augmentation(reorder=0.9), Augmentation(0.3, 0.5, 0.5)],
    ids=str,
)
@pytest.mark.parametrize("windows", ["last", "all", "random"])
def test_augmentation_and_windows_keep_targets_right(
    windows: WindowMode, changes: Augmentation, bundles: dict[str, Bundle]
) -> None:
    """Dropping, cutting and reordering may change what is read, never what an event is followed by."""
    bundle = bundles["recbole"]
    split = LeaveOneOut()(bundle)
    batches = epoch_of(bundle, split.train_ranges(bundle), windows, changes)
    assert training_problems(bundle, split, batches, changes, windows=windows) == {}


def test_a_refit_trains_on_validation_but_never_on_test(bundles: dict[str, Bundle]) -> None:
    """The honest way to learn from the newest events must stop before the test part."""
    bundle = bundles["sql"]
    split = LeaveOneOut()(bundle)
    batches = epoch_of(bundle, split.refit_ranges(bundle))
    assert training_problems(bundle, split, batches, refit=True) == {}
    assert set(training_problems(bundle, split, batches)) == {"validation-target-trained-on"}


def _padded_with_zero(batch: Batch) -> Batch:
    return replace(batch, items=batch.items.clamp(min=0), targets=batch.targets.clamp(min=0))


def _of_other_users(batch: Batch) -> Batch:
    order = torch.argsort(batch.lengths, stable=True).flip(0)
    return replace(batch, users=batch.users[order].roll(1))


def _backwards(batch: Batch) -> Batch:
    columns = torch.arange(batch.items.shape[1])
    order = torch.where(columns < batch.lengths[:, None], batch.lengths[:, None] - 1 - columns, columns)
    return replace(batch, items=batch.items.gather(1, order), rows=batch.rows.gather(1, order))


def _moved_by_two(batch: Batch) -> Batch:
    return replace(batch, targets=torch.where(batch.items == PAD, PAD, batch.targets.roll(-1, 1)))


def _renamed(batch: Batch, names: Tensor) -> Batch:
    items, targets = (
        torch.where(values == PAD, PAD, names[values.clamp(min=0)]) for values in (batch.items, batch.targets)
    )
    return replace(batch, items=items, targets=targets)


CHANGES: dict[str, tuple[str, Callable[[Batch], Batch]]] = {
    "targets not moved": ("input-shows-target", lambda batch: replace(batch, targets=batch.items)),
    "inputs moved by one": ("input-shows-target", lambda batch: replace(batch, items=batch.targets)),
    "targets moved by two": ("target-not-next", _moved_by_two),
    "items gathered by the rows of another user": ("batch-differs-from-bundle", _of_other_users),
    "indices that make room for padding twice": (
        "batch-differs-from-bundle",
        lambda batch: _renamed(batch, (torch.arange(ITEMS) + 1) % ITEMS),
    ),
    "items of another vocabulary": (
        "batch-differs-from-bundle",
        lambda batch: _renamed(batch, torch.from_numpy(np.random.default_rng(1).permutation(ITEMS))),
    ),
    "histories shuffled in the loader": ("batch-shuffled", _backwards),
    "padding with 0, which is an item": ("padding-in-batch", _padded_with_zero),
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_oracle_sees_changed_batches(name: str, tmp_path: Path) -> None:
    """An oracle that no fault has ever triggered may be blind."""
    expected, change = CHANGES[name]
    shop = open_shop(tmp_path)
    assert training_problems(shop.bundle, shop.split, shop.batches()) == {}
    assert expected in training_problems(shop.bundle, shop.split, [change(batch) for batch in shop.batches()])


RANGES: dict[str, Callable[[Shop], np.ndarray]] = {
    "validation-target-trained-on": lambda shop: shop.split.valid_end,  # range(1, len(history) - 1)
    "test-target-trained-on": lambda shop: shop.bundle.offsets[1:],
    "training-range-short": lambda shop: shop.split.train_end - 1,
}


@pytest.mark.parametrize("expected", RANGES)
def test_the_oracle_sees_wrong_ranges(expected: str, tmp_path: Path) -> None:
    """The report that deshi started from: ranges that end after validation, or before the training part's end."""
    shop = open_shop(tmp_path)
    assert expected in training_problems(shop.bundle, shop.split, shop.batches(RANGES[expected](shop)))


def test_the_oracle_sees_a_dropped_batch(tmp_path: Path) -> None:
    """Users of a last batch that is dropped are never trained on."""
    shop = open_shop(tmp_path)
    ranges = (shop.bundle.offsets[:-1], shop.split.train_end)
    *kept, last = TrainingBatches(shop.bundle.items, *ranges, 20, 60, 16, "all", Augmentation(), seed=0, epoch=0)
    missing = set(last.users.tolist()) - {user for batch in kept for user in batch.users.tolist()}
    assert training_problems(shop.bundle, shop.split, kept) == {"users-not-trained": missing}


def _evaluated(shop: Shop, numbers: Iterable[int]) -> Problems:
    batches = {int(batch[0]): batch for batch in ExampleBatches(shop.bundle, shop.examples, 50, 1, True)}
    return evaluation_problems(shop.bundle, shop.examples, [batches[number] for number in numbers])


def test_the_oracle_sees_examples_ranked_twice_or_never(tmp_path: Path) -> None:
    """A distributed sampler repeats the first users; a dropped last batch leaves the last ones out."""
    shop = open_shop(tmp_path)
    assert _evaluated(shop, range(USERS)) == {}
    assert _evaluated(shop, [*range(USERS), *range(6)]) == {"user-evaluated-twice": set(range(6))}
    assert _evaluated(shop, range(USERS - 10)) == {"user-not-evaluated": set(range(USERS - 10, USERS))}


def test_the_oracle_sees_histories_with_their_target(tmp_path: Path) -> None:
    """A history that ends one event late gives the answer away."""
    shop = open_shop(tmp_path)
    late = replace(shop.examples, ends=shop.examples.ends + 1)
    batches = ExampleBatches(shop.bundle, late, 50, 16, True)
    assert set(evaluation_problems(shop.bundle, shop.examples, batches)) == {"target-in-history"}
