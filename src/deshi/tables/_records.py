"""Files of records: JSON a line, a JSON array, or Python literals as in the older Amazon and Steam files."""

from __future__ import annotations

import ast
import io
import json
import re
from array import array
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from deshi.tables._bytes import chunks, numbered_lines
from deshi.tables._delimited import BATCH, Rows
from deshi.tables.values import id_text, text_of
from deshi.types import DeshiError

Record = dict[str, Any]
_PAIR = re.compile(
    r"""u?'(\w+)':\ (u?'(?:[^'\\]|\\.)*'|u?"(?:[^"\\]|\\.)*"|True|False|None|-?(?:0|[1-9]\d*)(?:\.\d+)?)(?:,\ |}\Z)"""
)
_HALF_SIGN = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD])[c-fC-F])"
)
"""An escape for half of a surrogate pair, for which Polars writes a NUL."""

_CONSTANTS = {"True": True, "False": False, "None": None}
NO_RECORD = "not a JSON object or Python dictionary"


def read_rows(source: Path | bytes, used: Sequence[str], numeric: Sequence[str], label: str, as_texts: bool) -> Rows:
    """The fields ``used`` of a file of records, see :func:`deshi.tables.read_table`; ``as_texts`` joins lists."""
    rows = None if as_texts else _read_by_polars(source, used, numeric)
    return rows or _read_by_line(source, used, numeric, label, as_texts)


def field_names(source: Path | bytes, label: str) -> list[str]:
    """The names of the first 1,000 records' fields."""
    records = islice(iterate_records(source, Rows(pl.DataFrame(), []), label), 1000)
    return list(dict.fromkeys(name for _, record in records for name in record))


def _read_by_polars(source: Path | bytes, used: Sequence[str], numeric: Sequence[str]) -> Rows | None:
    """All rows at once; None for literals, for values whose text Polars writes in another way, and damaged lines."""
    if any("." in name for name in used):
        return None
    lists = _names_of_lists(source, used)
    # Polars writes 3.0 and true as texts of its own, inner lists and records as JSON: those are read by line.
    others = [re.compile(_values_of(lists) + rb"(?!\s|\[|null)|[\[,]\s*(?:-?\d+[.eE]|[tf{\[])")] if lists else []
    for name in used:
        if name not in lists and name not in numeric:
            others.append(re.compile(_values_of([name]) + rb'(?:[^\s"\dn-]|-?\d+[.eE])'))
    # What is no number is none in either reader, so that only lists are looked for in columns of numbers.
    single = [name for name in numeric if name not in lists]
    inner = re.compile(_values_of(single) + rb"\[") if single else None
    n_lines = 0
    for number, piece in enumerate(chunks(source)):
        if number == 0 and not re.match(rb'\s*\{\s*"', piece):
            return None
        if any(other.search(piece) for other in others) or _HALF_SIGN.search(piece):
            return None
        if inner is not None and b"[" in piece and inner.search(piece):
            return None
        n_lines += piece.count(b"\n") + (not piece.endswith(b"\n"))
    try:
        # A name would be read as a pattern of names, bytes are not.
        content = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
        with content:
            types = {name: pl.List(pl.String) if name in lists else pl.String() for name in used}
            frame = pl.read_ndjson(content, schema=types)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
        return None
    return Rows(frame, range(1, n_lines + 1)) if frame.height == n_lines else None


def _values_of(names: Sequence[str]) -> bytes:
    """The pattern of what stands before the values of fields."""
    pattern = b"|".join(re.escape(name.encode()) for name in names)
    return b'"' + (pattern if len(names) == 1 else b"(?:" + pattern + b")") + rb'"\s*:\s*'


def _names_of_lists(source: Path | bytes, used: Sequence[str]) -> list[str]:
    """The fields that are lists where they stand first."""
    first = next(chunks(source), b"")
    values = {name: re.search(_values_of([name]) + rb"([^\s])", first) for name in used}
    return [name for name, match in values.items() if match is not None and match[1] == b"["]


def _read_by_line(
    source: Path | bytes, used: Sequence[str], numeric: Sequence[str], label: str, as_texts: bool
) -> Rows:
    lines = array("q")
    columns: dict[str, list[Any]] = {name: [] for name in used}
    rows = Rows(pl.DataFrame(), lines)
    batches: list[pl.DataFrame] = []
    for number, record in iterate_records(source, rows, label, flat=not as_texts):
        try:
            values = [_number(record.get(name)) if name in numeric else _value(record, name, as_texts) for name in used]
        except DeshiError as error:
            rows.malformed.append((number, str(error), str(record)))
            continue
        lines.append(number)
        for name, value in zip(used, values, strict=True):
            columns[name].append(value)
        if len(lines) % BATCH == 0:
            batches.append(_frame(columns))
            columns = {name: [] for name in used}
    batches.append(_frame(columns))
    rows.frame = _joined(batches)
    return rows


def _number(value: Any) -> Any:
    """The text of a number or a time as it stands, so that one that can't be read is noticed later; a list of them."""
    if isinstance(value, list):
        return [None if entry is None else str(entry) for entry in value]
    return None if value is None else str(value)


def _value(record: Record, name: str, as_texts: bool) -> Any:
    """The text of a field, or the texts of a list; ``a.b`` is the field ``b`` of every record in the list ``a``.

    With ``as_texts``, lists and records are one text.
    """
    value = record.get(name)
    if as_texts and isinstance(value, list | dict):
        return text_of(value)
    if value is None and "." in name:
        outer, _, inner = name.partition(".")
        value = record.get(outer)
        value = [entry.get(inner) for entry in value] if isinstance(value, list) else value
    return [id_text(entry) for entry in value] if isinstance(value, list) else id_text(value)


def _frame(columns: dict[str, list[Any]]) -> pl.DataFrame:
    series = []
    for name, values in columns.items():
        has_lists = any(isinstance(value, list) for value in values)
        if has_lists:
            values = [value if value is None or isinstance(value, list) else [value] for value in values]
        series.append(pl.Series(name, values, pl.List(pl.String) if has_lists else pl.String))
    return pl.DataFrame(series)


def _joined(batches: list[pl.DataFrame]) -> pl.DataFrame:
    """Batches one below the other; a column that is a list in one of them is a list in all."""
    lists = [name for name in batches[0].columns if any(batch[name].dtype == pl.List for batch in batches)]
    same = []
    for batch in batches:
        single = [name for name in lists if batch[name].dtype == pl.String]
        wrapped = [pl.when(pl.col(name).is_not_null()).then(pl.concat_list(name)).alias(name) for name in single]
        same.append(batch.with_columns(wrapped))
    return pl.concat(same)


def iterate_records(source: Path | bytes, rows: Rows, label: str, flat: bool = False) -> Iterator[tuple[int, Record]]:
    """Every record with its line's number; empty and malformed lines are counted in ``rows``.

    ``flat`` is a hint that records hold no lists or dictionaries, which makes Python literals faster to read.
    A file that begins with ``[`` is one JSON array, whose records are numbered from 1.
    """
    if next(chunks(source), b"")[:64].lstrip().startswith(b"["):
        yield from _array(source, rows, label)
        return
    for number, line in numbered_lines(source):
        try:
            text = line.decode().strip()
        except UnicodeDecodeError:
            rows.malformed.append((number, "not valid text in its encoding", line.decode(errors="replace")))
            continue
        record = parse_record(text, flat) if text else None
        if isinstance(record, dict) and "\\ud" in text.lower() and _has_half_signs(record):
            rows.malformed.append((number, "half of a surrogate pair, which is no text", text))
        elif isinstance(record, dict):
            yield number, record
        elif text:
            rows.malformed.append((number, NO_RECORD, text))
        else:
            rows.blank += 1


def _array(source: Path | bytes, rows: Rows, label: str) -> Iterator[tuple[int, Record]]:
    try:
        records = json.loads(source if isinstance(source, bytes) else source.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DeshiError(
            f"{label} begins with [ but is no JSON array ({error}). Repair it, or write a record a line."
        ) from error
    for number, record in enumerate(records, start=1):
        if isinstance(record, dict):
            yield number, record
        else:
            rows.malformed.append((number, NO_RECORD, str(record)))


def parse_record(text: str, flat: bool = False) -> Record | str:
    """One line as a dictionary, or ``text`` itself if it is none. Nothing is ever executed."""
    record: Any = None
    if text.startswith(("{'", "{u'")):
        record = (_flat_literal(text) if flat else None) or _literal(text)
    else:
        try:
            record = json.loads(text, object_pairs_hook=_first_values)
        except (ValueError, RecursionError):
            record = _literal(text)
    return record if isinstance(record, dict) else text


def _first_values(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The first value of a repeated name, as Polars takes it."""
    record = dict(pairs)
    return record if len(record) == len(pairs) else dict(reversed(pairs))


def _has_half_signs(record: Record) -> bool:
    return re.search("[\ud800-\udfff]", json.dumps(record, ensure_ascii=False)) is not None


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _flat_literal(text: str) -> dict[str, Any] | None:
    """A dictionary of plain values read pair by pair, or None if the line isn't wholly made of those.

    About twice as fast as parsing the whole literal; a string with an escape is still left to Python.
    """
    record: dict[str, Any] = {}
    position = 1
    while position < len(text):
        pair = _PAIR.match(text, position)
        if pair is None:
            return None
        name, value = pair.groups()
        if value[-1] not in "'\"":
            record[name] = _CONSTANTS[value] if value in _CONSTANTS else float(value) if "." in value else int(value)
        elif "\\" in value:
            record[name] = _literal(value)
            if record[name] is None:
                return None
        else:
            record[name] = value[2:-1] if value[0] == "u" else value[1:-1]
        position = pair.end()
    return record
