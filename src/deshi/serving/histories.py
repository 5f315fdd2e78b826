"""Files of histories to answer, and of item ids to allow or exclude."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from deshi.data.histories import Histories, HistoryColumns, collect_histories
from deshi.types import DeshiError

READERS = {
    ".csv": lambda path: pl.scan_csv(path, infer_schema=False),
    ".tsv": lambda path: pl.scan_csv(path, infer_schema=False, separator="\t"),
    ".parquet": pl.scan_parquet,
    ".jsonl": lambda path: pl.scan_ndjson(path, infer_schema_length=None),
    ".ndjson": lambda path: pl.scan_ndjson(path, infer_schema_length=None),
}
ADVICE = "Name yours with columns.user, columns.item or columns.items, columns.order."


def read_histories(path: Path, item_ids: pl.Series, columns: HistoryColumns) -> Histories:
    """Read the histories of a csv, tsv, parquet, jsonl or ndjson file, see :func:`collect_histories`.

    Raises:
        DeshiError: for a missing or unreadable file, a missing column, or rows without a user or an order.
    """
    try:
        return collect_histories(_scan(path), path, item_ids, columns, ADVICE)
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
