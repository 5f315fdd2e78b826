"""Files of events and predictions from any tool, as typed columns with line numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from deshi.configuration.targets import nearest
from deshi.tables import (
    Malformed,
    TableFormat,
    column_names,
    first_line_is_data,
    ids,
    numbers,
    read_table,
    to_timestamps,
)
from deshi.types import ITEM, TIMESTAMP, USER, DeshiError

USUAL = {"user": USER, "item": ITEM}
SHOWN = 5
"""Malformed rows that a message quotes."""


@dataclass(frozen=True)
class Names:
    """The columns' names in the files; None takes the usual name if the file has it.

    The names hold for all files that have none of their own in ``files``. Where one of them lacks the name for users or
    items but has the usual one, it is read by that.

    Attributes:
        user: column of user ids.
        item: column of item ids.
        timestamp: column of times or positions.
        score: column of scores.
        rank: column of ranks.
        higher_is_better: whether a greater score means a better item.
        separator: of text tables; None goes by the file's name.
        encoding: of text tables.
        files: what differs in single files, by ``interactions``, ``predictions``, ``test`` and ``train``.
    """

    user: str = USER
    item: str = ITEM
    timestamp: str | None = None
    score: str | None = None
    rank: str | None = None
    higher_is_better: bool = True
    separator: str | None = None
    encoding: str = "utf-8"
    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def of(self, key: str) -> Names:
        """The names of one file."""
        return replace(self, **self.files.get(key, {}))  # type: ignore[arg-type]

    @property
    def form(self) -> TableFormat:
        """How a text table is written."""
        return TableFormat(self.separator, self.encoding)


@dataclass(frozen=True, eq=False)
class Table:
    """A file that was read.

    Attributes:
        path: of the file.
        frame: ``line`` Int64; ``user``, ``item`` String; and, where the file has them, ``time`` (Int64 or Float64),
            ``score``, ``rank`` Float64. In the file's order.
        bad: how many malformed rows were left out.
        examples: the first of them with line, reason and content.
    """

    path: Path
    frame: pl.DataFrame
    bad: int
    examples: list[str]

    def location(self, line: int) -> str:
        """The name of one of its lines in a finding."""
        return f"{self.path.name} {'row' if self.path.suffix == '.parquet' else 'line'} {line}"


def read_events(path: Path, key: str, names: Names, limit: int) -> Table:
    """Read interactions, training data or held-out targets.

    Args:
        path: a table of a format that :func:`deshi.tables.read_table` knows.
        key: the setting that named the file, for messages.
        names: of its columns.
        limit: the largest number of malformed rows that are left out before it is an error.

    Raises:
        DeshiError: for a file that is missing, empty, of another kind, or lacks a column; too many malformed rows.
    """
    return _read(path, key, names, {"time": (names.of(key).timestamp, TIMESTAMP)}, limit)


def read_predictions(path: Path, names: Names, limit: int) -> Table:
    """Read predictions: as :func:`read_events`, with a score, a rank, or both."""
    key, columns = "predictions", names.of("predictions")
    table = _read(path, key, names, {"score": (columns.score, "score"), "rank": (columns.rank, "rank")}, limit)
    if not {"score", "rank"} & set(table.frame.columns):
        have = _header(path, key, columns)
        raise DeshiError(
            f"{path} has neither a column 'score' nor 'rank'; it has {', '.join(have)}. "
            f"Give its name: columns.score=COLUMN, or columns.rank=COLUMN."
        )
    return table


def _read(path: Path, key: str, names: Names, optional: Mapping[str, tuple[str | None, str]], limit: int) -> Table:
    explicit, names = names.files.get(key, {}), names.of(key)
    needed = {"user": names.user, "item": names.item}
    header = _header(path, key, names)
    # the files of a pair often come from different tools: where one lacks the configured name, it may have the usual
    columns = {
        role: USUAL[role] if role not in explicit and name not in header and USUAL[role] in header else name
        for role, name in needed.items()
    }
    for role, (name, usual) in optional.items():
        # targets and training data need no times, so a name that is meant for the interactions may be absent there
        required = key in ("interactions", "predictions") or name in explicit.values()
        if name is not None and (name in header or required):
            columns[role] = name
        elif usual in header:
            columns[role] = usual
    _check_columns(path, key, columns, header)
    raw, malformed = _rows(path, key, columns, names.form)
    try:
        typed = _typed(raw, columns)
    except DeshiError as error:
        raise DeshiError(f"{path} ({key}): {error}") from error
    reasons = typed["reason"]
    total = raw.height + len(malformed)
    bad = sorted(malformed + [(raw["line"][row], reasons[row], _shown(raw, row)) for row in
                              reasons.is_not_null().arg_true()])  # fmt: skip
    examples = [f"line {line}: {reason}: {content!r}" for line, reason, content in bad[:SHOWN]]
    if total == 0:
        raise DeshiError(f"{path} ({key}) is empty: it has no rows. Check that it is the right file.")
    if len(bad) > limit or len(bad) == total:
        raise DeshiError(
            f"{path} ({key}) has {len(bad):,} malformed rows of {total:,}, expected at most {limit}:\n  "
            + "\n  ".join(examples)
            + f"\nRepair the file, check the columns' names ({', '.join(columns.values())}), or raise max_bad_rows."
        )
    return Table(path, typed.filter(reasons.is_null()).drop("reason"), len(bad), examples)


def check_named(paths: Mapping[str, Path], names: Names) -> None:
    """Refuse names of users and items that none of the files has.

    Raises:
        DeshiError: with the columns that there are.
    """
    headers = {key: _header(path, key, names.of(key)) for key, path in paths.items()}
    for role, name in (("user", names.user), ("item", names.item)):
        if not any(name in header or role in names.files.get(key, {}) for key, header in headers.items()):
            have = "; ".join(f"{paths[key]} has {', '.join(header)}" for key, header in headers.items())
            near = nearest(name, sorted({column for header in headers.values() for column in header}), 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise DeshiError(f"No file has a column {name!r}: {have}.{hint} Give its name: columns.{role}=COLUMN.")


def _header(path: Path, key: str, names: Names) -> list[str]:
    return column_names(path, names.form, f"{path} ({key})")


def _check_columns(path: Path, key: str, columns: Mapping[str, str], header: Sequence[str]) -> None:
    for role, name in columns.items():
        if name in header:
            continue
        near = nearest(name, header, 1)
        setting = "timestamp" if role == "time" else role
        hint = f"Did you mean {near[0]!r}? " if near else ""
        if first_line_is_data(header):
            hint += "The first line seems to be data: the file needs a first line with the columns' names. "
        elif len(header) == 1 and any(sign in header[0] for sign in ";\t|"):
            hint += "The columns seem to be separated by another sign than the ending promises: set columns.separator. "
        raise DeshiError(
            f"{path} ({key}) has no column {name!r}; it has {', '.join(header)}. "
            f"{hint}Give its name: columns.{setting}=COLUMN."
        )


def _rows(path: Path, key: str, columns: Mapping[str, str], form: TableFormat) -> tuple[pl.DataFrame, list[Malformed]]:
    """``line`` and the columns under their roles, and rows that have not even the right number of fields."""
    table = read_table(path, list(columns.values()), form, f"{path} ({key})")
    roles = [table.frame[name].alias(role) for role, name in columns.items()]
    lines = pl.Series("line", table.lines, dtype=pl.Int64)
    return pl.DataFrame([lines, *roles]), list(table.malformed)


def _typed(raw: pl.DataFrame, columns: Mapping[str, str]) -> pl.DataFrame:
    """The columns in their types with ``reason``, null for a good row."""
    made = {"line": raw["line"]}
    wrong: list[tuple[pl.Expr, str]] = []
    for role in raw.columns[1:]:
        column = raw[role].alias(columns[role])  # the file's name, for messages
        if role in ("user", "item"):
            made[role] = column if column.dtype == pl.String else ids(column)
            made[f"{role}?"] = ids(column).is_null()
            wrong.append((pl.col(f"{role}?"), f"no {role} id"))
        elif role == "time":
            made[role] = _times(column)
            wrong.append((pl.col(role).is_null(), "no valid timestamp"))
        else:
            made[role] = numbers(column)
            # An empty field is how many tools write NaN, which is a finding and no malformed row.
            made[f"{role}?"] = _not_empty(column)
            wrong.append((pl.col(role).is_null() & pl.col(f"{role}?"), f"{role} is not a number"))
    frame = pl.DataFrame([series.alias(name) for name, series in made.items()])
    reasons = [pl.when(condition).then(pl.lit(text)) for condition, text in wrong]
    done = frame.with_columns(pl.coalesce(reasons).alias("reason"))
    filled = [pl.col(name).fill_null(float("nan")) for name in ("score", "rank") if name in done.columns]
    return done.with_columns(filled).select(pl.exclude("^.*[?]$"))


def _not_empty(column: pl.Series) -> pl.Series:
    text = column if column.dtype == pl.String else column.cast(pl.String)
    return (text.str.strip_chars() != "").fill_null(False)


def _times(column: pl.Series) -> pl.Series:
    """Whole numbers where all are whole; dates as milliseconds; null for what is neither."""
    if column.dtype.is_temporal():
        return to_timestamps(column, "ms")
    real = numbers(column)
    if column.dtype == pl.String:
        column = column.str.strip_chars()
    real = real.set(~real.is_finite().fill_null(False), None)
    if real.null_count() * 2 > len(real):
        return to_timestamps(column.cast(pl.String), "iso")
    whole = column.cast(pl.Int64, strict=False)
    if whole.null_count() == real.null_count():
        return whole
    return real


def _shown(raw: pl.DataFrame, row: int) -> str:
    return ",".join("" if value is None else str(value) for value in raw.row(row)[1:])
