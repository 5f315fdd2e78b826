"""Files of histories to answer, and of item ids to allow or exclude."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl

from deshi.data.histories import Histories, HistoryColumns, collect_histories
from deshi.data.raw import BadRowLog, BadRows
from deshi.tables import TableFormat, ids, open_table, read_lines, read_table, table_kind
from deshi.tables.reading import JSON, PARQUET
from deshi.types import DeshiError

ADVICE = "Name yours with user=, item= or history=, timestamp=."


def read_histories(
    path: Path,
    item_ids: pl.Series,
    columns: HistoryColumns | None = None,
    form: TableFormat | None = None,
    bad_rows: BadRows | None = None,
) -> Histories:
    """Read the histories of a file of any form that :func:`deshi.tables.read_table` reads.

    Args:
        path: the file.
        item_ids: of the vocabulary, in index order.
        columns: which column holds what.
        form: how a text table is written.
        bad_rows: what to do with malformed rows.

    Raises:
        DeshiError: for a missing or unreadable file or column, and as :func:`deshi.data.histories.collect_histories`.
    """
    file = open_table(path, form)
    columns = (columns or HistoryColumns()).among(file.names)
    numeric = [] if columns.timestamp is None else [columns.timestamp]
    single_line = [name for name in columns.used if name != columns.history]
    table = file.read(columns.used, numeric, single_line, ADVICE)
    histories = collect_histories(table, columns, item_ids, BadRowLog(bad_rows or BadRows(), keys=""))
    if not len(histories):
        raise DeshiError(f"{path} is empty: it has no rows. Check that it is the right file.")
    return histories


def read_item_ids(path: Path, item: str, encoding: str = "utf-8") -> list[str]:
    """The distinct item ids of a text file with an id a line, or of a table's column ``item``.

    Raises:
        DeshiError: if it can't be read.
    """
    if table_kind(path) not in (*PARQUET, *JSON):
        lines = read_lines(path, encoding=encoding)
        if not lines or item not in re.split(r'[\s,;|"]+', lines[0]):
            if table_kind(path) == ".csv":
                lines = [re.sub('^"(.*)"$', r"\1", line) for line in lines]
            return list(dict.fromkeys(ids(pl.Series(lines, dtype=pl.String)).drop_nulls()))
    table = read_table(
        path, [item], TableFormat(encoding=encoding), advice="Name it with item=, or write an id a line."
    )
    for line, reason, content in table.malformed:
        raise DeshiError(f"{path}, line {line}: {reason}: {content!r}. Repair it.")
    return ids(table.frame[item]).drop_nulls().unique(maintain_order=True).to_list()
