"""Teachers from files: ranked lists and score matrices of another program.

None of them is trained. Lists and matrices hold one ranking a user, which is good for one history of the user; any
other history is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deshi.arrays import offsets_of
from deshi.configuration.needs import LocalFile, Need
from deshi.data.bundle import Bundle
from deshi.data.example_batches import ExampleBatches
from deshi.data.vocabulary import indices_of
from deshi.tables import column_names
from deshi.teachers._file_readers import (
    complete_ids,
    fingerprints,
    finite_numbers,
    missing,
    need_file,
    open_array,
    read_columns,
    read_ids,
)
from deshi.teachers.base import FittedTeacher, Resources
from deshi.types import ITEM, PAD, USER, Batch, DeshiError

log = logging.getLogger(__name__)

_CHUNK = 1 << 22
"""Numbers of a matrix that are checked at a time."""


class FromFiles(FittedTeacher):
    """A teacher from files: its state are the files, recognised by their sha256."""

    def __init__(self, n_items: int, bundle: Bundle, files: list[Path | None]) -> None:
        if n_items != bundle.n_items:
            raise DeshiError(f"n_items is {n_items}, but the data set {bundle.name} has {bundle.n_items} items.")
        self.n_items = n_items
        self._files = fingerprints(*files)

    @classmethod
    def needs(cls, arguments: Mapping[str, Any]) -> list[Need]:
        """The files that its arguments name."""
        paths = {key: arguments.get(key) for key in ("path", "users", "items", "ids")}
        return [LocalFile(f"teacher.{key}", Path(path).expanduser()) for key, path in paths.items() if path is not None]

    def fit(self, validation: ExampleBatches) -> dict[str, Any]:
        """Nothing is chosen; the state is the files' sha256."""
        return {"files": list(self._files.values())}

    def restore(self, state: dict[str, Any]) -> None:
        """Check that the files are those of the state.

        Raises:
            DeshiError: if one has changed.
        """
        for (path, digest), saved in zip(self._files.items(), state["files"], strict=True):
            if digest != saved:
                raise DeshiError(
                    f"{path} has the sha256 {digest[:12]}, but {saved[:12]} when it was taken for a teacher: "
                    "put the old file back, or take the new one with deshi teach."
                )


class _OnePerUser(FromFiles):
    """A ranking for each user, good for one of the user's histories and for no other.

    The file doesn't say which history. With ``held_out`` it is the one without the user's latest ``held_out``
    events; else the first history of a user that is scored counts, and another one is refused.
    """

    def __init__(self, n_items: int, bundle: Bundle, files: list[Path | None], held_out: int | None) -> None:
        super().__init__(n_items, bundle, files)
        if held_out is not None and held_out < 0:
            raise DeshiError(f"held_out is {held_out}, expected a number of events from 0, or null.")
        self._held_out = held_out
        self._users = bundle.users[USER]
        self._ends: NDArray[np.int64] = np.full(bundle.n_users, PAD, dtype=np.int64)
        if held_out is not None:
            self._ends = np.asarray(bundle.offsets[1:], dtype=np.int64) - 1 - held_out

    def _users_of(self, batch: Batch) -> NDArray[np.int64]:
        """The batch's users.

        Raises:
            DeshiError: for a history that the file's rankings aren't for.
        """
        users = batch.users.cpu().numpy()
        last = batch.rows.gather(1, batch.lengths[:, None] - 1).squeeze(1).cpu().numpy()
        for user, row in zip(users.tolist(), last.tolist(), strict=True):
            if self._ends[user] == PAD:
                self._ends[user] = row
            if self._ends[user] != row:
                reason = (
                    "it has scored another history of this user before"
                    if self._held_out is None
                    else f"held_out={self._held_out} says that the rankings are for the history without so many events"
                )
                raise DeshiError(
                    f"The file holds one ranking a user, and it can't answer for the user {self._users[user]!r} after "
                    f"event {row}: {reason} (event {self._ends[user]}). Ask for one part only, and never for all "
                    "positions of a history; item vectors answer after any history."
                )
        return users

    def _check_missing(self, present: NDArray[np.bool_], policy: str, path: Path) -> None:
        """Apply the policy for users that the file doesn't have.

        Raises:
            DeshiError: with their number under ``error``.
        """
        if present.all():
            return
        absent = np.flatnonzero(~present)
        text = missing(len(absent), len(present), self._users[int(absent[0])], "user", path)
        if policy == "error":
            raise DeshiError(f"{text}. Write them, or set missing_users=chance to let all items tie for them.")
        log.warning("%s; all items tie for them", text)


class RankedLists(_OnePerUser):
    """A ranked list of items for each user, the best K or all.

    Items that aren't in a user's list score minus infinity: they tie behind the list and are never among its best.

    Args:
        n_items: number of items in the vocabulary.
        resources: the data.
        path: a csv, tsv, JSON lines or parquet table; a row an item of a user's list, in any order.
        user: column of user ids, those of the data set.
        item: column of item ids, those of the data set.
        score: column of scores; null takes ``score`` if the file has it.
        rank: column of ranks, the smallest is the best; null takes ``rank`` if there are no scores.
        higher_is_better: whether a greater score means a better item.
        missing_users: users without a list: ``error``, or ``chance``: all items tie.
        held_out: the lists follow on all but so many of a user's latest events (1 for the test example of
            leave-one-out, 2 for its validation example); null: the first history of a user that is scored counts.

    Raises:
        DeshiError: for a file that can't be read, lists with an item twice, numbers that aren't finite, unknown users
            or items only, and missing users.
    """

    def __init__(
        self,
        n_items: int,
        resources: Resources,
        path: str,
        user: str = USER,
        item: str = ITEM,
        score: str | None = None,
        rank: str | None = None,
        higher_is_better: bool = True,
        missing_users: Literal["error", "chance"] = "error",
        held_out: int | None = None,
    ) -> None:
        bundle, file = resources.bundle, need_file(path, "path")
        super().__init__(n_items, bundle, [file], held_out)
        value, ranked = _value_column(file, score, rank)
        frame = read_columns(file, {"user": user, "item": item, "value": value})
        users = indices_of(complete_ids(frame["user"], file), bundle.users[USER], "user", file)
        items = indices_of(complete_ids(frame["item"], file), bundle.vocabulary[ITEM], "item", file)
        values = finite_numbers(frame["value"], value, file)
        kept = (users != PAD) & (items != PAD)
        self._fill(
            bundle, file, users[kept], items[kept], values[kept] * (1 if higher_is_better and not ranked else -1)
        )
        self._check_missing(np.diff(self._offsets) > 0, missing_users, file)

    def _fill(
        self,
        bundle: Bundle,
        file: Path,
        users: NDArray[np.int64],
        items: NDArray[np.int64],
        values: NDArray[np.float64],
    ) -> None:
        # sorted by user and then by item, so that repetitions stand side by side
        order = np.lexsort((items, users))
        users, items, values = users[order], items[order], values[order]
        repeated = (np.diff(users) == 0) & (np.diff(items) == 0)
        if repeated.any():
            row = int(repeated.argmax())
            user, item = bundle.users[USER][int(users[row])], bundle.vocabulary[ITEM][int(items[row])]
            raise DeshiError(
                f"{file} repeats {repeated.sum()} items in a user's list, the first is {item!r} of the user {user!r}. "
                "Expected each item once a list."
            )
        counts = np.bincount(users, minlength=bundle.n_users)
        self._offsets = offsets_of(counts)
        self._listed, self._scores = items, values.astype(np.float32)
        log.info("%s: lists for %d users, %d items on average", file, (counts > 0).sum(), round(float(counts.mean())))

    def scores(self, batch: Batch) -> Tensor:
        """``(B, n_items)`` float32 of the batch's users, minus infinity off the list.

        Raises:
            DeshiError: for a user's second history.
        """
        table = np.full((len(batch.users), self.n_items), -np.inf, dtype=np.float32)
        for row, user in enumerate(self._users_of(batch).tolist()):
            part = slice(self._offsets[user], self._offsets[user + 1])
            table[row, self._listed[part]] = self._scores[part]
        return torch.from_numpy(table).to(batch.items.device)


def _value_column(path: Path, score: str | None, rank: str | None) -> tuple[str, bool]:
    """The column that orders the lists, and whether it is one of ranks."""
    if score is not None and rank is not None:
        raise DeshiError(f"score={score} and rank={rank}: {path} is ordered by one of them, name only that.")
    if score is not None or rank is not None:
        return str(score or rank), score is None
    columns = column_names(path)
    for name in ("score", "rank"):
        if name in columns:
            return name, name == "rank"
    raise DeshiError(
        f"{path} has neither a column 'score' nor 'rank'; it has {', '.join(columns)}. "
        "Give its name with score= or rank=."
    )


class ScoreMatrix(_OnePerUser):
    """A dense matrix of scores, users times items; minus infinity means that an item is not answered for.

    Items that have no column score minus infinity.

    Args:
        n_items: number of items in the vocabulary.
        resources: the data.
        path: .npy of numbers ``(users, items)``; it is mapped, not read.
        users: file of the rows' user ids: .txt with one a line, .npy, or a table with the column ``user_id``.
        items: file of the columns' item ids, likewise with ``item_id``.
        higher_is_better: whether a greater score means a better item.
        missing_users: users without a row: ``error``, or ``chance``: all items tie.
        missing_items: items without a column: ``error``, or ``last``: minus infinity.
        held_out: see :class:`RankedLists`.

    Raises:
        DeshiError: for files that can't be read or don't fit each other, NaN, infinities of the better direction,
            repeated or wholly unknown ids, missing users and items.
    """

    def __init__(
        self,
        n_items: int,
        resources: Resources,
        path: str,
        users: str,
        items: str,
        higher_is_better: bool = True,
        missing_users: Literal["error", "chance"] = "error",
        missing_items: Literal["error", "last"] = "error",
        held_out: int | None = None,
    ) -> None:
        bundle, file = resources.bundle, need_file(path, "path")
        row_ids, column_ids = need_file(users, "users"), need_file(items, "items")
        super().__init__(n_items, bundle, [file, row_ids, column_ids], held_out)
        self._matrix, self._sign = open_array(file, 2), np.float32(1 if higher_is_better else -1)
        rows = indices_of(read_ids(row_ids, USER), bundle.users[USER], "user", row_ids)
        columns = indices_of(read_ids(column_ids, ITEM), bundle.vocabulary[ITEM], "item", column_ids)
        if self._matrix.shape != (len(rows), len(columns)):
            raise DeshiError(
                f"{file} has shape {self._matrix.shape}, but {row_ids} has {len(rows)} ids and {column_ids} "
                f"{len(columns)}: expected a row a user and a column an item."
            )
        self._check_numbers(file)
        self._row_of = rows_of(rows, bundle.n_users)
        self._column_of = rows_of(columns, n_items)
        self._check_missing(self._row_of != PAD, missing_users, file)
        check_items(self._column_of != PAD, bundle, missing_items, file)

    def _check_numbers(self, file: Path) -> None:
        if self._matrix.dtype.kind not in "fiu":
            raise DeshiError(f"{file} holds {self._matrix.dtype}, expected numbers.")
        step = max(1, _CHUNK // self._matrix.shape[1])
        for start in range(0, len(self._matrix), step):
            block = np.asarray(self._matrix[start : start + step], dtype=np.float32) * self._sign
            bad = np.isnan(block) | np.isposinf(block)
            if bad.any():
                row, column = np.argwhere(bad)[0]
                raise DeshiError(
                    f"{file} has {self._matrix[start + row, column]} in row {start + row}, column {column} (from 0), "
                    "expected finite scores, or the worst infinity for items that aren't answered for."
                )

    def scores(self, batch: Batch) -> Tensor:
        """``(B, n_items)`` float32 of the batch's users.

        Raises:
            DeshiError: for a user's second history.
        """
        rows = self._row_of[self._users_of(batch)]
        real_rows, real_columns = rows != PAD, self._column_of != PAD
        table = np.full((len(rows), self.n_items), -np.inf, dtype=np.float32)
        values = np.asarray(self._matrix[rows[real_rows]], dtype=np.float32) * self._sign
        table[np.ix_(real_rows, real_columns)] = values[:, self._column_of[real_columns]]
        return torch.from_numpy(table).to(batch.items.device)


def rows_of(indices: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """The row of each of ``size`` indices, from the index of each row; ``PAD`` for none."""
    rows = np.full(size, PAD, dtype=np.int64)
    real = indices != PAD
    rows[indices[real]] = np.flatnonzero(real)
    return rows


def check_items(present: NDArray[np.bool_], bundle: Bundle, policy: str, path: Path) -> None:
    """Apply the policy for items that a file does not have: ``error``, or ``last`` with a line in the log.

    Raises:
        DeshiError: with their number under ``error``.
    """
    if present.all():
        return
    absent = np.flatnonzero(~present)
    text = missing(len(absent), len(present), bundle.vocabulary[ITEM][int(absent[0])], "item", path)
    if policy == "error":
        raise DeshiError(f"{text}. Write them, or set missing_items=last to put them behind all others.")
    log.warning("%s; they come behind all others", text)
