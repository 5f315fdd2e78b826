"""Splits of every history into training, validation and test part."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, Literal, get_args

import numpy as np

from deshi.arrays import offsets_of, range_rows, row_blocks
from deshi.data.bundle import Bundle
from deshi.types import DeshiError

Targets = Literal["next", "all"]
TARGETS = get_args(Targets)
PARTS = ("validation", "test")
TRAIN_TARGETS = ("train", "without_last", "including_validation")


class LeakWarning(UserWarning):
    """Training sees what it will be selected on."""


@dataclass(frozen=True)
class Examples:
    """What an evaluation asks: given a history, which items come next?

    Attributes:
        users: ``(C,)`` int64, user indices.
        starts: ``(C,)`` int64, flat position of the history's first event.
        ends: ``(C,)`` int64, one past its last; the history is everything before the first target and never empty.
        target_offsets: ``(C + 1,)`` int64; where each example begins in ``target_rows`` (the last: where it ends).
        target_rows: ``(T,)`` int64, flat positions of the targets, each item once in an example.
    """

    users: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    target_offsets: np.ndarray
    target_rows: np.ndarray

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.users)

    @property
    def owners(self) -> np.ndarray:
        """``(T,)`` int64, the example that each target belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.target_offsets))

    def seen_targets(self, items: np.ndarray) -> np.ndarray:
        """``(T,)`` bool, the targets whose item is in their example's history; ``items`` are the bundle's."""
        seen = np.zeros(len(self.target_rows), dtype=bool)
        width = int(items.max()) + 1 if len(seen) else 1
        for part in row_blocks(offsets_of(self.ends - self.starts)):
            begin, end = self.target_offsets[[part.start, part.stop]]
            if begin == end:
                continue
            # One number for each pair of an example and an item: each history's pairs are looked up among the targets'.
            examples = np.arange(part.stop - part.start) * width
            counts = np.diff(self.target_offsets[part.start : part.stop + 1])
            targets = np.repeat(examples, counts) + items[self.target_rows[begin:end]]
            order = np.argsort(targets, kind="stable")
            starts, ends = self.starts[part], self.ends[part]
            history = np.repeat(examples, ends - starts) + items[range_rows(starts, ends)]
            at = np.searchsorted(targets, history, sorter=order).clip(max=len(order) - 1)
            seen[begin + order[at[targets[order[at]] == history]]] = True
        return seen

    def of_users(self, chosen: np.ndarray) -> Examples:
        """The examples of the users for which ``chosen`` ``(n_users,)`` bool is true."""
        return self.only(chosen[self.users])

    def drawn(self, size: int | None, *seed: int) -> np.ndarray:
        """``(C,)`` bool, ``size`` of the examples (None or too many: all); smaller draws are part of larger."""
        chosen = np.zeros(len(self), dtype=bool)
        chosen[np.random.Generator(np.random.SFC64(seed)).permutation(len(self))[:size]] = True
        return chosen

    def sample(self, size: int | None, *seed: int) -> Examples:
        """The examples of :meth:`drawn`."""
        return self if size is None else self.only(self.drawn(size, *seed))

    def only(self, chosen: np.ndarray) -> Examples:
        """The examples for which ``chosen`` ``(C,)`` bool is true."""
        counts = np.diff(self.target_offsets)
        offsets = offsets_of(counts[chosen])
        rows = self.target_rows[np.repeat(chosen, counts)]
        return Examples(self.users[chosen], self.starts[chosen], self.ends[chosen], offsets, rows)


@dataclass(frozen=True)
class Split:
    """Per-user boundaries as flat positions in the bundle's arrays.

    User ``u`` trains on ``[offsets[u], train_end[u])``, validates on ``[train_end[u], valid_end[u])`` and tests on
    ``[valid_end[u], offsets[u + 1])``.

    Attributes:
        train_end: ``(n_users,)`` int64.
        valid_end: ``(n_users,)`` int64.
        targets: ``next`` (one example a user: the part's first event) or ``all`` (the part's distinct items).
        name: of the rule.
        description: JSON-able: the rule, its parameters and what came of it.
    """

    train_end: np.ndarray
    valid_end: np.ndarray
    targets: str
    name: str
    description: dict[str, Any]

    def train_ranges(self, bundle: Bundle, train_targets: str = "train") -> tuple[np.ndarray, np.ndarray]:
        """Flat ``(starts, ends)`` of what is trained on; from the second event on, each is a target.

        Args:
            bundle: the bundle that the split was made from.
            train_targets: ``train``; or, to reproduce programs that do so, ``including_validation``, which trains on
                the validation targets (a leak that makes the validation figures worthless; it warns), or
                ``without_last``, whose range stops one target short of the training part's end.

        Raises:
            DeshiError: for any other value.
        """
        self._check(bundle)
        starts = bundle.offsets[:-1]
        if train_targets == "train":
            return starts, self.train_end
        if train_targets == "without_last":
            return starts, np.maximum(starts, self.train_end - 1)
        if train_targets != "including_validation":
            raise DeshiError(f"train_targets is {train_targets!r}, expected one of {', '.join(TRAIN_TARGETS)}.")
        warnings.warn(
            "LEAK: train_targets=including_validation trains on the validation targets. Validation figures mean "
            "nothing and model selection is broken. Use train_targets=train; refit=true learns from the newest events.",
            LeakWarning,
            stacklevel=2,
        )
        return starts, self.valid_end

    def refitted(self) -> Split:
        """The same division after a refit: the validation part has become a part of the training part.

        The description stays that of the split by which was selected.
        """
        return replace(self, train_end=self.valid_end)

    @property
    def next_part(self) -> str:
        """The part that follows the training part: ``validation``, after a refit ``test``."""
        return PARTS[0] if bool((self.train_end < self.valid_end).any()) else PARTS[1]

    def refit_ranges(self, bundle: Bundle) -> tuple[np.ndarray, np.ndarray]:
        """Flat ``(starts, ends)`` of training and validation together, for the refit after the selection is done."""
        self._check(bundle)
        return bundle.offsets[:-1], self.valid_end

    def examples(self, bundle: Bundle, part: str) -> Examples:
        """The examples of one part; users without an event in it, or without a history before it, have none.

        Args:
            bundle: the bundle that the split was made from.
            part: ``validation`` or ``test``.
        """
        self._check(bundle)
        begins, stops = self._bounds(bundle, part)
        users = np.flatnonzero((stops > begins) & (begins > bundle.offsets[:-1]))
        starts, ends = bundle.offsets[:-1][users], begins[users]
        if self.targets == "next":
            return Examples(users, starts, ends, np.arange(len(users) + 1), ends.copy())
        rows, owner = _distinct(bundle, ends, stops[users])
        counts = np.bincount(owner, minlength=len(users))
        return Examples(users, starts, ends, offsets_of(counts), rows)

    def _bounds(self, bundle: Bundle, part: str) -> tuple[np.ndarray, np.ndarray]:
        if part == "validation":
            return self.train_end, self.valid_end
        if part == "test":
            return self.valid_end, bundle.offsets[1:]
        raise DeshiError(f"part is {part!r}, expected 'validation' or 'test'.")

    def _check(self, bundle: Bundle) -> None:
        if self.train_end.shape != (bundle.n_users,):
            raise DeshiError(
                f"The split has {len(self.train_end)} users, the bundle {bundle.name} has {bundle.n_users}. "
                f"Make the split from the same bundle."
            )


@dataclass(frozen=True)
class LeaveOneOut:
    """Test on each user's last event, validate on the one before, train on the rest.

    Users with fewer than three events are trained on whole and have no examples.
    """

    def __call__(self, bundle: Bundle) -> Split:
        """Apply the rule to a bundle."""
        held = np.where(np.diff(bundle.offsets) >= 3, 1, 0)
        ends = bundle.offsets[1:]
        return _split(bundle, ends - 2 * held, ends - held, "next", "leave_one_out", {})


@dataclass(frozen=True)
class Temporal:
    """Split at two moments for everyone: train before the first, validate up to the second, test from it on.

    Give both moments (ISO date, UTC unless it says otherwise, or milliseconds) or both shares of the events (moments
    win); events that share a boundary's timestamp go to the later part together.
    """

    validation_start: str | int | None = None
    test_start: str | int | None = None
    validation_share: float | None = None
    test_share: float | None = None
    targets: Targets = "next"

    def __post_init__(self) -> None:
        moments = (self.validation_start is not None, self.test_start is not None)
        shares = (self.validation_share is not None, self.test_share is not None)
        if moments != (True, True) and not (moments == (False, False) and shares == (True, True)):
            raise DeshiError(
                "The temporal split needs either validation_start and test_start, or validation_share and test_share; "
                f"got {self}."
            )
        if moments == (False, False) and self.validation_share is not None and self.test_share is not None:
            _check_shares(self.validation_share, self.test_share)
        _check_targets(self.targets)

    def __call__(self, bundle: Bundle) -> Split:
        """Apply the rule to a bundle.

        Raises:
            DeshiError: if the bundle has positions instead of times, or the moments leave a part empty.
        """
        if bundle.time_unit != "ms":
            raise DeshiError(
                f"The temporal split needs timestamps, but {bundle.name} has only positions inside each history "
                f"(time_unit {bundle.time_unit!r}). Use split=leave_one_out or split=ratio."
            )
        first, second = self._moments(bundle.timestamps)
        train_end, valid_end = (_before(bundle, moment) for moment in (first, second))
        details = {"validation_start_ms": first, "test_start_ms": second}
        split = _split(bundle, train_end, valid_end, self.targets, "temporal", details)
        for part in ("train", *PARTS):
            if split.description["events"][part] == 0:
                raise DeshiError(
                    f"The temporal split leaves no {part} events: moments {_iso(first)} and {_iso(second)}, data from "
                    f"{_iso(int(bundle.timestamps.min()))} to {_iso(int(bundle.timestamps.max()))}. Move the moments."
                )
        return split

    def _moments(self, timestamps: np.ndarray) -> tuple[int, int]:
        if self.validation_start is None and self.validation_share is not None and self.test_share is not None:
            ordered, size = np.sort(timestamps), len(timestamps)
            shares = (self.validation_share + self.test_share, self.test_share)
            first, second = (int(ordered[min(round(size * (1 - share)), size - 1)]) for share in shares)
        else:
            first, second = _milliseconds(self.validation_start), _milliseconds(self.test_start)
        if first >= second:
            raise DeshiError(
                f"The validation part starts at {_iso(first)}, the test part at {_iso(second)}: expected the first "
                f"before the second. Give larger shares or other moments."
            )
        return first, second


@dataclass(frozen=True)
class Ratio:
    """Test on the last share of each user's events, validate on the share before, train on the rest.

    Shares are rounded down, to no less than one event; users with fewer than three events are trained on whole.
    """

    validation: float = 0.1
    test: float = 0.1
    targets: Targets = "next"

    def __post_init__(self) -> None:
        _check_shares(self.validation, self.test)
        _check_targets(self.targets)

    def __call__(self, bundle: Bundle) -> Split:
        """Apply the rule to a bundle."""
        lengths = np.diff(bundle.offsets)
        enough = lengths >= 3
        test = np.clip(_share(lengths, self.test), 1, np.maximum(lengths - 2, 1))
        validation = np.clip(_share(lengths, self.validation), 1, np.maximum(lengths - 1 - test, 1))
        ends = bundle.offsets[1:]
        valid_end = ends - np.where(enough, test, 0)
        train_end = valid_end - np.where(enough, validation, 0)
        details = {"validation": self.validation, "test": self.test}
        return _split(bundle, train_end, valid_end, self.targets, "ratio", details)


def _split(
    bundle: Bundle, train_end: np.ndarray, valid_end: np.ndarray, targets: str, name: str, details: dict[str, Any]
) -> Split:
    offsets = bundle.offsets
    begins = {"validation": (train_end, valid_end), "test": (valid_end, offsets[1:])}
    description: dict[str, Any] = {"name": name, "targets": targets, **details}
    description["events"] = {"train": int((train_end - offsets[:-1]).sum())}
    description["examples"], description["users_without_history"] = {}, {}
    for part, (first, last) in begins.items():
        has_target, has_history = last > first, first > offsets[:-1]
        description["events"][part] = int((last - first).sum())
        description["examples"][part] = int((has_target & has_history).sum())
        description["users_without_history"][part] = int((has_target & ~has_history).sum())
    return Split(train_end.astype(np.int64), valid_end.astype(np.int64), targets, name, description)


def _before(bundle: Bundle, moment: int) -> np.ndarray:
    """Flat position of each user's first event at or after ``moment``."""
    earlier = offsets_of(bundle.timestamps < moment)
    return bundle.offsets[:-1] + earlier[bundle.offsets[1:]] - earlier[bundle.offsets[:-1]]


def _distinct(bundle: Bundle, begins: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the ranges, each item's first one only, and the number of the range that each belongs to."""
    lengths = stops - begins
    owner = np.repeat(np.arange(len(begins)), lengths)
    rows = range_rows(begins, stops)
    _, first = np.unique(owner * bundle.n_items + bundle.items[rows], return_index=True)
    first.sort()
    return rows[first], owner[first]


def _share(lengths: np.ndarray, share: float) -> np.ndarray:
    return np.floor(lengths * share + 1e-9).astype(np.int64)


def _milliseconds(moment: str | int | None) -> int:
    if isinstance(moment, int):
        return moment
    try:
        parsed = datetime.fromisoformat(str(moment).replace("Z", "+00:00"))
    except ValueError as error:
        raise DeshiError(f"{moment!r} is not a date, expected ISO (2020-01-31) or milliseconds since 1970.") from error
    return round((parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)).timestamp() * 1000)


def _iso(milliseconds: int) -> str:
    return str(np.datetime64(milliseconds, "ms"))


def _check_shares(validation: float, test: float) -> None:
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise DeshiError(
            f"The shares are validation {validation} and test {test}, expected both above 0 and their sum below 1."
        )


def _check_targets(targets: str) -> None:
    if targets not in TARGETS:
        raise DeshiError(f"targets is {targets!r}, expected one of {', '.join(TARGETS)}.")
