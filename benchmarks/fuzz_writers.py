"""Random tables of events, and writers of them in many forms, for `fuzz_tables.py`."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import polars as pl

EPOCH = datetime(1970, 1, 1)
TEXT_IDS = [
    "a",
    "B7",
    "é",
    "日本",
    "😀x",
    "a b",
    "x,y",
    'q"q',
    "it's",
    "00012",
    "3.0",
    "-",
    "a;b",
    "a|b",
    "a::b",
    "x/y",
    "\\n",
]
NUMBERS = [0, 1, 7, 42, -3, 2**31, 2**53 - 1, 2**53 + 1, 2**63 - 1, 10**12]


@dataclass
class Event:
    """A row: its ids as values, and its time in milliseconds or as a position; None where it is missing."""

    user: Any
    item: Any
    moment: int | None
    rating: float | None


@dataclass
class LogicalTable:
    """What all files of a seed say, and how they say times."""

    events: list[Event]
    time_form: str
    text_ids: bool
    note: str | None
    names: tuple[str, str, str, str]


@dataclass
class Expected:
    """What prepare must make of a file."""

    histories: dict[str, list[tuple[str, int]]]
    n_malformed: int
    n_lines: int
    titles: dict[str, str] | None = None
    refusable: bool = False


@dataclass
class Written:
    """A file or a frame with the arguments that it is read by."""

    expected: Expected
    source: dict[str, Any]
    path: Path | None = None
    frame: Any = None
    items: Any = None
    ids_path: Path | None = None
    can_recommend: bool = True
    history_arguments: Callable[[], tuple[Any, ...]] = field(default=tuple)

    def n_lines(self) -> int:
        """Rows of a frame, a parquet file or an array; lines of a text, its header left out."""
        if self.path is None:
            return int(self.frame.height)
        data = self.path.read_bytes()
        if self.path.suffix == ".parquet":
            return int(pl.scan_parquet(data).select(pl.len()).collect().item())
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        marked = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        text = data.decode("utf-16" if marked else "latin-1").removeprefix("\u00ef\u00bb\u00bf")
        if self.is_json and text[:64].lstrip().startswith("["):
            return len(json.loads(data.decode("utf-8-sig")))
        if "\n" not in text:
            text = text.replace("\r", "\n")
        return text.count("\n") + (not text.endswith("\n")) - (not self.is_json)

    @property
    def is_json(self) -> bool:
        """Whether the file holds records."""
        return self.path is not None and ".csv" not in self.path.name and ".tsv" not in self.path.name


TIMES: dict[str, tuple[str, str | None]] = {
    "s": ("auto", None), "ms": ("auto", None), "us": ("auto", None), "ns": ("auto", None),
    "position": ("position", None),
    "iso": ("auto", None), "iso zone": ("iso", None), "blank utc": ("auto", None), "date": ("date", None),
    "dotted": ("auto", "%d.%m.%Y %H:%M:%S"), "american": ("auto", "%m/%d/%Y %I:%M:%S %p"),
    "minutes": ("auto", "%Y%m%d%H%M"), "days": ("auto", "%Y%m%d"), "row": ("row", None), "typed": ("auto", None),
}  # fmt: skip
"""How times are written, with the ``time_unit`` and ``time_format`` that read them."""


def logical_table(generator: random.Random) -> LogicalTable:
    """Events of a few users on a few items; some ids and times are missing."""
    time_form = generator.choice(list(TIMES))
    n_users, n_items = generator.randint(1, 4), generator.randint(1, 6)
    kinds = [generator.choice(["text", "text", "number", "float", "long"]) for _ in range(2)]
    users, items = ([_id(kind, generator) for _ in range(n)] for kind, n in zip(kinds, (n_users, n_items), strict=True))
    missing = generator.choice([0, 0, 0, 0.1])
    events: list[Event] = []
    for _ in range(generator.choice([1, 2, 5, 8, 12, 30])):
        user, item = generator.choice(users), generator.choice(items)
        moment: int | None = _moment(time_form, generator, len(events))
        if generator.random() < missing:
            user, item, moment = generator.choice([(None, item, moment), (user, None, moment), (user, item, None)])
        events.append(Event(user, item, moment, generator.choice([None, 1.0, 2.5, 5.0])))
        if generator.random() < 0.05:
            events.append(events[-1])
    if time_form == "row":
        for event in events:
            event.moment = 0
    text = generator.choice([None, None, "plain", "with, comma", 'with "quotes"', "two\nlines", "x" * 200_000])
    if text is not None and len(text) > 1000 and generator.random() < 0.9:
        text = "<br> &amp; é"
    names = generator.choice(
        [
            ("user_id", "item_id", "timestamp", "rating"),
            ("uid", "sku", "t", "stars"),
            ("利用者", "品", "when it was", "r"),
        ]
    )
    return LogicalTable(events, time_form, "text" in kinds, text, names)


def _id(kind: str, generator: random.Random) -> Any:
    if kind == "text":
        return generator.choice(TEXT_IDS) + str(generator.randint(0, 99))
    if kind == "long":
        return "id" * 100 + str(generator.randint(0, 99))
    number = generator.choice([generator.randint(0, 50), generator.choice(NUMBERS)])
    return float(abs(number) % 10**15) if kind == "float" else number


def _moment(form: str, generator: random.Random, row: int) -> int:
    if form == "position":
        return generator.randint(0, 50)
    seconds = generator.randint(1_500_000_000, 1_700_000_000)
    if form in ("date", "days"):
        seconds -= seconds % 86_400
    if form == "minutes":
        seconds -= seconds % 60
    fraction = generator.randint(0, 999) if form in ("ms", "us", "ns", "iso") else 0
    return seconds * 1000 + fraction


def id_of(value: Any) -> str | None:
    """The id that any reader must give for a value."""
    if value is None:
        return None
    if isinstance(value, float | Decimal):
        return str(int(value))
    return str(value).strip() or None


def _number_or_text(form: str, moment: int | None) -> int | str | None:
    """A time as the form writes it."""
    if moment is None or form == "row":
        return None
    if form in ("position", "ms"):
        return moment
    if form in ("s", "us", "ns"):
        return moment // 1000 if form == "s" else moment * {"us": 1000, "ns": 1_000_000}[form]
    when = EPOCH + timedelta(milliseconds=moment)
    if form in ("iso", "typed"):
        return when.isoformat(timespec="milliseconds")
    if form == "iso zone":
        return (
            when.replace(tzinfo=timezone.utc).astimezone(timezone(timedelta(hours=moment // 1000 % 10 - 5))).isoformat()
        )
    patterns = {
        "blank utc": "%Y-%m-%d %H:%M:%S UTC", "date": "%Y-%m-%d", "dotted": "%d.%m.%Y %H:%M:%S",
        "american": "%m/%d/%Y %I:%M:%S %p", "minutes": "%Y%m%d%H%M", "days": "%Y%m%d",
    }  # fmt: skip
    text = when.strftime(patterns[form])
    return int(text) if form in ("minutes", "days") else text


def _expected(table: LogicalTable, n_extra: int = 0) -> Expected:
    """The histories by user, users in any order; equal times keep the rows' order."""
    histories: dict[str, list[tuple[str, int]]] = {}
    n_malformed = n_extra
    for row, event in enumerate(table.events):
        user, item = id_of(event.user), id_of(event.item)
        if user is None or item is None or (event.moment is None and table.time_form != "row"):
            n_malformed += 1
            continue
        histories.setdefault(user, []).append((item, row if table.time_form == "row" else event.moment or 0))
    for events in histories.values():
        events.sort(key=lambda event: event[1])
    refusable = not any(len(events) > 1 for events in histories.values())
    return Expected(histories, n_malformed, len(table.events) + n_extra, refusable=refusable)


def _source(table: LogicalTable) -> dict[str, Any]:
    user, item, timestamp, rating = table.names
    unit, form = TIMES[table.time_form]
    when = None if table.time_form == "row" else timestamp
    source = {"user": user, "item": item, "timestamp": when, "rating": rating, "time_unit": unit}
    return source if form is None else {**source, "time_format": form}


def _records(table: LogicalTable) -> list[dict[str, Any]]:
    user, item, timestamp, rating = table.names
    rows = []
    for event in table.events:
        row = {user: event.user, item: event.item, timestamp: _number_or_text(table.time_form, event.moment)}
        rows.append({**row, rating: event.rating} | ({} if table.note is None else {"note": table.note}))
    if table.time_form == "row":
        for row in rows:
            del row[timestamp]
    return rows


def _finish(table: LogicalTable, written: Written) -> Written:
    from deshi.data.histories import HistoryColumns
    from deshi.tables import TableFormat

    source, form = written.source, None
    if written.path is not None:
        form = TableFormat(source.get("separator"), source.get("encoding", "utf-8"), source.get("quote", "auto"))
    columns = HistoryColumns(
        user=source["user"], item=source["item"], timestamp=source["timestamp"], time_format=source.get("time_format")
    )
    written.history_arguments = lambda: (columns, form)
    return written


def write_csv(table: LogicalTable, folder: Path, generator: random.Random) -> Written | None:
    """A text table with any separator, quoting, encoding, line end, empty lines, and lines that are no rows."""
    separator = generator.choice([",", ",", ";", "\t", "|", "::"])
    ending = generator.choice(["\n", "\n", "\r\n"])
    records = _records(table)
    names = list(records[0])
    lines = [_line(names, separator, generator)]
    for record in records:
        fields = [
            "" if value is None else id_of(value) if name in table.names[:2] else str(value)
            for name, value in record.items()
        ]
        lines.append(_line([str(value) for value in fields], separator, generator))
    if any(line is None for line in lines):
        return None
    texts = [str(line) for line in lines]
    n_extra = 0
    if generator.random() < 0.2:
        n_extra = _spoil(texts, separator, len(names), generator)
    for _ in range(generator.choice([0, 0, 0, 2])):
        texts.insert(generator.randint(1, len(texts)), "")
    content = ending.join(texts) + (ending if generator.random() < 0.8 else "")
    encoding = generator.choice(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1252", "shift_jis", "latin-1"])
    try:
        data = content.encode(encoding)
        if data.decode(encoding) != content:
            return None
    except UnicodeError:
        encoding, data = "utf-8", content.encode()
    path = folder / f"events[{generator.randint(0, 9)}].{'tsv' if separator == chr(9) else 'csv'}"
    source = _source(table) | {"encoding": encoding}
    if separator not in (",", "\t"):
        source["separator"] = separator
    if separator == "\t":
        source["separator"] = generator.choice(["tab", "\\t", "\t"])
    expected = _expected(table, n_extra)
    written = Written(expected, source, _write(path, data, generator))
    written.ids_path = _ids_file(expected, folder, generator)
    return _finish(table, written)


def _line(fields: list[str], separator: str, generator: random.Random) -> str | None:
    """The fields of a line, quoted where they must be and sometimes elsewhere; None if they can't be written."""
    can_quote = separator not in ("\t", "::")
    if not can_quote:
        return None if any(separator in text or "\n" in text for text in fields) else separator.join(fields)
    buffer = io.StringIO()
    quotes_all = generator.choice([False, False, True])
    rule: Literal[0, 1] = csv.QUOTE_ALL if quotes_all else csv.QUOTE_MINIMAL
    csv.writer(buffer, delimiter=separator, quoting=rule).writerow(fields)
    return buffer.getvalue().removesuffix("\r\n")


def _spoil(lines: list[str], separator: str, n_columns: int, generator: random.Random) -> int:
    """Add lines that are no rows; their number."""
    kind = generator.choice(["short", "long", "quote", "separators"])
    if kind == "separators":  # a row without any value counts as empty
        lines.insert(generator.randint(1, len(lines)), separator * (n_columns - 1))
        return 0
    bad = {
        "short": "only",
        "long": separator.join(["x"] * (n_columns + 2)),
        "quote": '"open' + separator * (n_columns - 1),
    }
    if kind == "quote" and (separator in ("\t", "::") or any('"' in line for line in lines)):
        kind = "short"
    if n_columns == 1:
        return 0
    lines.insert(generator.randint(1, len(lines)), bad[kind])
    return 1


def _write(path: Path, data: bytes, generator: random.Random) -> Path:
    """Write plain, or with gzip as one or two members."""
    if generator.random() < 0.15:
        middle = len(data) // 2
        parts = [data] if generator.random() < 0.5 else [data[:middle], data[middle:]]
        path = path.with_name(path.name + ".gz")
        data = b"".join(gzip.compress(part, 1) for part in parts)
    path.write_bytes(data)
    return path


def _ids_file(expected: Expected, folder: Path, generator: random.Random) -> Path | None:
    """All items, an id a line."""
    items = {item for events in expected.histories.values() for item, _ in events}
    if not items:
        return None
    path = folder / "ids.txt"
    text = "\n".join(f" {item} " if generator.random() < 0.1 else item for item in items)
    path.write_text(text, encoding=generator.choice(["utf-8", "utf-8-sig"]))
    return path


def write_jsonl(table: LogicalTable, folder: Path, generator: random.Random) -> Written:
    """A record a line, with any spacing and escapes, missing fields, and lines that are no records."""
    ascii_only, spacing = generator.random() < 0.5, generator.choice([(", ", ": "), (",", ":"), (" , ", " : ")])
    records = _without_nulls(table, generator)
    lines = [json.dumps(record, ensure_ascii=ascii_only, separators=spacing) for record in records]
    n_extra = 0
    if generator.random() < 0.15:
        lines.insert(
            generator.randint(0, len(lines)), generator.choice(["{", "[1]", "null", '"text"', "not JSON", "{'a': }"])
        )
        n_extra = int(not lines[0].startswith("["))
        if not n_extra:
            lines[0], n_extra = "null", 1
    if generator.random() < 0.1:
        lines.insert(generator.randint(0, len(lines)), "")
    ending = generator.choice(["\n", "\n", "\r\n"])
    data = (ending.join(lines) + (ending if generator.random() < 0.8 else "")).encode()
    data = (b"\xef\xbb\xbf" if generator.random() < 0.1 else b"") + data
    path = folder / f"events*{generator.randint(0, 9)}.{generator.choice(['jsonl', 'ndjson', 'json'])}"
    expected = _expected(table, n_extra)
    written = Written(expected, _source(table), _write(path, data, generator))
    written.items, written.expected = None, _with_titles(expected, written, folder, generator)
    return _finish(table, written)


def _without_nulls(table: LogicalTable, generator: random.Random) -> list[dict[str, Any]]:
    """The records; all but the first lack some of the fields that are null."""
    first, *others = _records(table)
    return [first, *({k: v for k, v in row.items() if v is not None or generator.random() < 0.5} for row in others)]


def _with_titles(expected: Expected, written: Written, folder: Path, generator: random.Random) -> Expected:
    """An item table of some of the items beside the events, in any form."""
    items = sorted({item for events in expected.histories.values() for item, _ in events})
    if not items or generator.random() < 0.7:
        return expected
    titles = {
        item: f"Title {number}, é" for number, item in enumerate(items) if number == 0 or generator.random() < 0.7
    }
    frame = pl.DataFrame({"item_id": list(titles), "title": list(titles.values())})
    ending = generator.choice(["csv", "jsonl", "parquet"])
    path = folder / f"items.{ending}"
    writers: dict[str, Callable[[Path], Any]] = {
        "csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet
    }  # fmt: skip
    writers[ending](path)
    written.source["items_path"] = str(path)
    expected.titles = titles
    return expected


def write_array(table: LogicalTable, folder: Path, generator: random.Random) -> Written:
    """One JSON array of records."""
    records = _without_nulls(table, generator)
    path = folder / "array.json"
    data = json.dumps(records, indent=generator.choice([None, 2]), ensure_ascii=False).encode()
    written = Written(_expected(table), _source(table), _write(path, data, generator))
    return _finish(table, written)


def _frame(table: LogicalTable, generator: random.Random) -> pl.DataFrame:
    """A typed frame, its columns of one of the types that hold the values."""
    records = _records(table)
    columns = []
    for name in records[0]:
        values = [record[name] for record in records]
        columns.append(_column(table, name, values, generator))
    return pl.DataFrame(columns)


def _column(table: LogicalTable, name: str, values: list[Any], generator: random.Random) -> pl.Series:
    series = (
        pl.Series(name, values, strict=False)
        if any(v is not None for v in values)
        else pl.Series(name, values, pl.String)
    )
    if name == table.names[2] and table.time_form == "typed":
        series = series.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit=generator.choice(["ms", "us", "ns"]))
        return (
            series.dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo")
            if generator.random() < 0.3
            else series
        )
    if name not in table.names[:2]:
        return series
    if series.dtype == pl.String:
        return series.cast(generator.choice([pl.String, pl.String, pl.Categorical]))
    if series.dtype == pl.Float64 and generator.random() < 0.3:
        return series.cast(pl.Int64)
    if series.dtype == pl.Int64:
        types: list[Any] = [pl.Int64, pl.Int64, pl.Int128, pl.Decimal(38, 2), pl.String]
        if all(abs(value) < 2**31 for value in series.drop_nulls()):
            types += [pl.Int32, pl.Float64, pl.UInt64 if (series.drop_nulls() >= 0).all() else pl.Int32]
        return series.cast(generator.choice(types))
    return series


def write_parquet(table: LogicalTable, folder: Path, generator: random.Random) -> Written:
    """A parquet file of any type that holds the values; sometimes a column of ids is of a type that holds none."""
    frame, expected = _frame(table, generator), _expected(table)
    if generator.random() < 0.05:
        name = generator.choice([column for column in frame.columns if column != "note"])
        others = [pl.concat_list(name), pl.struct(name), pl.col(name).cast(pl.String).cast(pl.Binary), pl.lit(None)]
        frame = frame.with_columns(generator.choice(others).alias(name))
        if name != table.names[3] or frame[name].dtype != pl.Null:  # without any rating the table is a good one
            expected.refusable, expected.histories = True, {}
    path = folder / "events?.parquet"
    frame.write_parquet(path, compression=generator.choice(["zstd", "snappy", "uncompressed"]))
    written = Written(expected, _source(table), path)
    if expected.refusable and not expected.histories:
        written.can_recommend = False
    else:
        written.expected = _with_titles(expected, written, folder, generator)
    return _finish(table, written)


def write_frame(table: LogicalTable, folder: Path, generator: random.Random) -> Written:
    """A frame in memory."""
    return _finish(table, Written(_expected(table), _source(table), frame=_frame(table, generator)))


def mutate(path: Path, generator: random.Random) -> None:
    """Damage a file: cut it off, change, add, repeat or remove some bytes."""
    data = bytearray(path.read_bytes())
    for _ in range(generator.choice([1, 1, 3, 20])):
        position = generator.randrange(len(data) + 1)
        kind = generator.choice(["cut", "change", "add", "repeat", "remove"])
        if kind == "cut":
            del data[position:]
        elif kind == "change" and position < len(data):
            data[position] = generator.randrange(256)
        elif kind == "add":
            data[position:position] = generator.choice([b'"', b"\n", b"\0", b",", b"\xff", b"{", b"]", b"\r", b"\\"])
        elif kind == "repeat":
            data[position:position] = data[position : position + generator.randint(1, 50)]
        else:
            del data[position : position + generator.randint(1, 10)]
    path.write_bytes(bytes(data))


FORMS: dict[str, Callable[[LogicalTable, Path, random.Random], Written | None]] = {
    "csv": write_csv, "jsonl": write_jsonl, "array": write_array, "parquet": write_parquet, "frame": write_frame,
}  # fmt: skip
