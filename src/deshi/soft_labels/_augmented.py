"""Augmented histories for a teacher to label: training histories with items dropped, cut or partly shuffled."""

from __future__ import annotations

import numpy as np

from deshi.arrays import Ints, offsets_of
from deshi.data.bundle import Bundle
from deshi.data.sequences import Augmentation, Windows
from deshi.data.splits import Split
from deshi.soft_labels._histories import Histories
from deshi.types import DeshiError

_BLOCK = 256
"""Histories augmented at a time: the padded block of a long history stays small."""


def augment_histories(
    bundle: Bundle, split: Split, augmentation: Augmentation, copies: int = 1, seed: int = 0
) -> Histories:
    """Augmented copies of every user's training range, as histories of their own.

    A teacher's rankings after these are out of sample even where it was trained on the users: it has never seen
    exactly these histories (unless it was trained with the same augmentations; the seeds differ in any case).
    Events outside of the training range never occur. Item drop keeps each history's last two events. A copy that came
    out as the original did is kept; with few events that happens.

    Args:
        bundle: the data.
        split: of the data, refitted where the teacher was; its training ranges are augmented. Users with fewer than
            two training events are left out.
        augmentation: what is augmented, see :class:`deshi.data.sequences.Augmentation`.
        copies: augmented histories a user, each augmented anew.
        seed: the same seed gives the same histories.

    Returns:
        the histories, a user's copies one after the other, ``sources`` being the original flat positions.

    Raises:
        DeshiError: if nothing is augmented, or no user has two training events.
    """
    if augmentation == Augmentation():
        raise DeshiError(
            "augment alters nothing: item_drop, crop and reorder are all 0. Set one, such as item_drop=0.3."
        )
    if copies < 1:
        raise DeshiError(f"copies is {copies}, expected a number from 1.")
    starts, ends = split.train_ranges(bundle)
    users = np.repeat(np.flatnonzero(ends - starts >= 2), copies)
    if not len(users):
        raise DeshiError(f"No user of {bundle.name} has two training events, so there is no history to alter.")
    generator = np.random.Generator(np.random.SFC64([seed, 29]))
    sources, counts = _augmented(users, starts[users], ends[users], augmentation, generator)
    offsets = offsets_of(counts)
    items = np.asarray(bundle.items)[sources]
    return Histories(bundle.name, bundle.fingerprint, bundle.n_items, offsets, items, users.astype(np.int64), sources)


def _augmented(
    users: Ints, starts: Ints, ends: Ints, augmentation: Augmentation, generator: np.random.Generator
) -> tuple[Ints, Ints]:
    """Flat positions of all augmented histories, one after the other, and the length of each."""
    rows, counts = [], []
    for begin in range(0, len(users), _BLOCK):
        part = slice(begin, begin + _BLOCK)
        windows = Windows(users[part], starts[part], ends[part])
        packed, lengths = augmentation.apply(windows, int(windows.lengths.max()), generator)
        rows.append(packed[np.arange(packed.shape[1]) < lengths[:, None]])
        counts.append(lengths)
    return np.concatenate(rows), np.concatenate(counts)
