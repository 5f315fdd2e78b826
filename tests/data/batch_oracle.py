"""An oracle of batches: every position of training and evaluation batches compared with the bundle, independently.

It knows nothing of how deshi makes batches. It reads the tensors that a model gets, and finds for each position which
event of the bundle it is, which event must be predicted there, and whether training may see that event.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from deshi.data.bundle import Bundle
from deshi.data.sequences import Augmentation
from deshi.data.splits import Examples, Split
from deshi.types import PAD, Batch

Problems = dict[str, set[int]]
"""The names of what is wrong, each with the indices of the users concerned."""


@dataclass(frozen=True, eq=False)
class Positions:
    """All positions of an epoch that hold an item, as flat arrays of one length.

    Attributes:
        users: user indices.
        items: what the model reads there.
        targets: what it must predict there, ``PAD`` for nothing.
        rows: the event's flat position in the bundle, as the batch says.
        next_rows: the flat position of the next input of the same history, ``PAD`` for the last.
        next_items: the next input, ``PAD`` for the last.
        badly_padded: users of batch rows whose padding and lengths disagree.
    """

    users: np.ndarray
    items: np.ndarray
    targets: np.ndarray
    rows: np.ndarray
    next_rows: np.ndarray
    next_items: np.ndarray
    badly_padded: set[int]


def read_positions(batches: Iterable[Batch]) -> Positions:
    """The positions of all batches."""
    parts, badly_padded = [], set()
    for batch in batches:
        users, items, lengths, targets, rows = (
            tensor.numpy() for tensor in (batch.users, batch.items, batch.lengths, batch.targets, batch.rows)
        )
        columns = np.arange(items.shape[1])
        inside = columns < lengths[:, None]
        wrong = ((items != PAD) != inside).any(1) | ((targets != PAD) & ~inside).any(1)
        badly_padded |= set(users[wrong].tolist())
        last = columns == lengths[:, None] - 1
        end = np.full((len(items), 1), PAD)
        followers = [np.where(last, PAD, np.hstack([values[:, 1:], end])) for values in (rows, items)]
        owners = np.broadcast_to(users[:, None], items.shape)
        parts.append([values[inside] for values in (owners, items, targets, rows, *followers)])
    users, items, targets, rows, next_rows, next_items = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Positions(users, items, targets, rows, next_rows, next_items, badly_padded)


def training_problems(
    bundle: Bundle,
    split: Split,
    batches: Iterable[Batch],
    augmentation: Augmentation | None = None,
    refit: bool = False,
    windows: str = "all",
) -> Problems:
    """What is wrong with one epoch of training batches.

    Args:
        bundle: the data.
        split: whose training part is trained on.
        batches: one epoch.
        augmentation: what it may change is no problem.
        refit: whether the validation part may be trained on.
        windows: ``random`` and ``last`` do not show every event.
    """
    epoch, changes = read_positions(batches), augmentation or Augmentation()
    owner = np.repeat(np.arange(bundle.n_users), np.diff(bundle.offsets))
    rows = np.clip(epoch.rows, 0, bundle.n_interactions - 1)
    foreign = (epoch.rows != rows) | (bundle.items[rows] != epoch.items) | (owner[rows] != epoch.users)
    problems = {
        "padding-in-batch": epoch.badly_padded,
        "batch-differs-from-bundle": set(epoch.users[(epoch.items != PAD) & foreign].tolist()),
    }
    if not changes.reorder:
        back = (epoch.next_rows != PAD) & (epoch.next_rows < epoch.rows)
        problems["batch-shuffled"] = set(epoch.users[back].tolist())
    if not (epoch.rows != rows).any():  # rows outside of the bundle say nothing of targets
        problems |= _target_problems(bundle, split, epoch, changes, refit, windows)
    return {name: users for name, users in problems.items() if users}


def _target_problems(
    bundle: Bundle, split: Split, epoch: Positions, changes: Augmentation, refit: bool, windows: str
) -> Problems:
    target_rows = np.array(
        [_target_row(bundle, epoch, place, bool(changes.reorder)) for place in range(len(epoch.rows))]
    )
    wrong = (epoch.targets != PAD) & (target_rows == PAD)
    shown = epoch.targets == epoch.items
    problems = {
        "input-shows-target": set(epoch.users[wrong & shown].tolist()),
        "target-not-next": set(epoch.users[wrong & ~shown].tolist()),
    }
    trained = np.zeros(bundle.n_interactions, dtype=bool)
    trained[target_rows[target_rows != PAD]] = True
    for part in ("test",) if refit else ("validation", "test"):
        examples = split.examples(bundle, part)
        leaked = examples.owners[trained[examples.target_rows]]
        problems[f"{part}-target-trained-on"] = set(examples.users[leaked].tolist())
    in_epoch = np.isin(np.arange(bundle.n_users), epoch.users)
    lengths = split.train_end - bundle.offsets[:-1]
    problems["users-not-trained"] = set(np.flatnonzero(~in_epoch & (lengths >= 3)).tolist())
    # where chance or cutting decides what is shown, the newest event of a user may be missing
    if not (refit or wrong.any() or windows == "random" or changes.crop or changes.reorder):
        newest = trained[np.maximum(split.train_end - 1, 0)]
        problems["training-range-short"] = set(np.flatnonzero(in_epoch & (lengths >= 2) & ~newest).tolist())
    return problems


def _target_row(bundle: Bundle, epoch: Positions, number: int, reordered: bool) -> int:
    """The event that a position's target is; ``PAD`` if there is no target or it is no event that may follow.

    A target is the next input of its history; after the last input it is a later event of the user, or with reordered
    histories any of the user's events.
    """
    target, row, user = int(epoch.targets[number]), int(epoch.rows[number]), int(epoch.users[number])
    if target == PAD:
        return PAD
    if epoch.next_rows[number] != PAD:
        return int(epoch.next_rows[number]) if target == epoch.next_items[number] else PAD
    begin = int(bundle.offsets[user]) if reordered else row + 1
    later = np.flatnonzero(bundle.items[begin : bundle.offsets[user + 1]] == target)
    return begin + int(later[0]) if len(later) else PAD


def evaluation_problems(
    bundle: Bundle, examples: Examples, batches: Iterable[tuple[Tensor, Batch, Tensor, Tensor]]
) -> Problems:
    """What is wrong with evaluation batches: examples ranked twice or never, histories that end too late or too early.

    Args:
        bundle: the data.
        examples: all that should be ranked.
        batches: ``(example numbers, histories, targets, seen)``.
    """
    times, ends = np.zeros(len(examples), dtype=np.int64), examples.ends.copy()
    wrong_targets = set()
    for numbers, batch, targets, _ in batches:
        np.add.at(times, numbers.numpy(), 1)
        ends[numbers.numpy()] = batch.rows.numpy().max(axis=1) + 1
        for number, row in zip(numbers.tolist(), targets.tolist(), strict=True):
            rows = examples.target_rows[examples.target_offsets[number] : examples.target_offsets[number + 1]]
            if [item for item in row if item != PAD] != bundle.items[rows].tolist():
                wrong_targets.add(int(examples.users[number]))
    first = np.minimum.reduceat(examples.target_rows, examples.target_offsets[:-1])
    masks = {
        "user-evaluated-twice": times > 1,
        "user-not-evaluated": times == 0,
        "target-in-history": ends > first,
        "history-short": ends < first,
    }
    problems = {name: set(examples.users[mask].tolist()) for name, mask in masks.items()}
    return {name: users for name, users in (problems | {"wrong-target": wrong_targets}).items() if users}
