"""Files with one record per line: JSON, or Python literals as in the older Amazon and Steam files; plain or gzipped."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from deshi.data.raw import BadRowLog
from deshi.data.sources._files import open_bytes
from deshi.data.sources.columns import REASON, Columns, convert, good_rows, not_empty
from deshi.data.sources.slow_reader import SlowReader
from deshi.types import DeshiError

_PAIR = re.compile(
    r"""u?'(\w+)':\ (u?'(?:[^'\\]|\\.)*'|u?"(?:[^"\\]|\\.)*"|True|False|None|-?(?:0|[1-9]\d*)(?:\.\d+)?)(?:,\ |}\Z)"""
)
_CONSTANTS = {"True": True, "False": False, "None": None}


def read_interactions(path: Path, label: str, columns: Columns, log: BadRowLog) -> pl.DataFrame:
    """The interactions of a file of records in RawData's columns, in the file's order.

    Raises:
        DeshiError: for a damaged archive, or a malformed row that ``log`` refuses.
    """
    frame = _read_fast(path, columns.used)
    if frame is not None:
        converted = convert(frame, columns)
        if converted[REASON].null_count() == converted.height:
            return not_empty(good_rows(converted), label)
    return not_empty(_read_slowly(path, label, columns, log), label)


def _read_fast(path: Path, used: list[str]) -> pl.DataFrame | None:
    """The used fields as text, or None if Polars can't read the file: literals or a malformed line."""
    with open_bytes(path) as handle:
        try:
            head = handle.readline().lstrip()
        except (OSError, EOFError):
            return None
    if not head.startswith(b'{"'):
        return None
    try:
        return pl.read_ndjson(path, schema={name: pl.String for name in used})
    except (pl.exceptions.PolarsError, OSError):
        return None


def _read_slowly(path: Path, label: str, columns: Columns, log: BadRowLog) -> pl.DataFrame:
    reader = SlowReader(columns.used, ", ")
    for number, record in iterate_records(path, label, flat=True):
        if isinstance(record, str):
            reader.reject(number, "not a JSON object or Python dictionary", record)
        else:
            values = (record.get(name) for name in columns.used)
            reader.add(number, [None if value is None else str(value) for value in values])
    return reader.finish(columns, label, log)


def iterate_records(path: Path, label: str, flat: bool = False) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Every line's number (from 1) and its record, or its text if it has none; blank lines are left out.

    ``flat`` is a hint that records hold no lists or dictionaries, which makes Python literals faster to read.

    Raises:
        DeshiError: if the archive is damaged.
    """
    with open_bytes(path) as handle:
        try:
            for number, line in enumerate(handle, start=1):
                if text := line.decode("utf-8", errors="replace").strip():
                    yield number, parse_record(text, flat)
        except (OSError, EOFError) as error:
            raise DeshiError(f"{label} is a damaged archive ({error}). Fetch it again.") from error


def read_texts(path: Path, label: str, log: BadRowLog) -> tuple[pl.DataFrame, list[int]]:
    """All fields of a file of records as text, and the line of each record."""
    rows, lines = [], []
    for number, record in iterate_records(path, label):
        if isinstance(record, str):
            log.add(label, number, "not a JSON object or Python dictionary", record)
        else:
            rows.append({name: text_of(value) for name, value in record.items()})
            lines.append(number)
    names = dict.fromkeys(name for row in rows for name in row)
    return pl.DataFrame(rows, schema={name: pl.String for name in names}), lines


def parse_record(text: str, flat: bool = False) -> dict[str, Any] | str:
    """One line as a dictionary, or ``text`` itself if it is none. Nothing is ever executed."""
    record: Any = None
    if text.startswith(("{'", "{u'")):
        record = (_flat_literal(text) if flat else None) or _literal(text)
    else:
        try:
            record = json.loads(text)
        except ValueError:
            record = _literal(text)
    return record if isinstance(record, dict) else text


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


def text_of(value: Any) -> str:
    """A metadata value as one line of text: nested lists joined, HTML and dictionaries left as they are."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return " ".join(text_of(entry) for entry in value if entry)
    return " ".join(str(value).split())
