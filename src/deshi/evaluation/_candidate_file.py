"""Candidate sets from a file, checked against the examples that they are for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from deshi.arrays import Ints, offsets_of
from deshi.data.bundle import Bundle
from deshi.data.example_batches import padded_rows
from deshi.data.splits import Examples
from deshi.types import ITEM, USER, DeshiError

COLUMN = "candidates"


def read_candidates(path: Path, bundle: Bundle, examples: Examples, part: str) -> Ints:
    """The candidates of every example.

    The file has the columns ``user_id``, ``item_id`` (the target) and ``candidates``, the target among them; ids are
    those of the data set. In parquet ``candidates`` is a list; in csv its ids are separated by commas or spaces,
    brackets and quotes around them are ignored. If there is a column ``part``, rows of other parts are left out. Rows
    that belong to no example are ignored.

    Args:
        path: ending in ``.parquet`` or ``.csv``.
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
    frame = _read(path)
    if "part" in frame.columns:
        frame = frame.filter(pl.col("part") == part)
    _check_known(path, bundle, frame)
    rows = _rows_of_examples(path, bundle, examples, part, frame)
    long = rows.select("example", USER, ITEM, COLUMN).explode(COLUMN)
    _check_sets(path, rows, long)
    vocabulary = bundle.vocabulary.select(pl.col(ITEM).alias(COLUMN), "index")
    indices = long.join(vocabulary, on=COLUMN, how="left", maintain_order="left")["index"].to_numpy()
    offsets = offsets_of(rows[COLUMN].list.len().to_numpy())
    return padded_rows(indices, offsets[:-1], offsets[1:])


def _read(path: Path) -> pl.DataFrame:
    readers = {".parquet": pl.read_parquet, ".csv": lambda file: pl.read_csv(file, infer_schema=False)}
    if path.suffix not in readers:
        raise DeshiError(f"candidates.path is {path}, expected a file that ends in .parquet or .csv.")
    try:
        frame = readers[path.suffix](path)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise DeshiError(f"{path} can't be read as {path.suffix[1:]}: {error}. Check candidates.path.") from error
    missing = [name for name in (USER, ITEM, COLUMN) if name not in frame.columns]
    if missing:
        raise DeshiError(
            f"{path} has the columns {', '.join(frame.columns)}, but {', '.join(missing)} is missing: expected "
            f"{USER}, {ITEM} (the target) and {COLUMN}."
        )
    column = pl.col(COLUMN)
    if frame.schema[COLUMN] == pl.String:
        column = column.str.replace_all(r"[\[\]()'\"]", " ").str.replace_all(r"[,\s]+", " ").str.strip_chars()
        column = column.str.split(" ")
    elif not isinstance(frame.schema[COLUMN], pl.List):
        raise DeshiError(f"{path} has {COLUMN} of type {frame.schema[COLUMN]}, expected lists of item ids.")
    return frame.with_columns(pl.col(USER, ITEM).cast(pl.String), column.cast(pl.List(pl.String)))


def _check_known(path: Path, bundle: Bundle, frame: pl.DataFrame) -> None:
    users = frame.filter(~pl.col(USER).is_in(bundle.users[USER].implode()))
    if users.height:
        raise DeshiError(
            f"{path} has {users.height} rows of unknown users, the first is {users[USER][0]!r}. {_ids(bundle)}"
        )
    mentioned = pl.concat(
        [frame.select(USER, ITEM), frame.select(USER, pl.col(COLUMN).alias(ITEM)).explode(ITEM).drop_nulls()]
    )
    items = mentioned.filter(~pl.col(ITEM).is_in(bundle.vocabulary[ITEM].implode()))
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
