"""Mapping of foreign item numbers and titles to the bundle's items."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from deshi.arrays import Ints
from deshi.data.bundle import Bundle
from deshi.types import ITEM, PAD, TITLE, DeshiError

AMBIGUOUS = -2
"""In place of a number: several items have the title."""


@dataclass(frozen=True, eq=False)
class ItemMapping:
    """Foreign item numbers and the bundle's indices.

    Attributes:
        ids: ``(F,)`` int64 foreign numbers, rising.
        indices: ``(F,)`` int64 item indices, each at most once.
        report: counts of what was left out and why, for the log and the manifest.
    """

    ids: Ints
    indices: Ints
    report: dict[str, int | list[str]] = field(default_factory=dict)

    def to_bundle(self, foreign: np.ndarray) -> Ints:
        """Item indices of foreign numbers of any shape, ``PAD`` for those without an item in the bundle."""
        foreign = np.asarray(foreign, dtype=np.int64)
        if not len(self.ids):
            return np.full(foreign.shape, PAD, dtype=np.int64)
        positions = np.minimum(np.searchsorted(self.ids, foreign), len(self.ids) - 1)
        return np.where((self.ids[positions] == foreign) & (foreign >= 0), self.indices[positions], PAD)

    def describe(self) -> str:
        """The report in one line."""
        return ", ".join(f"{name} {count}" for name, count in self.report.items() if isinstance(count, int))


def map_by_index(bundle: Bundle) -> ItemMapping:
    """Foreign numbers that are the bundle's item indices."""
    indices = np.arange(bundle.n_items, dtype=np.int64)
    return ItemMapping(indices, indices, {"items": bundle.n_items, "matched": bundle.n_items})


def map_by_id(foreign: Mapping[int, str], bundle: Bundle) -> ItemMapping:
    """Match foreign numbers by the item ids that they stand for.

    Args:
        foreign: from each foreign number to the item id of the data set (``asin``, MovieLens id, ...).
        bundle: the data.

    Raises:
        DeshiError: if two foreign numbers have one item id, or no id is in the bundle.
    """
    index = dict(zip(bundle.vocabulary[ITEM].to_list(), range(bundle.n_items), strict=True))
    numbers = sorted(foreign)
    items = np.array([index.get(str(foreign[number]), PAD) for number in numbers], dtype=np.int64)
    matched = items != PAD
    if len(np.unique(items[matched])) != matched.sum():
        raise DeshiError(f"{matched.sum()} foreign numbers have item ids of the bundle, expected each id once.")
    return _mapping(np.array(numbers, dtype=np.int64), items, bundle, {"unknown": int((~matched).sum())}, "item ids")


def plain_title(title: str) -> str:
    """A title without quotes and surplus spaces, in lower case: what programs change on the way."""
    return " ".join(title.replace('"', " ").split()).casefold()


def map_by_title(foreign: Mapping[int, str], bundle: Bundle) -> ItemMapping:
    """Match foreign numbers by title. A title that two items have on either side matches none of them.

    Args:
        foreign: from each foreign number to its title.
        bundle: the data, with titles.

    Returns:
        the mapping; its report counts ``unknown`` foreign titles, and the items left out because of ``duplicates`` of
        the bundle (``duplicate_titles`` has examples) or of the foreign side (``foreign_duplicates``).

    Raises:
        DeshiError: if the bundle has no titles, or no title matches.
    """
    by_title = _groups(enumerate(bundle.item_table()[TITLE].to_list()), plain_title)
    numbers: list[int] = []
    indices: list[int] = []
    examples: list[str] = []
    counts = {"unknown": 0, "duplicates": 0, "foreign_duplicates": 0}
    for title, members in _groups(foreign.items(), plain_title).items():
        matches = by_title.get(title, [])
        if len(matches) == len(members) == 1:
            numbers.append(members[0])
            indices.append(matches[0])
            continue
        reason = "unknown" if not matches else "duplicates" if len(matches) > 1 else "foreign_duplicates"
        counts[reason] += len(members)
        if reason != "unknown" and len(examples) < 10:
            examples.append(title)
    order = np.argsort(numbers) if numbers else np.empty(0, dtype=np.int64)
    ids, items = np.array(numbers, dtype=np.int64)[order], np.array(indices, dtype=np.int64)[order]
    mapping = _mapping(ids, items, bundle, counts, "titles")
    mapping.report["duplicate_titles"] = examples
    return mapping


def _groups(pairs: Iterable[tuple[int, str | None]], normalise: Callable[[str], str]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for number, title in pairs:
        if title is not None and (text := normalise(str(title))):
            groups[text].append(int(number))
    return groups


def _mapping(ids: Ints, indices: Ints, bundle: Bundle, counts: Mapping[str, int], kind: str) -> ItemMapping:
    real = indices != PAD
    if not real.any():
        raise DeshiError(
            f"None of the foreign {kind} is in the bundle {bundle.name} ({bundle.n_items} items; {dict(counts)}). "
            "Check that both are the same data set, and how ids and titles are written in each."
        )
    matched = int(real.sum())
    report = {"items": bundle.n_items, "matched": matched, "without": bundle.n_items - matched, **counts}
    return ItemMapping(ids[real], indices[real], dict(report))


class Titles:
    """Foreign numbers by title, for formats that hold titles instead of numbers.

    Args:
        titles: from each number to its title.
        normalise: applied to titles and to what is looked up.

    Attributes:
        unknown: how many lookups found no title.
        ambiguous: how many lookups found a title of several items; they are answered by :data:`AMBIGUOUS`.
    """

    def __init__(self, titles: Mapping[int, str], normalise: Callable[[str], str] = plain_title) -> None:
        self.normalise = normalise
        self._groups = _groups(titles.items(), normalise)
        self.unknown = self.ambiguous = 0

    @property
    def duplicates(self) -> int:
        """How many numbers share their title with another."""
        return sum(len(members) for members in self._groups.values() if len(members) > 1)

    def __contains__(self, title: str) -> bool:
        return self.normalise(title) in self._groups

    def number(self, title: str) -> int:
        """The number of a title, ``PAD`` if no item has it, :data:`AMBIGUOUS` if several do; counted."""
        members = self._groups.get(self.normalise(title), [])
        self.unknown += not members
        self.ambiguous += len(members) > 1
        return members[0] if len(members) == 1 else AMBIGUOUS if members else PAD
