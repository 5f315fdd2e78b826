"""Indices of users and items for their ids, and the order of events."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass

import numpy as np
import polars as pl

from deshi.arrays import BLOCK, Ints, blocks, count_codes, offsets_of, range_rows, row_blocks, take
from deshi.tables import code_texts, new_codes
from deshi.types import ITEM, MAX_ID, PAD, TIMESTAMP, USER, DeshiError

log = logging.getLogger(__name__)

USER_INDEX = "user"
ITEM_INDEX = "item"
TIE_RULE = "events of one user with equal timestamps keep the order of the original file"
ITEM_ORDER = "items are numbered by the blake2b hash of their id, users by their first event in the original file"


@dataclass(frozen=True)
class Events:
    """Interactions as integers, grouped by user and oldest first inside each user.

    Attributes:
        user_ids: ``(n_users,)`` String, the id of every user index.
        item_ids: ``(n_items,)`` String, the id of every item index.
        frame: ``user`` Int32, ``item`` Int32, ``timestamp`` Int64, and ``rating`` Float32 if the source has ratings.
    """

    user_ids: pl.Series
    item_ids: pl.Series
    frame: pl.DataFrame

    def counts(self) -> tuple[int, int, int]:
        """Number of interactions, of users with any, and of items with any."""
        sizes = {USER_INDEX: len(self.user_ids), ITEM_INDEX: len(self.item_ids)}
        users, items = (_n_used(self.frame[name].to_numpy(), size) for name, size in sizes.items())
        return self.frame.height, users, items


def encode_events(interactions: pl.DataFrame) -> Events:
    """Number the ids in order of first appearance and sort by user and time, ties in file order.

    Args:
        interactions: ``user_id``, ``item_id``, ``timestamp``, perhaps ``rating``, and columns for filters, in the order
            of the file. Its columns are taken out one by one, so that the frame is empty in the end: 100 million events
            twice in memory would be gigabytes.

    Raises:
        DeshiError: if an id is null, empty or collides with another one, or a timestamp is null.
    """
    _check_timestamps(interactions)
    names, columns = {}, {}
    for column, index in ((USER, USER_INDEX), (ITEM, ITEM_INDEX)):
        names[column], columns[index] = number_ids(interactions.drop_in_place(column))
        _check_ids(column, names[column])
    for column in sorted(interactions.columns, key=lambda name: name != TIMESTAMP):  # then rating and filters
        columns[column] = interactions.drop_in_place(column)
    _sort_by_time(columns)
    return Events(names[USER], names[ITEM], pl.DataFrame([series.alias(name) for name, series in columns.items()]))


def number_ids(ids: pl.Series) -> tuple[pl.Series, pl.Series]:
    """The different ids in order of first appearance, and for every row the Int32 index of its id among them.

    Args:
        ids: String or Categorical; a null is an id, too.
    """
    if not isinstance(ids.dtype, pl.Categorical):
        ids = ids.cast(new_codes())
    texts, codes = code_texts(ids), ids.to_physical()
    if codes.has_nulls():  # under the number after the last code
        codes = codes.cast(pl.UInt32).fill_null(len(texts))
        texts = texts.extend_constant(None, 1)
    rows = codes.to_numpy()
    # Of the rows that are written to the place of one code, the last one stays: written backwards, that is the first.
    first = np.full(len(texts), -1, dtype=np.int64)
    for block in reversed(list(blocks(len(rows)))):
        first[rows[block][::-1]] = np.arange(block.start, block.stop)[::-1]
    used = np.flatnonzero(first >= 0)
    used = used[np.argsort(first[used])]
    index = np.empty(len(texts), dtype=np.int32)
    index[used] = np.arange(len(used), dtype=np.int32)
    return texts.gather(used), pl.Series(take(index, rows))


def indices_of(ids: pl.Series, vocabulary: pl.Series, kind: str, label: object) -> Ints:
    """The index of every id in the vocabulary, ``PAD`` for unknown ones, which are counted in the log.

    Args:
        ids: as :func:`deshi.tables.ids` has them, repeats allowed.
        vocabulary: the data set's ids in the order of their indices.
        kind: ``item`` or ``user``.
        label: the file or setting that holds the ids, for messages.

    Raises:
        DeshiError: if there are ids and not one is known.
    """
    table = pl.DataFrame({"id": vocabulary, "index": np.arange(len(vocabulary), dtype=np.int64)})
    indices = pl.DataFrame({"id": ids}).join(table, on="id", how="left", maintain_order="left")["index"]
    unknown = ids.filter(indices.is_null())
    if len(unknown) == len(ids) > 0:
        raise DeshiError(
            f"None of the {ids.n_unique()} {kind} ids in {label} is known, for example {ids[0]!r}; the data set has "
            f"ids such as {vocabulary[0]!r}. Write the data set's {kind}_id, compared as text, not row numbers."
        )
    if len(unknown):
        log.warning(
            "%s: %d of %d %s ids are not in the data set (first: %r); their rows are left out",
            label, unknown.n_unique(), ids.n_unique(), kind, unknown[0],
        )  # fmt: skip
    return indices.fill_null(PAD).to_numpy()


def compact(events: Events) -> Events:
    """Drop the ids without events and renumber: users keep their order, items are ordered by a hash of their id.

    The hash keeps anything that an id tells (its age, its place in the catalogue, the order inside one day that some
    public files have) out of the index.
    """
    users, user_codes = _renumber(events.frame[USER_INDEX], events.user_ids, by_hash=False)
    items, item_codes = _renumber(events.frame[ITEM_INDEX], events.item_ids, by_hash=True)
    frame = events.frame.with_columns(user_codes.alias(USER_INDEX), item_codes.alias(ITEM_INDEX))
    return Events(users, items, frame.rechunk())


def id_hash(item_id: str) -> bytes:
    """The 8-byte blake2b hash that orders items: the same on every machine and in every version."""
    return hashlib.blake2b(item_id.encode(), digest_size=8).digest()


def _renumber(codes: pl.Series, ids: pl.Series, by_hash: bool) -> tuple[pl.Series, pl.Series]:
    old = codes.to_numpy()
    used = np.flatnonzero(count_codes(old, ids.len()))  # the old codes with events, in the new order
    if by_hash:
        names = ids.gather(used).to_list()
        used = used[sorted(range(len(names)), key=lambda number: (id_hash(names[number]), names[number]))]
    # Inverse permutation: the new code at each old one; old codes without events are never read.
    new = np.empty(ids.len(), dtype=np.int32)
    new[used] = np.arange(len(used), dtype=np.int32)
    return ids.gather(used), pl.Series(take(new, old))


def _n_used(codes: np.ndarray, size: int) -> int:
    """Number of different codes among ``0 .. size - 1``."""
    used = np.zeros(size, dtype=bool)
    for block in blocks(len(codes)):
        used[codes[block]] = True
    return int(used.sum())


def _sort_by_time(columns: dict[str, pl.Series]) -> None:
    """Sort columns by user, then time, stably and one by one.

    Long columns are first divided into ranges of users with some two million events. Each is then sorted and gathered
    within the processor's cache, which random rows of the whole columns don't fit into.
    """
    users = columns[USER_INDEX].to_numpy()
    if not len(users):
        return
    offsets = offsets_of(count_codes(users, int(users.max()) + 1))
    ranges = list(row_blocks(offsets, max(BLOCK, len(users) // 100)))
    if len(ranges) > 1:
        # The number of each row's range, in one byte.
        number = np.repeat(np.arange(len(ranges), dtype=np.uint8), [part.stop - part.start for part in ranges])
        starts = offsets[[part.start for part in ranges]]
        order = _by_range(take(number, users), starts)
        del users
        _gather(columns, order)
    order = np.empty(len(columns[USER_INDEX]), dtype=np.uint32)
    for part in ranges:
        rows = slice(int(offsets[part.start]), int(offsets[part.stop]))
        codes, times = (columns[name][rows].to_numpy() for name in (USER_INDEX, TIMESTAMP))
        order[rows] = rows.start + _order_in_range(codes - part.start, times)
    _gather(columns, order)


def _gather(columns: dict[str, pl.Series], order: np.ndarray) -> None:
    rows = pl.Series(order)
    for name in columns:
        columns[name] = columns[name].gather(rows)


def _by_range(numbers: np.ndarray, starts: Ints) -> np.ndarray:
    """``(n,)`` uint32, the rows of range 0 in their order, then those of range 1, and so on.

    Args:
        numbers: ``(n,)`` uint8, the range of each row.
        starts: ``(R,)`` where each range's rows begin in the result.
    """
    order = np.empty(len(numbers), dtype=np.uint32)
    ends = starts.copy()  # of the rows so far
    for block in blocks(len(numbers)):
        counts = np.bincount(numbers[block], minlength=len(starts))
        rows = np.argsort(numbers[block], kind="stable")
        order[range_rows(ends, ends + counts)] = block.start + rows
        ends += counts
    return order


def _order_in_range(users: np.ndarray, timestamps: np.ndarray) -> np.ndarray:
    """The stable order by user, then time; packed into one key where they fit, which is three times faster."""
    first, span = int(timestamps.min()), int(timestamps.max()) - int(timestamps.min()) + 1
    # key = user * span + (time - first): a later user outweighs any time; a key above 63 bits would overflow.
    if (int(users.max()) + 1) * span >= 2**63:
        return np.lexsort((timestamps, users))
    return np.argsort(users.astype(np.int64) * span + (timestamps - first), kind="stable")


def _check_timestamps(interactions: pl.DataFrame) -> None:
    missing = interactions[TIMESTAMP].null_count()
    if missing:
        raise DeshiError(
            f"{missing} of {interactions.height} interactions have no timestamp, expected one for each: histories are "
            f"ordered by it. Map a time or position column in data.source, or drop those rows."
        )


def _check_ids(column: str, ids: pl.Series) -> None:
    if ids.null_count():
        raise DeshiError(f"Some interactions have a null {column}, expected an id in each. Drop or repair those rows.")
    bare = ids.str.strip_chars()
    if (bare == "").any():
        raise DeshiError(
            f"Some interactions have an empty {column}, expected an id in each. Drop or repair those rows."
        )
    longest = ids.gather(ids.str.len_chars().arg_max() or 0)[0]
    if len(longest) > MAX_ID:
        raise DeshiError(
            f"The {column} {longest[:60]!r}... has {len(longest):,} characters, expected at most {MAX_ID:,}, which is "
            f"what requests over HTTP may hold. Check the column, or name these ids by a hash of them."
        )
    if bare.n_unique() < ids.len():
        twice = ids.filter(bare == bare.filter(bare.is_duplicated())[0]).to_list()
        raise DeshiError(
            f"The {column} values {twice[0]!r} and {twice[1]!r} differ only in surrounding spaces, expected ids that "
            f"can be told apart. Strip the spaces in the source file."
        )
