"""Interactions from a SQL query: SQLite by the standard library, PostgreSQL by psycopg 3 (the extra ``sql``)."""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from deshi.configuration.needs import POSTGRES, Component, Need
from deshi.data.raw import BadRowLog, BadRows, FileRecord, RawData
from deshi.data.sources._item_tables import item_table
from deshi.data.sources.columns import Columns, interactions_of
from deshi.tables import Table, manifest_unit, text_of
from deshi.types import DeshiError

CHUNK = 100_000
_PASSWORD = re.compile(r"(://[^:/@]*):.*@|(password\s*=\s*)(?:'[^']*'|\S+)")


class SQL(Component):
    """The rows of a query, in the order in which the database gives them: use ORDER BY where times can be equal."""

    def __init__(
        self,
        query: str,
        dsn: str | None = None,
        dsn_env: str | None = None,
        user: str = "user_id",
        item: str = "item_id",
        timestamp: str | None = "timestamp",
        rating: str | None = None,
        time_unit: str = "auto",
        time_format: str | None = None,
        items_query: str | None = None,
        items_id: str = "item_id",
        items_title: str | None = "title",
    ) -> None:
        """Say which database to ask what.

        Args:
            query: a SELECT.
            dsn: ``sqlite:///file.db`` (four slashes for an absolute path), the path of a SQLite file, or
                ``postgresql://user@host:port/database``.
            dsn_env: name of an environment variable that holds it instead, so that a password stays out of the config.
            user: column of user ids in the answer; likewise ``item`` and ``rating`` (null if there is none).
            item: see ``user``.
            timestamp: column of timestamps (numbers, text, dates) or of positions; null with ``time_unit=row``.
            rating: see ``user``.
            time_unit: as in :class:`deshi.data.sources.tabular.Tabular`; dates and times of the database need none.
            time_format: of other times, ``%d.%m.%Y %H:%M`` or ``%Y%m%d``, see :func:`deshi.tables.to_timestamps`.
            items_query: a SELECT of the items, or null; all columns but id and title are kept as text.
            items_id: its column of item ids.
            items_title: its column of titles, or null.

        Raises:
            DeshiError: unless exactly one of ``dsn`` and ``dsn_env`` is given.
        """
        if (dsn is None) == (dsn_env is None):
            raise DeshiError("Give exactly one of data.source.dsn and data.source.dsn_env (a variable that holds it).")
        self.query, self.items_query = query, items_query
        self.dsn, self.dsn_env = dsn, dsn_env
        self.columns = Columns(user, item, timestamp, rating, time_unit, time_format)
        self.items_id, self.items_title = items_id, items_title

    @classmethod
    def needs(cls, arguments: Mapping[str, Any]) -> list[Need]:
        """The client of PostgreSQL, if the address is one of its."""
        dsn = arguments.get("dsn") or os.environ.get(str(arguments.get("dsn_env"))) or ""
        return [POSTGRES] if _is_postgres(dsn) else []

    def load(self, cache: Path, bad_rows: BadRows | None = None) -> RawData:
        """Run the queries; the record's sha256 is of the answer, since there is no file.

        Raises:
            DeshiError: if the database can't be reached or refuses a query; see :class:`deshi.data.raw.Source`.
        """
        log = BadRowLog(bad_rows or BadRows())
        dsn = self._dsn()
        frame = _ask(dsn, self.query)
        self.columns.check(frame.columns, "The answer of data.source.query")
        interactions = interactions_of([_table("query", frame)], self.columns, log)
        files = [FileRecord("query", _digest(frame), hide_password(dsn))]
        items = None
        if self.items_query is not None:
            table = _ask(dsn, self.items_query)
            files.append(FileRecord("items_query", _digest(table), hide_password(dsn)))
            items = item_table([_table("items_query", table)], (self.items_id, self.items_title, None), log)
        unit = manifest_unit(self.columns.unit)
        return RawData(interactions, items, unit, files, log.report())

    def _dsn(self) -> str:
        if self.dsn is not None:
            return self.dsn
        value = os.environ.get(str(self.dsn_env))
        if not value:
            raise DeshiError(f"The environment variable {self.dsn_env} is not set, expected the database's address.")
        return value


def _table(query: str, frame: pl.DataFrame) -> Table:
    return Table(f"The answer of data.source.{query}", frame, range(1, frame.height + 1), frame.columns, unit="row")


def _ask(dsn: str, query: str) -> pl.DataFrame:
    """The answer to ``query`` as a typed frame, read in chunks."""
    names: list[str] = []
    chunks: list[pl.DataFrame] = []
    with _cursor(dsn) as (cursor, errors):
        try:
            cursor.execute(query)
            if cursor.description is None:
                raise DeshiError(f"The query {query!r} gives no rows, expected a SELECT.")
            names = [column[0] for column in cursor.description]
            while rows := cursor.fetchmany(CHUNK):
                chunks.append(_frame(rows, names))
        except errors as error:
            raise DeshiError(f"{hide_password(dsn)} refused the query {query!r}: {error}") from error
    if not chunks:
        return pl.DataFrame(schema={name: pl.String for name in names})
    try:
        return pl.concat(chunks, how="vertical_relaxed")
    except pl.exceptions.PolarsError:  # a column whose type changes on the way
        binary = {name for name in names if any(chunk[name].dtype == pl.Binary for chunk in chunks)}
        return pl.concat([chunk.select(_uniform(chunk[name], name in binary) for name in names) for chunk in chunks])


def _uniform(column: pl.Series, is_binary: bool) -> pl.Series:
    """A column as texts, or as bytes."""
    if not is_binary:
        return column.cast(pl.String)
    return column if column.dtype == pl.Binary else column.cast(pl.String).cast(pl.Binary)


def _frame(rows: Sequence[Sequence[Any]], names: list[str]) -> pl.DataFrame:
    """Rows as a frame; a column whose values don't agree on a type becomes text."""
    columns = {}
    for name, values in zip(names, zip(*rows, strict=True), strict=True):
        try:
            columns[name] = pl.Series(name, values, strict=True)
        except (TypeError, pl.exceptions.PolarsError):
            columns[name] = _text(name, values)
        if columns[name].dtype == pl.Object:
            columns[name] = _text(name, values)
    return pl.DataFrame(columns)


def _text(name: str, values: Sequence[Any]) -> pl.Series:
    """Values of several types as texts; as bytes if some are, so that they are no ids."""
    if any(isinstance(value, bytes) for value in values):
        encoded = [value if value is None or isinstance(value, bytes) else str(value).encode() for value in values]
        return pl.Series(name, encoded, pl.Binary)
    return pl.Series(name, [None if value is None else text_of(value) for value in values], pl.String)


def _is_postgres(dsn: str) -> bool:
    return dsn.startswith(("postgresql:", "postgres:")) or re.match(r"\w+\s*=", dsn) is not None


@contextmanager
def _cursor(dsn: str) -> Iterator[tuple[Any, type[Exception]]]:
    """A cursor of the database and the class of its errors."""
    if _is_postgres(dsn):
        psycopg = POSTGRES.load()
        try:
            connection = psycopg.connect(dsn, connect_timeout=10)
        except psycopg.Error as error:
            raise DeshiError(f"{hide_password(dsn)} can't be reached: {error}") from error
        connection.read_only = True
        with connection, connection.cursor(name="deshi") as cursor:
            cursor.itersize = CHUNK
            yield cursor, psycopg.Error
        return
    path = Path(dsn.removeprefix("sqlite:///")).expanduser()
    if not path.exists():
        raise DeshiError(f"{path} does not exist, expected a SQLite file. Check data.source.dsn.")
    base = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        yield base.cursor(), sqlite3.Error
    finally:
        base.close()


def _digest(frame: pl.DataFrame) -> str:
    """A sha256 of the answer's columns and rows in their order."""
    digest = hashlib.sha256(str(dict(frame.schema)).encode())
    unwritable = [name for name, dtype in frame.schema.items() if dtype.is_nested() or dtype == pl.Binary]
    for part in frame.iter_slices(CHUNK):
        part = part.with_columns(pl.Series(name, [str(value) for value in part[name].to_list()]) for name in unwritable)
        digest.update(part.write_csv().encode())
    return digest.hexdigest()


def hide_password(dsn: str) -> str:
    """A database address without its password."""
    return _PASSWORD.sub(lambda match: f"{match[1]}:***@" if match[1] else f"{match[2]}***", dsn)
