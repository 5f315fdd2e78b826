"""Faults planted into a clean little pipeline, each with the finding that must name it.

The shop: users who mostly walk through the items one by one, each at days of their own, and a student that knows it.
Every fault is a small change of what a stage would have written or fed: arrays, batches, a student, ranks, records.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors.torch import save_file
from torch import Tensor

from deshi.artifacts import write_json
from deshi.auditing._bundle import audit_bundle
from deshi.auditing._candidates import audit_candidates
from deshi.auditing._finding import Finding
from deshi.auditing._provenance import audit_record, audit_soft_labels, audit_weights
from deshi.auditing._ranks import audit_ranks
from deshi.auditing._reranking import recompute
from deshi.auditing._selection import audit_selection
from deshi.auditing._split import audit_split, audit_training_ranges
from deshi.auditing._student import audit_student
from deshi.auditing._table import Renamed, audit_table
from deshi.data.bundle import Bundle
from deshi.data.sequences import Augmentation, TrainingBatches
from deshi.data.splits import PARTS, Examples, LeaveOneOut, Split
from deshi.evaluation import evaluate_ranks, summarise
from deshi.models.base import SequentialRecommender
from deshi.models.item_table import ItemEmbedding
from deshi.models.sasrec import SASRec
from deshi.models.scorers import SequentialScorer
from deshi.types import PAD, Batch
from tiny_bundles import tiny_bundle

USERS, ITEMS, LENGTH = 90, 40, 9
START, DAY = 1_600_000_000_000, 86_400_000
NEVER_SOLD = ITEMS - 1
"""An item that nobody has in the clean shop."""


class Walker(SequentialRecommender):
    """Knows that item ``i + 1`` follows item ``i``; nothing is learned, so a test can wait for nothing."""

    def __init__(self, n_items: int) -> None:
        super().__init__(n_items, n_items, 50)
        generator = torch.Generator().manual_seed(0)
        assert isinstance(self.items, ItemEmbedding)
        with torch.no_grad():
            self.items.weight[1:] = torch.eye(n_items) + 0.01 * torch.rand(n_items, n_items, generator=generator)

    def encode(self, items: Tensor, lengths: Tensor) -> Tensor:
        """The row of the next item; zeros where there is padding."""
        follower = torch.where(items == PAD, PAD, (items + 1) % self.n_items)
        states: Tensor = self.items(follower)
        return states


@dataclass(frozen=True, eq=False)
class Shop:
    """A clean pipeline to plant a fault into."""

    folder: Path
    sequences: list[list[int]]
    times: list[list[int]]
    bundle: Bundle
    split: Split
    student: SequentialRecommender

    @property
    def examples(self) -> Examples:
        """Of the test part."""
        return self.split.examples(self.bundle, "test")

    @property
    def validation(self) -> Examples:
        """Of the validation part."""
        return self.split.examples(self.bundle, "validation")

    def batches(self, ends: np.ndarray | None = None) -> Iterable[Batch]:
        """An epoch of small training batches."""
        stop = self.split.train_end if ends is None else ends
        starts = self.bundle.offsets[:-1]
        return TrainingBatches(self.bundle.items, starts, stop, 5, 60, 16, "all", Augmentation(), seed=0, epoch=0)

    def ranks(self) -> pl.DataFrame:
        """Of the student on test."""
        return evaluate_ranks(SequentialScorer(self.student), self.bundle, self.examples).ranks

    def recomputed(self) -> pl.DataFrame:
        """The same, as the audit computes them again."""
        return recompute(SequentialScorer(self.student), self.bundle, self.examples)

    def ndcg(self) -> float:
        """Of the student on validation."""
        ranking = evaluate_ranks(SequentialScorer(self.student), self.bundle, self.validation)
        return float(summarise(ranking.ranks, ranking.top_items, [10], ITEMS)["ndcg@10"])

    def rewritten(self, name: str, sequences: Any = None, times: Any = None) -> Shop:
        """The same shop with other events, prepared as a whole."""
        return open_shop(self.folder / name, sequences or self.sequences, times or self.times)

    def edited(self, **arrays: np.ndarray) -> Bundle:
        """The bundle with arrays of ``sequences/`` replaced after preparation."""
        for name, array in arrays.items():
            np.save(self.bundle.path / "sequences" / f"{name}.npy", array, allow_pickle=False)
        return Bundle.load(self.bundle.path)


def open_shop(folder: Path, sequences: Any = None, times: Any = None) -> Shop:
    """A fresh shop in ``folder``; the same every time."""
    if sequences is None:
        sequences, times = _walks()
    bundle = tiny_bundle(folder, sequences, times, n_items=ITEMS)
    return Shop(folder, sequences, times, bundle, LeaveOneOut()(bundle), Walker(ITEMS))


def _walks() -> tuple[list[list[int]], list[list[int]]]:
    random = np.random.default_rng(7)
    sequences, times = [], []
    for user in range(USERS):
        item, walk = int(random.integers(NEVER_SOLD)), list[int]()
        while len(walk) < LENGTH + user % 3:
            if item not in walk:
                walk.append(item)
            item = (item + 1) % NEVER_SOLD if random.random() < 0.8 else int(random.integers(NEVER_SOLD))
        sequences.append(walk)
        times.append([START + (50 * user + place) * DAY + user for place in range(len(walk))])
    return sequences, times


Planted = tuple[list[Finding], set[str] | None]
"""What the audit said, and the ids of the users that the fault touches (None: all, or it isn't about users)."""


@dataclass(frozen=True)
class Fault:
    """A planted fault.

    Attributes:
        name: what was done.
        finding: that must be reported.
        plant: does it and runs the audit.
    """

    name: str
    finding: str
    plant: Callable[[Shop], Planted]


FAULTS: list[Fault] = []


def fault(finding: str, name: str) -> Callable[[Callable[[Shop], Planted]], Callable[[Shop], Planted]]:
    """Register a fault."""

    def register(plant: Callable[[Shop], Planted]) -> Callable[[Shop], Planted]:
        FAULTS.append(Fault(name, finding, plant))
        return plant

    return register


def ids(users: Iterable[int]) -> set[str]:
    """The ids of user indices."""
    return {f"u{user}" for user in users}


# ---- the bundle


@fault("bundle-changed", "a file edited after preparation")
def _(shop: Shop) -> Planted:
    path = shop.bundle.path / "users.parquet"
    pl.read_parquet(path).with_columns(pl.col("user_id") + "x").write_parquet(path)
    return audit_bundle(Bundle.load(shop.bundle.path)), None


@fault("history-unsorted", "events of some users written newest first")
def _(shop: Shop) -> Planted:
    flipped = {3, 4, 5}
    order = [-1 if user in flipped else 1 for user in range(USERS)]
    sequences, times = (
        [row[::step] for row, step in zip(rows, order, strict=True)] for rows in (shop.sequences, shop.times)
    )
    return audit_bundle(shop.rewritten("flipped", sequences, times).bundle), ids(flipped)


@fault("history-shuffled", "items shuffled inside histories, times not")
def _(shop: Shop) -> Planted:
    random, items = np.random.default_rng(0), np.array(shop.bundle.items)
    for user in (2, 3):
        random.shuffle(items[shop.bundle.offsets[user] : shop.bundle.offsets[user + 1]])
    return audit_bundle(shop.edited(items=items)), ids((2, 3))


@fault("timestamps-mixed-units", "the users of one source in seconds")
def _(shop: Shop) -> Planted:
    times = [[t // 1000 for t in row] if user < 30 else row for user, row in enumerate(shop.times)]
    return audit_bundle(shop.rewritten("seconds", times=times).bundle), ids(range(30))


@fault("timestamps-mixed-units", "single events in microseconds")
def _(shop: Shop) -> Planted:
    times = [[*row[:-1], row[-1] * 1000] if user % 9 == 0 else row for user, row in enumerate(shop.times)]
    return audit_bundle(shop.rewritten("micro", times=times).bundle), ids(range(0, USERS, 9))


@fault("item-collides-with-padding", "an item numbered as padding in the histories")
def _(shop: Shop) -> Planted:
    items = np.array(shop.bundle.items)
    touched = {user for user, row in enumerate(shop.sequences) if 0 in row}
    items[items == 0] = PAD
    return audit_bundle(shop.edited(items=items)), ids(touched)


@fault("item-out-of-range", "indices that start at 1")
def _(shop: Shop) -> Planted:
    items = np.array(shop.bundle.items) + 2
    touched = {user for user, row in enumerate(shop.sequences) if max(row) + 2 >= ITEMS}
    return audit_bundle(shop.edited(items=items)), ids(touched)


@fault("history-of-another-user", "offsets off by one event")
def _(shop: Shop) -> Planted:
    offsets = np.array(shop.bundle.offsets)
    offsets[10:20] += 1
    return audit_bundle(shop.edited(offsets=offsets)), ids(range(9, 20))


@fault("vocabulary-shifted", "the vocabulary off by a row of padding")
def _(shop: Shop) -> Planted:
    path = shop.bundle.path / "vocabulary.parquet"
    table = pl.read_parquet(path)
    table.with_columns(pl.Series("item_id", np.roll(table["item_id"].to_numpy(), 1))).write_parquet(path)
    return audit_bundle(Bundle.load(shop.bundle.path)), None


@fault("vocabulary-permuted", "the vocabulary sorted after the items were numbered")
def _(shop: Shop) -> Planted:
    path = shop.bundle.path / "vocabulary.parquet"
    table = pl.read_parquet(path)
    table.with_columns(table["item_id"].sort()).write_parquet(path)
    return audit_bundle(Bundle.load(shop.bundle.path)), None


@fault("item-table-misaligned", "titles joined by row")
def _(shop: Shop) -> Planted:
    path = shop.bundle.path / "items.parquet"
    pl.read_parquet(path).sample(fraction=1.0, shuffle=True, seed=0).write_parquet(path)
    return audit_bundle(Bundle.load(shop.bundle.path)), None


# ---- the split


@dataclass(frozen=True)
class Leaky(Split):
    """A split whose training ranges or questions are changed by so many events."""

    train_more: int = 0
    history_more: int = 0

    def train_ranges(self, bundle: Bundle, train_targets: str = "train") -> tuple[np.ndarray, np.ndarray]:
        """The ranges, longer or shorter."""
        starts, ends = super().train_ranges(bundle, train_targets)
        return starts, np.minimum(ends + self.train_more, bundle.offsets[1:])

    def examples(self, bundle: Bundle, part: str) -> Examples:
        """The questions with longer or shorter histories."""
        examples = super().examples(bundle, part)
        return replace(examples, ends=examples.ends + self.history_more)


def leaky(shop: Shop, **changes: int) -> list[Finding]:
    """The audit of a changed split."""
    split = shop.split
    changed = Leaky(split.train_end, split.valid_end, split.targets, split.name, split.description, **changes)
    return audit_split(shop.bundle, changed)


@fault("validation-target-trained-on", "training ranges that end after validation")
def _(shop: Shop) -> Planted:
    return leaky(shop, train_more=1), None


@fault("test-target-trained-on", "training on whole histories")
def _(shop: Shop) -> Planted:
    return leaky(shop, train_more=2), None


@fault("training-range-short", "a split that ends training one event early")
def _(shop: Shop) -> Planted:
    return leaky(shop, train_more=-1), None


@fault("target-in-history", "histories that end after their target")
def _(shop: Shop) -> Planted:
    return leaky(shop, history_more=1), None


@fault("history-short", "histories without the newest event")
def _(shop: Shop) -> Planted:
    return leaky(shop, history_more=-1), None


@fault("duplicate-across-parts", "an event exported twice, so that it is trained on and tested")
def _(shop: Shop) -> Planted:
    twice = set(range(0, USERS, 4))
    sequences = [[*row[:-1], row[-2]] if user in twice else row for user, row in enumerate(shop.sequences)]
    times = [[*row[:-1], row[-2]] if user in twice else row for user, row in enumerate(shop.times)]
    other = shop.rewritten("twice", sequences, times)
    return audit_split(other.bundle, other.split), ids(twice)


def again(shop: Shop, users: set[int]) -> Shop:
    """The shop whose ``users`` end with an item that they had before."""
    sequences = [[*row[:-1], row[1]] if user in users else row for user, row in enumerate(shop.sequences)]
    return shop.rewritten("again", sequences)


@fault("seen-targets", "targets that their user had before")
def _(shop: Shop) -> Planted:
    users = set(range(0, USERS, 5))
    other = again(shop, users)
    return audit_split(other.bundle, other.split), ids(users)


@fault("few-candidates", "a catalogue of 40 items")
def _(shop: Shop) -> Planted:
    return audit_split(shop.bundle, shop.split), None


@fault("cold-targets", "test items that no training user has")
def _(shop: Shop) -> Planted:
    cold = {1, 2, 3}
    sequences = [[*row[:-1], NEVER_SOLD] if user in cold else row for user, row in enumerate(shop.sequences)]
    other = shop.rewritten("cold", sequences)
    return audit_split(other.bundle, other.split), ids(cold)


@fault("future-in-training", "leave-one-out over users of different years")
def _(shop: Shop) -> Planted:
    return audit_split(shop.bundle, shop.split), None


@fault("order-of-targets-tied", "times cut to a coarse resolution")
def _(shop: Shop) -> Planted:
    times = [[*row[:-1], row[-2]] if user < 5 else row for user, row in enumerate(shop.times)]
    other = shop.rewritten("coarse", times=times)
    return audit_split(other.bundle, other.split), ids(range(5))


# ---- the training ranges of a run


@fault("validation-target-trained-on", "training over range(1, len(history) - 1): the report that deshi started from")
def _(shop: Shop) -> Planted:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ranges = shop.split.train_ranges(shop.bundle, "including_validation")
    return audit_training_ranges(shop.bundle, shop.split, ranges, PARTS), None


@fault("test-target-trained-on", "a refit on whole histories")
def _(shop: Shop) -> Planted:
    ranges = (shop.bundle.offsets[:-1], shop.bundle.offsets[1:])
    return audit_training_ranges(shop.bundle, shop.split, ranges, PARTS[1:]), None


@fault("training-range-short", "training that never reaches the last training target")
def _(shop: Shop) -> Planted:
    ranges = shop.split.train_ranges(shop.bundle, "without_last")
    return audit_training_ranges(shop.bundle, shop.split, ranges, PARTS), None


# ---- the student


def probed(shop: Shop, student: SequentialRecommender) -> list[Finding]:
    """The audit of a student."""
    return audit_student(student, shop.bundle, shop.examples)


class Bidirectional(Walker):
    """Knows what comes next because it looks: no causal mask."""

    def encode(self, items: Tensor, lengths: Tensor) -> Tensor:
        """The row of the next input, and the walk's guess at the end."""
        follower = torch.where(items.roll(-1, 1) == PAD, (items + 1) % self.n_items, items.roll(-1, 1))
        last = torch.arange(items.shape[1]) == lengths[:, None] - 1
        states: Tensor = self.items(torch.where(last, (items + 1) % self.n_items, follower))
        return states


class Changed(Walker):
    """The walker with its last states changed by a function of states, items and lengths."""

    def __init__(self, n_items: int, change: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__(n_items)
        self.change = change

    def last_hidden(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Changed."""
        return self.change(self(items, lengths), items, lengths)


@fault("sees-the-future", "a student without a causal mask")
def _(shop: Shop) -> Planted:
    return probed(shop, Bidirectional(ITEMS)), None


@fault("sees-the-future", "a SASRec whose attention looks both ways")
def _(shop: Shop) -> Planted:
    from unittest import mock

    from torch.nn import functional

    attend = functional.scaled_dot_product_attention
    torch.manual_seed(0)
    student = SASRec(ITEMS, 16, 20)
    with torch.no_grad():  # as after training: attention that matters
        for parameter in student.parameters():
            parameter.mul_(3.0)
    with mock.patch.object(functional, "scaled_dot_product_attention", lambda q, k, v, **_: attend(q, k, v)):
        return probed(student=student, shop=shop), None


@fault("reads-padding", "the state is read in the last column, padding or not")
def _(shop: Shop) -> Planted:
    return probed(shop, Changed(ITEMS, lambda states, items, lengths: states[:, -1])), None


@fault("depends-on-batch", "normalised over the users of the batch")
def _(shop: Shop) -> Planted:
    def normed(states: Tensor, items: Tensor, lengths: Tensor) -> Tensor:
        last = states[torch.arange(len(states)), lengths - 1]
        return last - last.mean(0)

    return probed(shop, Changed(ITEMS, normed)), None


@fault("not-deterministic", "dropout left on")
def _(shop: Shop) -> Planted:
    def dropped(states: Tensor, items: Tensor, lengths: Tensor) -> Tensor:
        return torch.nn.functional.dropout(states[torch.arange(len(states)), lengths - 1], 0.5)

    return probed(shop, Changed(ITEMS, dropped)), None


@fault("nan-scores", "a NaN in the item table")
def _(shop: Shop) -> Planted:
    student = Walker(ITEMS)
    assert isinstance(student.items, ItemEmbedding)
    with torch.no_grad():
        student.items.weight[5] = torch.nan
    return probed(shop, student), None


@fault("constant-scores", "a head of zeros")
def _(shop: Shop) -> Planted:
    zeros = Changed(ITEMS, lambda states, items, lengths: 0 * states[:, 0])
    return probed(shop, zeros), None


@fault("item-collides-with-padding", "item 0 takes the row of padding")
def _(shop: Shop) -> Planted:
    student = Walker(ITEMS)
    assert isinstance(student.items, ItemEmbedding)
    with torch.no_grad():
        student.items.weight[1] = 0.0
    return probed(shop, student), None


def renamed(shop: Shop, read: np.ndarray, write: np.ndarray) -> list[Finding]:
    """The audit of a table whose row ``r`` holds item ``read[r]`` in the input and ``write[r]`` in the scores."""
    back = [torch.from_numpy(np.argsort(order)) for order in (read, write)]
    wrong = Renamed(SequentialScorer(shop.student), torch.from_numpy(read), back[1])
    return audit_table(wrong, shop.bundle, shop.validation, recorded=shop.ndcg())


@fault("item-table-shifted", "weights saved with the row of padding, loaded without")
def _(shop: Shop) -> Planted:
    moved = np.roll(np.arange(ITEMS), 1)
    return renamed(shop, np.arange(ITEMS), moved), None


@fault("item-table-shifted", "scores off by one against the vocabulary, in training too")
def _(shop: Shop) -> Planted:
    order = torch.from_numpy(np.roll(np.arange(ITEMS), 1))
    wrong = Renamed(SequentialScorer(shop.student), torch.arange(ITEMS), order)
    return audit_table(wrong, shop.bundle, shop.validation), None


@fault("item-table-permuted", "a table in the order of popularity")
def _(shop: Shop) -> Planted:
    order = np.argsort(-np.bincount(shop.bundle.items, minlength=ITEMS), kind="stable")
    return renamed(shop, np.arange(ITEMS), order), None


@fault("item-table-permuted", "a table in an order that nobody knows")
def _(shop: Shop) -> Planted:
    return renamed(shop, np.arange(ITEMS), np.random.default_rng(3).permutation(ITEMS)), None


@fault("metrics-not-reproduced", "weights of another epoch than the figure's")
def _(shop: Shop) -> Planted:
    return audit_table(SequentialScorer(shop.student), shop.bundle, shop.validation, recorded=0.5 * shop.ndcg()), None


# ---- ranks


def ranked(shop: Shop, ranks: pl.DataFrame, measured: bool = True) -> list[Finding]:
    """The audit of stored ranks, with the model at hand or without."""
    return audit_ranks(ranks, shop.bundle, shop.split, "test", recomputed=shop.recomputed() if measured else None)


@fault("user-evaluated-twice", "ranks gathered from two processes that share users")
def _(shop: Shop) -> Planted:
    return ranked(shop, pl.concat([shop.ranks(), shop.ranks().head(7)])), ids(range(7))


@fault("user-not-evaluated", "ranks of one process only")
def _(shop: Shop) -> Planted:
    return ranked(shop, shop.ranks().gather_every(2)), ids(range(1, USERS, 2))


@fault("wrong-target", "ranks of the validation targets, sold as test")
def _(shop: Shop) -> Planted:
    ranking = evaluate_ranks(SequentialScorer(shop.student), shop.bundle, shop.validation)
    return ranked(shop, ranking.ranks), None


@fault("seen-target-ranked", "a seen-item filter that spares repeated targets, which no served list holds")
def _(shop: Shop) -> Planted:
    users = set(range(0, USERS, 5))
    other, spared = again(shop, users), pl.col("user").is_in(list(users))
    ranks = other.ranks().with_columns(
        pl.when(spared).then(1.0).otherwise("rank").alias("rank"),
        (pl.col("n_candidates") + spared.cast(pl.Int64)).alias("n_candidates"),
    )
    return ranked(other, ranks), ids(users)


@fault("ties-counted-as-hits", "coarse scores, ties in favour of the target")
def _(shop: Shop) -> Planted:
    def coarse(states: Tensor, items: Tensor, lengths: Tensor) -> Tensor:
        return states[torch.arange(len(states)), lengths - 1].round()

    student = Changed(ITEMS, coarse)
    assert isinstance(student.items, ItemEmbedding)
    with torch.no_grad():
        student.items.weight.round_()
    other = replace(shop, student=student)
    lucky = other.ranks().with_columns(other.recomputed()["optimistic"].alias("rank"))
    return ranked(other, lucky), None


@fault("ties-counted-as-hits", "a constant scorer that hits every target")
def _(shop: Shop) -> Planted:
    return ranked(shop, shop.ranks().with_columns(pl.lit(1.0).alias("rank")), measured=False), None


@fault("constant-scores", "every target in the middle of its list")
def _(shop: Shop) -> Planted:
    middle = shop.ranks().with_columns(((pl.col("n_candidates") + 1) / 2).alias("rank"))
    return ranked(shop, middle, measured=False), None


@fault("rank-impossible", "ranks that count from 0")
def _(shop: Shop) -> Planted:
    return ranked(shop, shop.ranks().with_columns(pl.col("rank") - 1), measured=False), None


@fault("rank-not-reproduced", "ranks of other weights")
def _(shop: Shop) -> Planted:
    worse = shop.ranks().with_columns((3 * pl.col("rank")).clip(upper_bound=20.0).alias("rank"))
    return ranked(shop, worse), None


@fault("nan-scores", "NaN ranks, left out of the mean")
def _(shop: Shop) -> Planted:
    lost = pl.when(pl.col("user") < 4).then(float("nan")).otherwise(pl.col("rank")).alias("rank")
    return ranked(shop, shop.ranks().with_columns(lost)), ids(range(4))


def candidate_sets(shop: Shop) -> pl.DataFrame:
    """Sets of 10 with the target first."""
    random, ranks = np.random.default_rng(0), shop.ranks()
    others = [[f"i{n}" for n in random.permutation(ITEMS) if n != target][:9] for target in ranks["target"]]
    sets = [[item, *negatives] for item, negatives in zip(ranks["item_id"], others, strict=True)]
    return ranks.select("example", "user_id", "item_id", pl.Series("candidates", sets))


@fault("candidates-without-target", "candidates drawn without the target")
def _(shop: Shop) -> Planted:
    sets = candidate_sets(shop)
    cut = pl.when(pl.col("example") < 8).then(pl.col("candidates").list.tail(9)).otherwise("candidates")
    return audit_candidates(sets.with_columns(cut.alias("candidates")), shop.ranks()), ids(range(8))


@fault("candidates-with-duplicates", "the target drawn a second time")
def _(shop: Shop) -> Planted:
    sets = candidate_sets(shop)
    double = pl.concat_list("candidates", "item_id")
    cut = pl.when(pl.col("example") < 8).then(double).otherwise("candidates")
    return audit_candidates(sets.with_columns(cut.alias("candidates")), shop.ranks()), ids(range(8))


# ---- selection


CURVE = pl.DataFrame({"epoch": [1, 2, 3], "validation/ndcg@10": [0.1, 0.3, 0.2], "test/ndcg@10": [0.1, 0.15, 0.25]})


@fault("selected-on-test", "the record says that test selected")
def _(shop: Shop) -> Planted:
    return audit_selection({"selected_on": "test/ndcg@20", "selected_epoch": 3}, CURVE), None


@fault("selected-on-test", "the epoch that is best on test")
def _(shop: Shop) -> Planted:
    return audit_selection({"selected_on": "validation/ndcg@10", "selected_epoch": 3}, CURVE), None


@fault("selected-on-test", "test figures under the name of validation")
def _(shop: Shop) -> Planted:
    random = np.random.default_rng(0)
    measured = {"validation": random.random(900) * 0.8, "test": random.random(900) * 0.3}
    record = {"selected_on": "validation/ndcg@10", "selected_epoch": 2}
    return audit_selection(record, CURVE, float(measured["test"].mean()), measured), None


@fault("selected-epoch-not-best", "the last epoch's weights kept")
def _(shop: Shop) -> Planted:
    record = {"selected_on": "validation/ndcg@10", "selected_epoch": 3}
    return audit_selection(record, CURVE.drop("test/ndcg@10")), None


# ---- provenance


def store(shop: Shop, bundle: Bundle | None = None, **files: Any) -> list[Finding]:
    """The audit of a soft-label store."""
    folder = shop.folder / "soft_labels"
    folder.mkdir()
    source = bundle or shop.bundle
    write_json(folder / "manifest.json", {"data_fingerprint": source.fingerprint, "n_items": source.n_items})
    for name, array in files.items():
        if name == "item_embeddings":
            save_file({name: torch.from_numpy(np.ascontiguousarray(array, np.float32))}, folder / f"{name}.safetensors")
        else:
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
    return audit_soft_labels(folder, shop.bundle)


def alike() -> np.ndarray:
    """Embeddings of the items in which neighbours on the walk are alike."""
    angles = 2 * np.pi * np.arange(ITEMS) / ITEMS
    random = np.random.default_rng(0)
    spread = random.permutation(ITEMS)  # pairs of neighbours alike, pairs not like each other
    groups = random.normal(size=(ITEMS, 16))[spread // 2]
    return np.concatenate([groups, 0.1 * np.stack([np.cos(angles), np.sin(angles)], 1)], axis=1)


@fault("made-on-another-bundle", "a soft-label store made before the data were filtered anew")
def _(shop: Shop) -> Planted:
    other = open_shop(shop.folder / "before", shop.sequences[:-5], shop.times[:-5])
    return store(shop, other.bundle), None


@fault("made-on-another-bundle", "embeddings with a row for padding")
def _(shop: Shop) -> Planted:
    return store(shop, item_embeddings=np.vstack([np.zeros(18), alike()])), None


@fault("made-on-another-bundle", "a teacher's lists of another catalogue")
def _(shop: Shop) -> Planted:
    lists = np.full((shop.bundle.n_interactions, 3), ITEMS + 4, dtype=np.int32)
    return store(shop, topk_items=lists), None


@fault("made-on-another-bundle", "a run trained on other data")
def _(shop: Shop) -> Planted:
    return audit_record({"data_fingerprint": "0" * 64, "n_items": ITEMS + 1}, shop.bundle, Path("run.json")), None


@fault("made-on-another-bundle", "a checkpoint of another catalogue")
def _(shop: Shop) -> Planted:
    save_file({"items.weight": torch.ones(ITEMS, 4)}, shop.folder / "model.safetensors")
    return audit_weights(shop.folder / "model.safetensors", shop.bundle), None


@fault("not-finite", "weights of a training that diverged")
def _(shop: Shop) -> Planted:
    save_file({"items.weight": torch.full((ITEMS + 1, 4), torch.inf)}, shop.folder / "model.safetensors")
    return audit_weights(shop.folder / "model.safetensors", shop.bundle), None


@fault("not-finite", "a teacher's scores with NaN")
def _(shop: Shop) -> Planted:
    return store(shop, topk_scores=np.full((shop.bundle.n_interactions, 3), np.nan)), None


@fault("embeddings-shifted", "embeddings that lost the first item's row and gained one at the end")
def _(shop: Shop) -> Planted:
    random = np.random.default_rng(5)
    taste = random.permutation(ITEMS) // 4
    lived = [[int(n) for n in random.permutation(np.flatnonzero(taste == random.integers(10)))] for _ in range(400)]
    other = shop.rewritten("taste", lived, [[START + place * DAY for place in range(4)] for _ in lived])
    vectors = random.normal(size=(10, 16))[taste] + 0.1 * random.normal(size=(ITEMS, 16))
    return store(other, item_embeddings=np.roll(vectors, -1, axis=0)), None


NAMES = [f"{fault.finding}: {fault.name}" for fault in FAULTS]
assert len(set(NAMES)) == len(NAMES), [name for name, group in itertools.groupby(sorted(NAMES)) if len(list(group)) > 1]
