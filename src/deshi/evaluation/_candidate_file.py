"""Candidate sets from a file, checked against the examples that they are for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from deshi.arrays import Ints, offsets_of
from deshi.data.bundle import Bundle
from deshi.data.example_batches import padded_rows
from deshi.data.splits import Examples
from deshi.tables import id_lists, ids, open_table
from deshi.tables.id_lists import NO_LIST
from deshi.types import ITEM, USER, DeshiError

COLUMN = "candidates"


def read_candidates(path: Path, bundle: Bundle, examples: Examples, part: str) -> Ints:
    """The candidates of every example.

    The file has the columns ``user_id``, ``item_id`` (the target) and ``candidates``, the target among them; ids are
    those of the data set. ``candidates`` is a list or its text, see :func:`deshi.tables.id_lists`. If there is a column
    ``part``, rows of other parts are left out. Rows that belong to no example are ignored.

    Args:
        path: a file that :func:`deshi.tables.read_table` reads.
        bundle: the data.
        examples: of one part, each with one target.
        part: its name.

    Returns:
        ``(C, W)`` int64 item indices, ``PAD`` on the right of smaller sets.

    Raises:
        DeshiError: if the file can't be read; for unknown ids, examples without a row or with several, repeated
            candidates and sets without their target: with counts and the first user.
    """
    if (np.diff(examples.target_offsets) != 1).any():
        raise DeshiError(
            "Candidate files are for examples with one target, but the split gives several. Use split.targets=next."
        )
    frame = _read(path, part)
    _check_known(path, bundle, frame)
    rows = _rows_of_examples(path, bundle, examples, part, frame)
    long = rows.select("example", USER, ITEM, COLUMN).explode(COLUMN)
    _check_sets(path, rows, long)
    vocabulary = bundle.vocabulary.select(pl.col(ITEM).alias(COLUMN), "index")
    indices = long.join(vocabulary, on=COLUMN, how="left", maintain_order="left")["index"].to_numpy()
    offsets = offsets_of(rows[COLUMN].list.len().to_numpy())
    return padded_rows(indices, offsets[:-1], offsets[1:])


def _read(path: Path, part: str) -> pl.DataFrame:
    """``user_id``, ``item_id`` and ``candidates`` of the part's rows."""
    file = open_table(path)
    names = [USER, ITEM, COLUMN, *(name for name in file.names if name == "part")]
    advice = f"Expected {USER}, {ITEM} (the target) and {COLUMN}."
    table = file.read(names, single_line=[USER, ITEM], advice=advice)
    try:
        lists = id_lists(table.frame[COLUMN])
        frame = table.frame.with_columns(ids(table.frame[name]) for name in (USER, ITEM))
    except DeshiError as error:
        raise DeshiError(f"{path}: {error}") from error
    malformed = [*table.malformed]
    for row in lists.malformed.arg_true().to_list():
        malformed.append((table.lines[row], NO_LIST, str(table.frame[COLUMN][row])))
    for line, reason, content in sorted(malformed)[:1]:
        raise DeshiError(
            f"{path} has {len(malformed)} malformed rows, the first in line {line}: {reason}: {content[:200]!r}. "
            f"Repair the file."
        )
    rows = np.repeat(np.arange(frame.height, dtype=np.uint32), lists.lengths)
    sets = pl.DataFrame({"row": rows, COLUMN: lists.values}).group_by("row").agg(COLUMN)
    frame = frame.drop(COLUMN).with_row_index("row").join(sets, on="row", how="left", maintain_order="left")
    frame = frame.with_columns(pl.col(COLUMN).fill_null([]))
    return frame.filter(pl.col("part") == part) if "part" in names else frame


def _check_known(path: Path, bundle: Bundle, frame: pl.DataFrame) -> None:
    users = frame.filter(~pl.col(USER).is_in(bundle.users[USER].implode()).fill_null(False))
    if users.height:
        raise DeshiError(
            f"{path} has {users.height} rows of unknown users, the first is {users[USER][0]!r}. {_ids(bundle)}"
        )
    mentioned = pl.concat(
        [frame.select(USER, ITEM), frame.select(USER, pl.col(COLUMN).alias(ITEM)).explode(ITEM, empty_as_null=False)]
    )
    items = mentioned.filter(~pl.col(ITEM).is_in(bundle.vocabulary[ITEM].implode()).fill_null(False))
    if items.height:
        raise DeshiError(
            f"{path} has {items[ITEM].n_unique()} unknown items in {items[USER].n_unique()} users' rows, the first is "
            f"{items[ITEM][0]!r} at the user {items[USER][0]!r}. {_ids(bundle)}"
        )


def _rows_of_examples(path: Path, bundle: Bundle, examples: Examples, part: str, frame: pl.DataFrame) -> pl.DataFrame:
    """The row of every example, in the order of examples."""
    repeated = frame.filter(pl.struct(USER, ITEM).is_duplicated())
    if repeated.height:
        raise DeshiError(
            f"{path} has {repeated.height} rows that share user and target with another, the first of the user "
            f"{repeated[USER][0]!r} with the target {repeated[ITEM][0]!r}. Expected one row an example."
        )
    targets = pl.DataFrame(
        {
            "example": np.arange(len(examples)),
            USER: bundle.users[USER].gather(examples.users),
            ITEM: bundle.vocabulary[ITEM].gather(bundle.items[examples.target_rows]),
        }
    )
    rows = targets.join(frame.select(USER, ITEM, COLUMN), on=[USER, ITEM], how="left", maintain_order="left")
    missing = rows.filter(pl.col(COLUMN).is_null())
    if missing.height:
        raise DeshiError(
            f"{path} has no candidates for {missing.height} of {len(examples)} {part} examples, the first is the user "
            f"{missing[USER][0]!r} with the target {missing[ITEM][0]!r}. Was it made for this data, split and part?"
        )
    return rows


def _check_sets(path: Path, rows: pl.DataFrame, long: pl.DataFrame) -> None:
    repeated = long.filter(pl.struct("example", COLUMN).is_duplicated())
    if repeated.height:
        raise DeshiError(
            f"{path} repeats candidates in {repeated['example'].n_unique()} of {rows.height} sets, the first is the "
            "user "
            f"{repeated[USER][0]!r} with {repeated[COLUMN][0]!r}. Expected each candidate once: a repeated target "
            f"would count twice."
        )
    without = rows.filter(~pl.col(COLUMN).list.contains(pl.col(ITEM)))
    if without.height:
        raise DeshiError(
            f"{path} leaves the target out of {without.height} of {rows.height} candidate sets, the first is the user "
            f"{without[USER][0]!r} with the target {without[ITEM][0]!r}. Such an example can't be answered: add the "
            f"target to its candidates."
        )


def _ids(bundle: Bundle) -> str:
    return f"Expected the ids of the data set {bundle.name} as it was prepared (filters drop some)."
