"""Checks of a bundle: files, indices, order and units of times, owners of events, names of items."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from deshi.arrays import Array
from deshi.artifacts import file_sha256, read_parquet
from deshi.auditing._finding import Finding, count, finding, location
from deshi.auditing._units import mixed_units
from deshi.data.bundle import REMEDY, Bundle
from deshi.data.vocabulary import ITEM_INDEX, USER_INDEX
from deshi.types import ITEM, PAD, TIMESTAMP, USER

AGAIN = "Run deshi prepare with force=true, and train and evaluate again."


@dataclass(frozen=True, eq=False)
class Flat:
    """A bundle's events as flat arrays of one length."""

    bundle: Bundle

    @cached_property
    def users(self) -> Array:
        """``(E,)`` the user whose range holds the event."""
        return np.repeat(np.arange(self.bundle.n_users), np.diff(self.bundle.offsets))

    @cached_property
    def items(self) -> Array:
        """``(E,)`` item indices."""
        return np.asarray(self.bundle.items)

    @cached_property
    def times(self) -> Array:
        """``(E,)`` timestamps."""
        return np.asarray(self.bundle.timestamps)

    @cached_property
    def table(self) -> pl.DataFrame:
        """The rows of ``interactions.parquet``."""
        columns = (USER, ITEM, USER_INDEX, ITEM_INDEX, TIMESTAMP)
        return read_parquet(self.bundle.path / "interactions.parquet", columns, REMEDY)

    def locations(self, rows: Array, **further: Array) -> Iterable[str]:
        """The events at flat positions ``rows``, as a finding names them, with further values of each."""
        for number, row in enumerate(rows.tolist()):
            values = {name: column[number] for name, column in further.items()}
            yield location(user=self.user_id(row), position=self.position(row), item=self.item_id(row), **values)

    def user_id(self, row: int) -> str:
        """The id of the user whose range holds the event."""
        return str(self.bundle.users[USER][int(self.users[row])])

    def item_id(self, row: int) -> str:
        """The id of the event's item, or its index if it has none."""
        index = int(self.items[row])
        inside = 0 <= index < self.bundle.n_items
        return str(self.bundle.vocabulary[ITEM][index]) if inside else f"index {index}"

    def position(self, row: int) -> int:
        """The event's position in its history, from 0."""
        return int(row - self.bundle.offsets[self.users[row]])


def audit_bundle(bundle: Bundle) -> list[Finding]:
    """Everything about a bundle that needs no split and no model.

    Args:
        bundle: as opened by :meth:`Bundle.load`; it is read whole.
    """
    flat = Flat(bundle)
    checks = (_changed, _indices, _order, _units, _owners, _agrees_with_table, _names, _item_table)
    return [problem for check in checks for problem in check(flat)]


def _changed(flat: Flat) -> list[Finding]:
    files = flat.bundle.manifest["files"]
    changed = [name for name, digest in files.items() if file_sha256(flat.bundle.path / name) != digest]
    if not changed:
        return []
    message = f"{count(len(changed), len(files), 'files')} do not have the sha256 of the manifest."
    effect = f"Figures from before and after the change of {len(changed)} files do not compare."
    return [finding("bundle-changed", message, changed, effect, AGAIN)]


def _indices(flat: Flat) -> list[Finding]:
    padding = np.flatnonzero(flat.items == PAD)
    outside = np.flatnonzero((flat.items < PAD) | (flat.items >= flat.bundle.n_items))
    findings = []
    for name, rows, reason in (
        ("item-collides-with-padding", padding, f"hold {PAD}, the number of padding"),
        ("item-out-of-range", outside, f"hold an index outside of 0 .. {flat.bundle.n_items - 1}"),
    ):
        if len(rows):
            share = count(len(rows), len(flat.items), "events")
            users = len(np.unique(flat.users[rows]))
            effect = f"{share} of {users:,} users are ignored or read as other items in training and in ranking."
            fix = "Number items from 0 without gaps (deshi prepare does) and keep padding out of that range. " + AGAIN
            findings.append(finding(name, f"{share} {reason}.", flat.locations(rows), effect, fix))
    return findings


def _order(flat: Flat) -> list[Finding]:
    same = flat.users[1:] == flat.users[:-1]
    back = np.flatnonzero(same & (np.diff(flat.times) < 0)) + 1
    if not len(back):
        return []
    bundle, users = flat.bundle, np.unique(flat.users[back])
    newest = np.maximum.reduceat(flat.times, bundle.offsets[:-1])
    wrong = int((flat.times[bundle.offsets[1:] - 1] < newest).sum())
    message = (
        f"{count(len(users), bundle.n_users, 'users')} have histories that go back in time, at {len(back):,} events."
    )
    effect = (
        f"{count(wrong, bundle.n_users, 'last events')} are not the user's newest: as test targets they lie before "
    )
    effect += "events that are trained on."
    fix = "Sort each user's events by time before they are numbered. " + AGAIN
    where = flat.locations(back, time=flat.times[back], after=flat.times[back - 1])
    return [finding("history-unsorted", message, where, effect, fix)]


def _units(flat: Flat) -> list[Finding]:
    if flat.bundle.time_unit != "ms":
        return []
    mixed = mixed_units(flat.times)
    if mixed is None:
        return []
    owners = np.unique(flat.users[mixed.rows])
    back = (flat.users[1:] == flat.users[:-1]) & (np.diff(mixed.corrected) < 0)
    disordered = len(np.unique(flat.users[1:][back]))
    message = (
        f"{count(len(mixed.rows), len(flat.times), 'timestamps')} of {len(owners):,} users are in {mixed.unit}, the "
    )
    message += f"others in {mixed.main}."
    effect = f"A split by time puts {len(mixed.rows):,} events on the wrong side of its boundaries; "
    effect += f"{count(disordered, flat.bundle.n_users, 'histories')} are in a wrong order."
    fix = "Convert each source to milliseconds before they are joined. " + AGAIN
    where = flat.locations(mixed.rows, time=flat.times[mixed.rows])
    return [finding("timestamps-mixed-units", message, where, effect, fix)]


def _owners(flat: Flat) -> list[Finding]:
    if flat.table.height != len(flat.items):
        return []
    rows = np.flatnonzero(flat.table[USER_INDEX].to_numpy() != flat.users)
    if not len(rows):
        return []
    users = len(np.unique(flat.users[rows]))
    message = f"{count(len(rows), len(flat.items), 'events')} stand in the history of another user than theirs."
    effect = f"{count(users, flat.bundle.n_users, 'users')} are trained and tested on what others did."
    fix = "The offsets do not belong to the items: count each user's events after sorting. " + AGAIN
    true = flat.table[USER].gather(rows[:100]).to_numpy()
    return [finding("history-of-another-user", message, flat.locations(rows[:100], belongs_to=true), effect, fix)]


def _agrees_with_table(flat: Flat) -> list[Finding]:
    """Sequences and table must hold the same events in the same order."""
    if flat.table.height != len(flat.items):
        message = f"interactions.parquet has {flat.table.height:,} rows, the histories {len(flat.items):,} events."
        effect = f"{abs(flat.table.height - len(flat.items)):,} events are in one of them only."
        return [finding("bundle-changed", message, ["interactions.parquet"], effect, AGAIN)]
    differ = (flat.table[ITEM_INDEX].to_numpy() != flat.items) | (flat.table[TIMESTAMP].to_numpy() != flat.times)
    rows = np.flatnonzero(differ)
    if not len(rows) or (flat.table[USER_INDEX].to_numpy() != flat.users).any() or _renamed(flat) is not None:
        return []
    bundle, last = flat.bundle, flat.bundle.offsets[1:] - 1
    users = len(np.unique(flat.users[rows]))
    message = f"{count(len(rows), len(flat.items), 'events')} of {users:,} users differ from interactions.parquet: "
    message += "the histories hold other items, or the same in another order."
    effect = f"{count(int(differ[last].sum()), bundle.n_users, 'last events')} are not those of the table: test "
    effect += "targets and everything learned from the order are wrong for them."
    true = flat.table[ITEM].gather(rows[:100]).to_numpy()
    where = flat.locations(rows[:100], table_says=true)
    return [
        finding("history-shuffled", message, where, effect, "Write histories and table from one sorted frame. " + AGAIN)
    ]


def _renamed(flat: Flat) -> tuple[Array, int | None] | None:
    """Rows whose index names another item than the table, and the shift that explains them, if it is a renaming."""
    if flat.table.height != len(flat.items) or flat.items.min() < 0 or flat.items.max() >= flat.bundle.n_items:
        return None
    names = flat.bundle.vocabulary[ITEM]
    listed, named = flat.table[ITEM], names.gather(flat.items)
    rows = np.flatnonzero((listed != named).to_numpy())
    if not len(rows):
        return None
    for shift in (-1, 1):
        if (listed == names.gather((flat.items + shift) % flat.bundle.n_items)).to_numpy().mean() > 0.99:
            return rows, shift
    pairs = pl.DataFrame({"listed": listed, "named": named}).unique()
    renaming = pairs["listed"].n_unique() == pairs["named"].n_unique() == pairs.height
    return (rows, None) if renaming else None


def _names(flat: Flat) -> list[Finding]:
    renamed = _renamed(flat)
    if renamed is None:
        return []
    rows, shift = renamed
    items = len(np.unique(flat.items[rows]))
    share = f"{count(items, flat.bundle.n_items, 'items')} are called by another item's id"
    if shift is None:
        name, message = "vocabulary-permuted", f"{share}: vocabulary.parquet is in another order than the histories."
    else:
        name, message = "vocabulary-shifted", f"{share}: the index is off by {shift:+d} against vocabulary.parquet."
    effect = f"Figures on indices stay as they are, but {count(len(rows), len(flat.items), 'events')} and every "
    effect += "recommendation carry a wrong id, title and text; text embeddings belong to other items."
    true = flat.table[ITEM].gather(rows[:100]).to_numpy()
    fix = "Number items once and write indices and vocabulary from that one table (padding is no row of it). " + AGAIN
    return [finding(name, message, flat.locations(rows[:100], table_says=true), effect, fix)]


def _item_table(flat: Flat) -> list[Finding]:
    table, names = flat.bundle.item_table(), flat.bundle.vocabulary
    if table.height == names.height and (table[ITEM] == names[ITEM]).all():
        return []
    if table.height != names.height:
        message = f"items.parquet has {table.height:,} rows, the vocabulary {names.height:,} items."
        rows: Array = np.arange(min(table.height, names.height), max(table.height, names.height))
        wrong = len(rows)
    else:
        rows = np.flatnonzero((table[ITEM] != names[ITEM]).to_numpy())
        wrong = len(rows)
        message = f"{count(wrong, names.height, 'rows')} of items.parquet are of other items than the vocabulary's."
    where = (location(file="items.parquet", row=row) for row in rows.tolist())
    effect = f"{wrong:,} items get the title and text of another, and so does every text embedding made from them."
    return [finding("item-table-misaligned", message, where, effect, "Join titles by item id, not by row. " + AGAIN)]
