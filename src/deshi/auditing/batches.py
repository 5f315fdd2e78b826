"""What really reaches the model: the training batches of a run, position by position, against the bundle."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from deshi.arrays import Array
from deshi.auditing.bundle import Flat
from deshi.auditing.finding import Finding, count, finding, place
from deshi.auditing.positions import Positions
from deshi.auditing.probe import AT, markov, markov_of_pairs, ndcg_per_example, sample_examples
from deshi.auditing.split import leak, short_range, trained_on
from deshi.data.bundle import Bundle
from deshi.data.sequences import Augmentation
from deshi.data.splits import PARTS, Split
from deshi.types import PAD, USER, Batch

MAX_POSITIONS = 5_000_000
"""So many positions of an epoch are looked at; a longer epoch is sampled from its beginning."""

NAMED = 0.99
"""The share of positions that an explanation must hold for."""


def audit_batches(
    bundle: Bundle,
    split: Split,
    batches: Iterable[Batch],
    augmentation: Augmentation | None = None,
    refit: bool = False,
    windows: str = "all",
    filter_seen: bool = True,
    limit: int = MAX_POSITIONS,
) -> list[Finding]:
    """One epoch of training batches, or its beginning.

    Args:
        bundle: the data.
        split: of the run.
        batches: one epoch of those that the model gets.
        augmentation: of the run: what it may change is not a fault.
        refit: whether these batches may hold the validation part, as those of a refit do.
        windows: of the run; ``random`` and ``last`` do not show every event.
        filter_seen: of the evaluation; the probes that measure effects rank as it does.
        limit: number of positions to look at.
    """
    flat, epoch = Flat.of(bundle), Positions.of(batches, limit)
    changes = augmentation or Augmentation()
    found = _padding(flat, epoch)
    foreign = _foreign(flat, epoch)
    found += foreign
    if not changes.reorder:
        found += _shuffled(flat, epoch)
    if any(one.name != "batch-differs-from-bundle" for one in foreign) or _rows_are_wrong(flat, epoch):
        return found  # without rows to trust, nothing can be said of targets
    target_rows, wrong = _target_rows(flat, epoch, bool(changes.reorder))
    found += _wrong_targets(flat, epoch, wrong, split)
    found += _leaks(flat, split, target_rows, refit, filter_seen)
    if not refit and not wrong.any():
        found += _short(flat, split, epoch, target_rows, changes, windows, filter_seen)
    return found + (_missing(flat, split, epoch) if epoch.whole else [])


def _padding(flat: Flat, epoch: Positions) -> list[Finding]:
    if not epoch.padded:
        return []
    inside = int((epoch.items == PAD).sum())
    what = f"{len(epoch.padded):,} rows of batches hold items or targets after their end, or padding ({PAD}) inside."
    where = (place(batch=number, row=row) for number, row in epoch.padded)
    effect = f"{count(inside, len(epoch.items), 'positions')} read padding as an item; the others train on targets "
    effect += "that nobody has, or on item 0 in the place of nothing."
    fix = f"Pad with {PAD} after each history's end, items and targets alike, and start items at index 0."
    return [finding("padding-in-batch", what, where, effect, fix)]


def _rows_are_wrong(flat: Flat, epoch: Positions) -> bool:
    return bool(((epoch.rows < 0) | (epoch.rows >= len(flat.items))).any())


def _foreign(flat: Flat, epoch: Positions) -> list[Finding]:
    """Positions whose item or user is not that of the event that they claim to be."""
    rows = np.clip(epoch.rows, 0, len(flat.items) - 1)
    real = epoch.items != PAD
    lost, items, users = epoch.rows != rows, flat.items[rows] != epoch.items, flat.users[rows] != epoch.users
    wrong = np.flatnonzero(real & (lost | items | users))
    if not len(wrong):
        return []
    share = count(len(wrong), int(real.sum()), "positions")
    where = (
        place(user=flat.bundle.users[USER][int(epoch.users[n])], event=int(epoch.rows[n]), reads=int(epoch.items[n]),
              bundle_holds=int(flat.items[rows[n]]))
        for n in wrong.tolist()
    )  # fmt: skip
    effect = f"{share} teach the model something that did not happen."
    renamed = None if users.any() or lost.any() else _renaming(flat.items[rows], epoch.items, flat.bundle.n_items)
    if renamed == "permuted":
        what = f"{share} hold another item than the bundle: items are renamed one to one."
        fix = "Map ids with the bundle's own vocabulary (Bundle.encode)."
        return [finding("vocabulary-permuted", what, where, effect, fix)]
    if renamed is not None:
        what = f"{share} hold the item beside the bundle's: the index is off by {renamed}."
        fix = "Add or subtract the padding's row in one place only (the item table does it)."
        return [finding("vocabulary-shifted", what, where, effect, fix)]
    what = f"{share} hold another item or user than the event of the bundle that they stand for."
    fix = "Make batches from the bundle that the run names, and gather items, users and targets by one index."
    return [finding("batch-differs-from-bundle", what, where, effect, fix)]


def _renaming(true: Array, read: Array, n_items: int) -> str | None:
    for shift in (-1, 1):
        if ((true + shift) % n_items == read).mean() > NAMED:
            return f"{shift:+d}"
    pairs = np.unique(true.astype(np.int64) * n_items + np.clip(read, 0, n_items - 1))
    one_to_one = len(pairs) == len(np.unique(pairs // n_items)) == len(np.unique(pairs % n_items))
    return "permuted" if one_to_one else None


def _shuffled(flat: Flat, epoch: Positions) -> list[Finding]:
    back = np.flatnonzero((epoch.following != PAD) & (epoch.following < epoch.rows))
    if not len(back):
        return []
    users = len(np.unique(epoch.users[back]))
    what = f"{count(len(back), len(epoch.rows), 'positions')} of {users:,} users are followed by an earlier event."
    effect = f"{count(users, flat.bundle.n_users, 'users')} are trained on transitions that never happened."
    fix = "Keep each history in the bundle's order; only train.augment.reorder may change it, and says so."
    return [finding("batch-shuffled", what, flat.places(epoch.rows[back]), effect, fix)]


def _target_rows(flat: Flat, epoch: Positions, reordered: bool) -> tuple[Array, Array]:
    """The event that each position's target is (``PAD`` if there is none or it is wrong), and which are wrong.

    A target is the next input of its history; after the last input, the event that follows it in the bundle, or with
    items dropped one that comes later.
    """
    asked = epoch.targets != PAD
    inner = epoch.following != PAD
    right = inner & (epoch.targets == epoch.next_items)
    found = np.where(right, epoch.following, PAD)
    after = np.minimum(epoch.rows + 1, len(flat.items) - 1)
    plain = asked & ~inner & (flat.users[after] == epoch.users) & (flat.items[after] == epoch.targets)
    found[plain] = after[plain]
    rest = np.flatnonzero(asked & ~inner & ~plain)
    for number in rest.tolist():
        begin = flat.bundle.offsets[epoch.users[number]] if reordered else epoch.rows[number] + 1
        later = flat.items[begin : flat.bundle.offsets[epoch.users[number] + 1]] == epoch.targets[number]
        if later.any():
            found[number] = begin + int(later.argmax())
    return found, asked & (found == PAD)


def _wrong_targets(flat: Flat, epoch: Positions, wrong: Array, split: Split) -> list[Finding]:
    places = np.flatnonzero(wrong)
    if not len(places):
        return []
    asked = int((epoch.targets != PAD).sum())
    shown = epoch.targets[places] == epoch.items[places]
    found = []
    for name, chosen, what, fix in (
        ("input-shows-target", places[shown], "must predict the item that they read: the answer is in the input.",
         "Targets are the inputs moved by one: item t + 1 after reading item t."),
        ("target-not-next", places[~shown], "must predict an item that does not follow in their history.",
         "Targets are the inputs moved by one: item t + 1 after reading item t, no more and no less."),
    ):  # fmt: skip
        if len(chosen):
            where = (
                place(user=flat.user_id(int(epoch.rows[n])), position=flat.position(int(epoch.rows[n])),
                      item=flat.item_id(int(epoch.rows[n])), target=int(epoch.targets[n]))
                for n in chosen.tolist()
            )  # fmt: skip
            share = count(len(chosen), asked, "training targets")
            found.append(finding(name, f"{share} {what}", where, _loss_of_targets(flat, epoch, split), fix))
    return found


def _loss_of_targets(flat: Flat, epoch: Positions, split: Split) -> str:
    """What a Markov ranker learns from the batches' pairs (item, target), against what it learns from the bundle's."""
    examples = split.examples(flat.bundle, "validation")
    if not len(examples):
        return f"{len(epoch.targets):,} positions are trained on wrong pairs."
    asked = sample_examples(examples)
    real = epoch.targets != PAD
    honest = markov(flat.bundle, flat.bundle.offsets[:-1], split.train_end)
    taught = markov_of_pairs(epoch.items[real], epoch.targets[real], flat.bundle.n_items)
    right, wrong = (float(ndcg_per_example(ranker, flat.bundle, asked).mean()) for ranker in (honest, taught))
    return f"A Markov ranker has validation NDCG@{AT} {right:.4f} from the bundle, {wrong:.4f} from these batches."


def _leaks(flat: Flat, split: Split, target_rows: Array, refit: bool, filter_seen: bool) -> list[Finding]:
    trained = np.zeros(len(flat.items), dtype=bool)
    trained[target_rows[target_rows != PAD]] = True
    found = []
    for part in PARTS[1:] if refit else PARTS:
        leaked = trained_on(flat.bundle, split, part, trained)
        if leaked.any():
            ends = split.valid_end if part == "validation" else flat.bundle.offsets[1:]
            found.append(leak(flat, split, part, leaked, (flat.bundle.offsets[:-1], ends), filter_seen))
    return found


def _short(
    flat: Flat,
    split: Split,
    epoch: Positions,
    target_rows: Array,
    changes: Augmentation,
    windows: str,
    filter_seen: bool,
) -> list[Finding]:
    """Users whose last training event is never a target.

    Where chance decides what is shown (random windows, crops) it takes all of many users to tell.
    """
    trained = np.zeros(len(flat.items), dtype=bool)
    trained[target_rows[target_rows != PAD]] = True
    shown = np.zeros(flat.bundle.n_users, dtype=bool)
    shown[epoch.users] = True
    begins = flat.bundle.offsets[:-1]
    expected = shown & (split.train_end - begins >= 2)
    short = expected & ~trained[np.maximum(split.train_end - 1, 0)]
    chance = windows == "random" or changes.crop > 0 or changes.reorder > 0 or not epoch.whole
    if not short.any() or (chance and (short.sum() < expected.sum() or short.sum() < 20)):
        return []
    ranges = (begins, np.where(short, split.train_end - 1, split.train_end))
    return [short_range(flat, split, short, ranges, filter_seen)]


def _missing(flat: Flat, split: Split, epoch: Positions) -> list[Finding]:
    trainable = split.train_end - flat.bundle.offsets[:-1] >= 2
    shown = np.zeros(flat.bundle.n_users, dtype=bool)
    shown[epoch.users] = True
    # a user of two events has no target left when the range stops one short: that is the short range's finding
    missing = np.flatnonzero(trainable & ~shown & (split.train_end - flat.bundle.offsets[:-1] >= 3))
    if not len(missing):
        return []
    what = f"{count(len(missing), int(trainable.sum()), 'users')} with training events are in no batch of the epoch."
    events = int((split.train_end - flat.bundle.offsets[:-1])[missing].sum())
    effect = f"{events:,} events are not trained on in this epoch; if the same users are left out every time, never."
    fix = "Keep the last, smaller batch of an epoch (drop_last=False), and shuffle anew in each."
    where = (place(user=flat.bundle.users[USER][user], events=int(split.train_end[user] - flat.bundle.offsets[user]))
             for user in missing.tolist())  # fmt: skip
    return [finding("users-not-trained", what, where, effect, fix)]
