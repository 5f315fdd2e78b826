"""Histories from a file: a row for each event, or a row for each history; as flat arrays of known item indices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from deshi.arrays import offsets_of
from deshi.configuration.targets import suggestion
from deshi.types import TIMESTAMP, DeshiError

ORDERS = (TIMESTAMP, "position")
"""Columns that order events, if none is named."""

READERS = {
    ".csv": lambda path: pl.scan_csv(path, infer_schema=False),
    ".tsv": lambda path: pl.scan_csv(path, infer_schema=False, separator="\t"),
    ".parquet": pl.scan_parquet,
    ".jsonl": lambda path: pl.scan_ndjson(path, infer_schema_length=None),
    ".ndjson": lambda path: pl.scan_ndjson(path, infer_schema_length=None),
}


@dataclass(frozen=True, eq=False)
class Histories:
    """What a file holds. History ``h`` is ``items[offsets[h]:offsets[h + 1]]``, oldest first.

    Attributes:
        users: ``(H,)`` ids as texts, in the file's order (of each user's first row).
        items: ``(E,)`` int32 indices of the known items.
        offsets: ``(H + 1,)`` int64.
        events: of the file, unknown items included.
        unknown_items: distinct item ids that the vocabulary doesn't know.
    """

    users: pl.Series
    items: NDArray[np.int32]
    offsets: NDArray[np.int64]
    events: int
    unknown_items: int

    def __len__(self) -> int:
        """Number of histories."""
        return len(self.users)

    def history(self, number: int) -> NDArray[np.int64]:
        """The item indices of one history."""
        return self.items[self.offsets[number] : self.offsets[number + 1]].astype(np.int64)


def read_histories(
    path: Path, item_ids: pl.Series, user: str, item: str, items: str, order: str | None = None, separator: str = " "
) -> Histories:
    """Read a file in one of two forms: with a column ``items`` a row is a history, otherwise an event.

    Args:
        path: csv, tsv, parquet, jsonl or ndjson.
        item_ids: of the vocabulary, in index order.
        user: the column of user ids. A user's events needn't stand together; every row with a list is answered.
        item: the column of item ids, of events. Where it is empty, the user has no event in that row.
        items: the column of lists of item ids, oldest first; in csv a text with ``separator`` between them.
        order: the column that orders a user's events, numbers or ISO 8601 times; None looks for one of
            :data:`ORDERS` and else takes the file's order. Equal ones keep the file's order.
        separator: see ``items``.

    Raises:
        DeshiError: for a missing or unreadable file, a missing column, or rows without a user or an order.
    """
    try:
        scan = _scan(path)
        columns = scan.collect_schema().names()
        _check_columns(path, columns, [user, *([order] if order else [])])
        if items in columns:
            found = _lists(scan, user, items, separator)
        else:
            _check_columns(path, columns, [item])
            by = order or next((name for name in ORDERS if name in columns), None)
            found = _events(scan, user, item, None if by is None else _comparable(path, scan, by))
        return _encode(path, found, item_ids)
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        raise DeshiError(f"{path} can't be read: {str(error).strip().partition(chr(10))[0]}") from error


def read_item_ids(path: Path) -> list[str]:
    """Item ids from a text file, one a line; empty lines don't count.

    Raises:
        DeshiError: if it can't be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DeshiError(f"{path} can't be read ({error}). Expected a text file with an item id a line.") from error
    return [line.strip() for line in lines if line.strip()]


def _scan(path: Path) -> pl.LazyFrame:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DeshiError(f"input is {path}, expected a file that ends in {', '.join(READERS)}.")
    if not path.is_file():
        raise DeshiError(f"There is no file {path}. Give the histories with input=FILE.")
    if not path.stat().st_size:
        raise DeshiError(f"{path} is empty, expected at least a line with the columns' names.")
    return reader(path)


def _check_columns(path: Path, columns: list[str], wanted: list[str]) -> None:
    for name in wanted:
        if name not in columns:
            raise DeshiError(
                f"{path} has no column {name!r}. {suggestion(name, columns, 'columns')} Name yours with columns.user, "
                "columns.item or columns.items, columns.order."
            )


def _lists(scan: pl.LazyFrame, user: str, items: str, separator: str) -> pl.DataFrame:
    """``user`` and ``items``, a list of texts, a row for each of the file's."""
    listed = pl.col(items)
    if scan.collect_schema()[items] == pl.String:
        listed = listed.str.split(separator).list.eval(pl.element().filter(pl.element() != ""))
    else:
        listed = listed.cast(pl.List(pl.String)).list.drop_nulls()
    return scan.select(pl.col(user).cast(pl.String).alias("user"), listed.alias("items")).collect(engine="streaming")


def _events(scan: pl.LazyFrame, user: str, item: str, order: pl.Expr | None) -> pl.DataFrame:
    """The same from a row an event, users in the order of their first row."""
    place = pl.col("place")
    rows = scan.select(
        pl.col(user).cast(pl.String).alias("user"),
        pl.col(item).cast(pl.String).alias("item"),
        *([order.alias("order")] if order is not None else []),
    ).with_row_index("place")
    keys = [place] if order is None else [pl.col("order"), place]
    listed = pl.col("item").sort_by(keys).drop_nulls().alias("items")
    grouped = rows.group_by("user").agg(place.min(), listed).sort("place")
    return grouped.select("user", "items").collect(engine="streaming")


def _comparable(path: Path, scan: pl.LazyFrame, column: str) -> pl.Expr:
    """An expression that sorts as the column is meant: by number where all are numbers, else by text (ISO 8601)."""
    own = pl.col(column)
    if scan.collect_schema()[column] != pl.String:
        whole = own
        counts = scan.select(missing=own.is_null().sum(), words=pl.lit(0), fractions=pl.lit(0), rows=pl.len())
    else:
        number, whole = own.cast(pl.Float64, strict=False), own.cast(pl.Int64, strict=False)
        counts = scan.select(
            missing=own.is_null().sum(), words=number.is_null().sum(), fractions=whole.is_null().sum(), rows=pl.len()
        )
    found = counts.collect(engine="streaming").row(0, named=True)
    if found["missing"]:
        raise DeshiError(f"{path}: {found['missing']} of {found['rows']} rows have no {column}, expected one in each.")
    if 0 < found["words"] < found["rows"]:
        raise DeshiError(
            f"{path}: {found['words']} of {found['rows']} values of {column} are no numbers and the others are; "
            "expected numbers alone, or ISO 8601 times alone."
        )
    if found["words"]:
        return own
    return own.cast(pl.Float64) if found["fractions"] else whole


def _encode(path: Path, found: pl.DataFrame, item_ids: pl.Series) -> Histories:
    without = found["user"].null_count()
    if without:
        raise DeshiError(f"{path}: {without} users have no id, expected one in every row.")
    lists = found["items"].fill_null([])
    flat = lists.explode(empty_as_null=False)
    # An Enum finds an id's index in one look-up, and unknown ones become null.
    indices = flat.cast(pl.Enum(item_ids), strict=False).to_physical().cast(pl.Int32)
    known = indices.is_not_null()
    owners = np.repeat(np.arange(found.height), lists.list.len().to_numpy())
    counts = np.bincount(owners[known.to_numpy()], minlength=found.height)
    return Histories(
        users=found["user"],
        items=indices.filter(known).to_numpy(),
        offsets=offsets_of(counts),
        events=len(flat),
        unknown_items=flat.filter(~known).n_unique(),
    )
