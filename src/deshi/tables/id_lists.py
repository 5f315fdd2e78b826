"""Lists of ids in a column: of parquet, JSON and data frames, and as texts of many forms."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass

import numpy as np
import polars as pl

from deshi.arrays import Ints
from deshi.tables.values import id_text, ids
from deshi.types import DeshiError

NO_LIST = "not a whole list of ids"
_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_DELIMITED = r"""(?s)^(?:\[|array\(\[)|^\([^()]*\)$|^'.*'$|^".*"$"""
_INSIDE = r"""(?s)^(?:array\()?\[(.*)\](?:(?:, dtype=[^,()]+)?\))?$|^\(([^()]*)\)$|^('.*'|".*")$"""
_NUMPY = r"np\.\w+\(([^()]*)\)"
"""How numpy 2 writes a value inside a list: ``np.int64(3)``."""

_NULLS = ("None", "null", "nan", "NaN", "<NA>")
_REAL = re.compile(r"[-+]?\d+(\.\d*([eE][-+]?\d+)?|[eE][-+]?\d+)")


@dataclass(frozen=True, eq=False)
class IdLists:
    """Lists of ids, one behind the other.

    Attributes:
        values: the ids of all lists.
        lengths: ``(R,)`` number of each row's ids; 0 for missing and malformed lists.
        malformed: ``(R,)`` Boolean, rows with a text that is no whole list.
    """

    values: pl.Series
    lengths: Ints
    malformed: pl.Series


def id_lists(column: pl.Series, separator: str | None = None, keep_missing: bool = False) -> IdLists:
    """The lists of a column, their ids as :func:`deshi.tables.ids` has them.

    A text is ``3 5 8``, ``3, 5, 8``, or a list as JSON, Python and numpy write it: ``[3, 5]``, ``['a b', 'c']``.
    Numbers in brackets are numbers: ``[3.0]`` holds the id ``3``.

    Args:
        column: of lists or texts.
        separator: between the ids of a text without brackets; None: the comma if any of them has one, else blanks.
        keep_missing: whether a missing id stays in its list, as null.

    Raises:
        DeshiError: for values that are neither lists nor texts, and lists of lists.
    """
    if column.dtype == pl.Null:
        column = column.cast(pl.List(pl.String))
    if isinstance(column.dtype, pl.Array):
        column = column.arr.to_list()
    if column.dtype == pl.String:
        lists = _of_texts(column, separator)
    elif isinstance(column.dtype, pl.List):
        lists = IdLists(ids(_flat(column)), _lengths(column), pl.Series(np.zeros(len(column), dtype=bool)))
    else:
        raise DeshiError(
            f"The column {column.name!r} holds {column.dtype}, expected lists of item ids, or texts such as '3 5 8'."
        )
    return _cleaned(lists, keep_missing)


def _of_texts(texts: pl.Series, separator: str | None) -> IdLists:
    texts = texts.str.strip_chars().fill_null("")
    is_delimited = texts.str.contains(_DELIMITED)
    plain_texts = texts.set(is_delimited, None)
    if separator is None and plain_texts.str.contains(",", literal=True).any():
        separator = ","
    lists, is_whole = _split(plain_texts, separator), pl.Series([True]).new_from_index(0, len(texts))
    is_literal: np.ndarray = np.zeros(int(_lengths(lists).sum()), dtype=bool)
    if is_delimited.any():
        groups = texts.str.replace_all(_NUMPY, "${1}").str.extract_groups(_INSIDE).struct.unnest()
        content = pl.select(pl.coalesce(groups.get_columns())).to_series()
        has_commas = content.str.replace_all(_QUOTED, "").str.contains(",", literal=True).fill_null(False)
        entries, is_whole = _entries(content, ",")
        by_blanks, is_whole_by_blanks = _entries(content, None)
        entries, is_whole = entries.zip_with(has_commas, by_blanks), is_whole.zip_with(has_commas, is_whole_by_blanks)
        lists, is_whole = entries.zip_with(is_delimited, lists), is_whole | ~is_delimited
        is_literal = np.repeat(is_delimited.to_numpy(), _lengths(lists))
    return IdLists(ids(_literals(_flat(lists), is_literal)), _lengths(lists), ~is_whole)


def _entries(content: pl.Series, separator: str | None) -> tuple[pl.Series, pl.Series]:
    """The entries between brackets, and whether the text holds nothing else."""
    entry, ends = _patterns(separator)
    # Each entry becomes a mark: between two marks must be one separator, and nothing else may be left.
    marks = content.str.replace_all(entry, "x")
    is_whole = marks.str.contains(f"^[x{ends}]*$") & ~marks.str.contains(r"xx|,\s*,|^\s*,")
    is_whole = is_whole & ~content.str.contains(r"(?:^|[\s,])\.\.\.(?:$|[\s,])")
    return content.str.extract_all(entry), is_whole.fill_null(False)


def _patterns(separator: str | None) -> tuple[str, str]:
    """The pattern of an entry between brackets, and the signs that may stand between entries."""
    if separator is None:
        return rf"""{_QUOTED}|[^\s'"\[\]][^\s\[\]]*""", r"\s"
    sign = re.escape(separator)
    return rf"""{_QUOTED}|[^{sign}\s'"\[\]][^{sign}\[\]]*""", rf"{sign}\s"


def _split(texts: pl.Series, separator: str | None) -> pl.Series:
    if separator is None and not texts.str.contains(r"[^\S ]").any():
        separator = " "
    return texts.str.extract_all(r"\S+") if separator is None else texts.str.split(separator)


def _literals(entries: pl.Series, is_literal: np.ndarray) -> pl.Series:
    """The values of entries between brackets: quotes gone, numbers as ids, nulls as null."""
    literal = pl.Series(is_literal)
    quoted = entries.str.contains(r"^['\"]") & literal
    inner = entries.str.head(-1).str.slice(1)
    values = inner.zip_with(quoted, entries.set(literal & ~quoted & entries.is_in(_NULLS), None))
    special = literal & ((quoted & entries.str.contains("\\", literal=True)) | entries.str.contains(r"^[-+]?\d+[.eE]"))
    rows = special.fill_null(False).arg_true()
    return values.scatter(rows, [_literal(entry) for entry in entries.gather(rows)]) if len(rows) else values


def _literal(entry: str) -> str | None:
    """An entry with escapes, or a number with a fraction."""
    if entry[0] in "'\"":
        try:
            return str(json.loads(entry) if entry[0] == '"' else ast.literal_eval(entry))
        except (ValueError, SyntaxError):
            return entry[1:-1]
    return id_text(float(entry)) if _REAL.fullmatch(entry.strip()) else entry


def _flat(lists: pl.Series) -> pl.Series:
    return lists.explode(empty_as_null=False, keep_nulls=False)


def _lengths(lists: pl.Series) -> Ints:
    return lists.list.len().fill_null(0).to_numpy().astype(np.int64)


def _cleaned(lists: IdLists, keep_missing: bool) -> IdLists:
    """Lists without their missing ids, unless these are kept, and malformed lists without any."""
    values, lengths, malformed = lists.values, lists.lengths, lists.malformed.to_numpy()
    if (values.has_nulls() and not keep_missing) or malformed.any():
        rows = np.repeat(np.arange(len(lengths)), lengths)
        kept = ~malformed[rows]
        if not keep_missing:
            kept &= values.is_not_null().to_numpy()
        values, lengths = values.filter(pl.Series(kept)), np.bincount(rows[kept], minlength=len(lengths))
    return IdLists(values, lengths, lists.malformed)
