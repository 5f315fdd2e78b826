"""Padded batches of flat histories: training windows, augmentation, buckets of similar length."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from deshi.arrays import Ints, range_rows
from deshi.types import PAD, Batch, DeshiError

WindowMode = Literal["last", "all", "random"]


@dataclass(frozen=True)
class Windows:
    """Training windows: window ``w`` is the events at flat positions ``starts[w] .. ends[w] - 1`` of one user.

    All but its last event are inputs; all but its first are targets.
    """

    users: Ints
    starts: Ints
    ends: Ints

    def __len__(self) -> int:
        return len(self.users)

    @property
    def lengths(self) -> Ints:
        """Number of events of each window, at least 2."""
        return self.ends - self.starts


def make_windows(
    starts: Ints, ends: Ints, max_length: int, mode: WindowMode, generator: np.random.Generator
) -> Windows:
    """Cut each user's training range into windows of at most ``max_length + 1`` events.

    Args:
        starts: ``(U,)`` flat position of each user's first training event.
        ends: ``(U,)`` one past each user's last training event.
        max_length: number of inputs of a window at most.
        mode: ``last``: one window a user, the latest events. ``all``: as many windows as it takes for every event
            but the first to be a target once. ``random``: one window a user, at a random place.
        generator: draws the places of ``random``.

    Returns:
        Windows of 2 events or more; users with fewer have none.
    """
    users = np.flatnonzero(ends - starts >= 2)
    first, last = starts[users], ends[users]
    if mode == "last":
        return Windows(users, np.maximum(first, last - max_length - 1), last)
    if mode == "random":
        room = np.maximum(last - first - max_length - 1, 0)
        begin = first + generator.integers(0, room + 1)
        return Windows(users, begin, np.minimum(begin + max_length + 1, last))
    # A window has at most max_length targets, counted from the user's end, and one event more as the first input.
    counts = -(-(last - first - 1) // max_length)
    number = range_rows(np.zeros_like(counts), counts)
    stop = np.repeat(last, counts) - number * max_length
    return Windows(np.repeat(users, counts), np.maximum(np.repeat(first, counts), stop - max_length - 1), stop)


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training histories; each is off at 0.

    Attributes:
        item_drop: share of a window's events that are left out, in [0, 1).
        crop: probability that a window is cut to a random part of it, a half to the whole long.
        reorder: probability that a random fifth of a window is shuffled.
    """

    item_drop: float = 0.0
    crop: float = 0.0
    reorder: float = 0.0

    def __post_init__(self) -> None:
        for name in ("item_drop", "crop", "reorder"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0 or (name == "item_drop" and value == 1.0):
                raise DeshiError(f"augment.{name} is {value}, expected a number from 0 up to below 1.")

    def span(self, max_length: int) -> int:
        """How many inputs to take so that about ``max_length`` are left after the drop.

        Without it no training history would be as long as those to be continued later, and a student's last
        positions would never be trained.
        """
        return math.ceil(max_length / (1 - self.item_drop))

    def apply(self, windows: Windows, limit: int, generator: np.random.Generator) -> tuple[Ints, Ints]:
        """The events of augmented windows, the latest ``limit`` of each.

        Returns:
            rows ``(B, L)`` of flat event positions, ``PAD`` on the right, and counts ``(B,)``, each at least 2.
        """
        starts, lengths = windows.starts, windows.lengths
        if self.crop > 0:
            starts, lengths = _crop(starts, lengths, self.crop, generator)
        columns = np.arange(lengths.max())
        rows = starts[:, None] + columns
        inside = columns < lengths[:, None]
        if self.reorder > 0:
            rows = _reorder(rows, lengths, self.reorder, generator)
        if self.item_drop > 0:
            # The last two events stay, so that every window keeps an input and its target.
            last_two = columns >= lengths[:, None] - 2
            inside &= (generator.random(rows.shape, dtype=np.float32) >= self.item_drop) | last_two
            # Counted from the end, only the latest `limit` of the events that are left stay.
            inside &= inside[:, ::-1].cumsum(1)[:, ::-1] <= limit
            lengths = inside.sum(1)
        # The events that are left move to the left; both masks list them row by row in the same order.
        packed = np.full((len(rows), int(lengths.max())), PAD, dtype=np.int64)
        packed[columns[: packed.shape[1]] < lengths[:, None]] = rows[inside]
        return packed, lengths


def _crop(starts: Ints, lengths: Ints, probability: float, generator: np.random.Generator) -> tuple[Ints, Ints]:
    """Keep a random stretch of at least half the events (and at least 2) of the chosen windows."""
    chosen = generator.random(len(starts)) < probability
    lengths_left = np.maximum(np.ceil(lengths * generator.uniform(0.5, 1.0, len(starts))).astype(np.int64), 2)
    lengths_left = np.where(chosen, lengths_left, lengths)
    return starts + generator.integers(0, lengths - lengths_left + 1), lengths_left


def _reorder(rows: Ints, lengths: Ints, probability: float, generator: np.random.Generator) -> Ints:
    """Shuffle a random fifth (at least 2 events) of the chosen windows."""
    chosen = generator.random(len(rows)) < probability
    size = np.maximum(np.ceil(lengths * 0.2).astype(np.int64), 2)
    begin = generator.integers(0, lengths - size + 1)
    columns = np.arange(rows.shape[1])
    shuffled = (columns >= begin[:, None]) & (columns < (begin + size)[:, None]) & chosen[:, None]
    # Inside the stretch each event gets a random sort key between the stretch's ends, elsewhere its own position.
    noise = begin[:, None] + generator.random(rows.shape) * size[:, None] * 0.999
    order = np.argsort(np.where(shuffled, noise, columns.astype(np.float64)), axis=1, kind="stable")
    return cast(Ints, np.take_along_axis(rows, order, axis=1))


def gather_batch(items: NDArray[np.int32], rows: Ints, counts: Ints, users: Ints) -> Batch:
    """Inputs and targets of packed windows.

    Args:
        items: the bundle's flat item array.
        rows: ``(B, L + 1)`` flat event positions, ``PAD`` on the right.
        counts: ``(B,)`` number of events in each row, at least 2.
        users: ``(B,)`` user indices.
    """
    values = np.where(rows >= 0, items[rows], PAD)
    # Position t is the input whose target is position t + 1: targets are the events shifted by one.
    inputs, targets = values[:, :-1].copy(), values[:, 1:].copy()
    # A window's last event is only a target. In a shorter row it still stands among the inputs, at position
    # counts - 1, and is blanked there; in the longest rows the shift has cut it off already.
    shorter = np.flatnonzero(counts - 1 < inputs.shape[1])
    inputs[shorter, counts[shorter] - 1] = PAD
    sources = np.where(inputs == PAD, PAD, rows[:, :-1])
    return Batch(
        users=torch.from_numpy(users.copy()),
        items=torch.from_numpy(inputs),
        lengths=torch.from_numpy(counts - 1),
        targets=torch.from_numpy(targets),
        rows=torch.from_numpy(sources),
    )


def bucketed(lengths: Ints, batch_positions: int, max_batch_size: int, generator: np.random.Generator) -> list[Ints]:
    """Cut windows into batches of similar length, shuffled.

    Windows are shuffled, sorted by length inside pools of about 50 batches and cut so that a batch, padding
    included, holds at most ``batch_positions`` positions (one window at least) and ``max_batch_size`` windows.

    Returns:
        window numbers of each batch, in the order of training; every window is in exactly one batch.
    """
    order = generator.permutation(len(lengths))
    average = max(1.0, float(lengths.mean()))
    pool = max(1, int(50 * min(batch_positions / average, max_batch_size)))
    batches: list[Ints] = []
    for begin in range(0, len(order), pool):
        members = order[begin : begin + pool]
        members = members[np.argsort(-lengths[members], kind="stable")]
        while len(members):
            size = min(max_batch_size, max(1, batch_positions // int(lengths[members[0]])))
            batches.append(members[:size])
            members = members[size:]
    return [batches[number] for number in generator.permutation(len(batches))]


class TrainingBatches:
    """One epoch's batches, the same for the same ``(seed, epoch)``.

    Args:
        items: the bundle's flat item array.
        starts: ``(U,)`` flat position of each user's first training event.
        ends: ``(U,)`` one past each user's last training event.
        max_length: number of inputs of a window at most.
        batch_positions: positions of a batch, padding included: at most, or with ``item_drop`` about as many.
        max_batch_size: windows of a batch at most.
        mode: see :func:`make_windows`.
        augmentation: changes of the histories.
        seed: of the run.
        epoch: 0-based.
    """

    def __init__(
        self,
        items: NDArray[np.int32],
        starts: Ints,
        ends: Ints,
        max_length: int,
        batch_positions: int,
        max_batch_size: int,
        mode: WindowMode,
        augmentation: Augmentation,
        seed: int,
        epoch: int,
    ) -> None:
        self._items = items
        self._augmentation = augmentation
        self._limit = max_length + 1
        self._generator = np.random.Generator(np.random.SFC64([seed, epoch, 1]))
        self.windows = make_windows(starts, ends, augmentation.span(max_length), mode, self._generator)
        if not len(self.windows):
            raise DeshiError(
                "No user has two training events, so there is nothing to train on. "
                "Lower the filters of the data set or move the split's boundaries."
            )
        expected = np.ceil((self.windows.lengths - 1) * (1 - augmentation.item_drop)).astype(np.int64)
        self._batches = bucketed(expected, batch_positions, max_batch_size, self._generator)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        for members in self._batches:
            part = Windows(self.windows.users[members], self.windows.starts[members], self.windows.ends[members])
            rows, counts = self._augmentation.apply(part, self._limit, self._generator)
            yield gather_batch(self._items, rows, counts, part.users)


def history_batches(
    items: NDArray[np.int32], users: Ints, starts: Ints, ends: Ints, max_length: int, batch_size: int,
    part: tuple[int, int] = (0, 1),
) -> Iterator[tuple[Ints, Batch]]:  # fmt: skip
    """Histories to be continued, in batches of similar length, each history exactly once.

    Args:
        items: the bundle's flat item array.
        users: ``(C,)`` user indices.
        starts: ``(C,)`` flat position of each history's first event.
        ends: ``(C,)`` one past each history's last event.
        max_length: longer histories lose their beginning.
        batch_size: histories of a batch.
        part: the number of this part and the number of parts that the histories are dealt out to, by length.

    Yields:
        the examples' numbers ``(B,)`` and their batch, whose targets are all ``PAD``.
    """
    begins = np.maximum(starts, ends - max_length)
    lengths = ends - begins
    order = np.argsort(-lengths, kind="stable")[part[0] :: part[1]]
    for first in range(0, len(order), batch_size):
        examples = order[first : first + batch_size]
        columns = np.arange(int(lengths[examples].max()))
        inside = columns < lengths[examples][:, None]
        rows = np.where(inside, begins[examples][:, None] + columns, PAD)
        yield (
            examples,
            Batch(
                users=torch.from_numpy(users[examples]),
                items=torch.from_numpy(np.where(inside, items[rows], PAD).astype(np.int64)),
                lengths=torch.from_numpy(lengths[examples]),
                targets=torch.full(rows.shape, PAD, dtype=torch.int64),
                rows=torch.from_numpy(rows),
            ),
        )
