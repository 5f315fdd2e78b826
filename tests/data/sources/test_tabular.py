"""Tables of the user's own: formats, column mapping, units of time."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from deshi.data.raw import BadRows
from deshi.data.sources.tabular import Tabular
from deshi.tables.times import detect_unit, to_timestamps
from deshi.testing.sources import SourceContract
from deshi.types import DeshiError

MOMENT = 1_577_934_245_000  # 2020-01-02 03:04:05 UTC
ROWS = [("ann, b.", "x", MOMENT, 2.0), ("bob", "y", MOMENT, None), ("ann, b.", "y", MOMENT + 1000, 0.5)]
MAPPING: dict[str, Any] = {"user": "who", "item": "what", "timestamp": "when", "rating": "stars"}


def frame() -> pl.DataFrame:
    """The rows as a table with other names and a column that is not wanted."""
    table = pl.DataFrame(ROWS, schema=["who", "what", "when", "stars"], orient="row")
    return table.with_columns(pl.col("when") // 1000).select("when", "what", pl.lit(1).alias("other"), "who", "stars")


class TestCsv(SourceContract):
    expected, file, titles = ROWS, "events.csv", None
    broken = ("1577934245,z,1", 5, "1577934245,z,1")

    def write(self, folder: Path, broken: str | None = None) -> None:
        (folder / self.file).write_text(frame().write_csv() + (f"{broken}\n" if broken else ""))

    def source(self, path: Path) -> Tabular:
        return Tabular(str(path / self.file if path.is_dir() else path), **MAPPING)

    def test_quoted_line_breaks_keep_line_numbers(self, tmp_path: Path) -> None:
        """A row may span lines; the error names the line where the bad one begins."""
        text = 'who,what,when,stars,note\na,x,1577934245,1,"good,\nindeed"\n\nc,,1577934245,1,\n'
        (tmp_path / self.file).write_text(text)
        with pytest.raises(DeshiError, match="line 5: no item id"):
            self.load(tmp_path)

    def test_text_that_is_not_utf8(self, tmp_path: Path) -> None:
        """The wrong encoding is a malformed row with its line, and can be set."""
        (tmp_path / self.file).write_bytes("who,what,when,stars\nJos\xe9,x,1577934245,1\n".encode("latin-1"))
        with pytest.raises(DeshiError, match="line 2: not valid text in its encoding"):
            self.load(tmp_path)
        read = Tabular(str(tmp_path / self.file), **MAPPING, encoding="latin-1").load(tmp_path)
        assert read.interactions["user_id"].to_list() == ["Jos\xe9"]


class TestTsvGz(TestCsv):
    file, broken = "events.tsv.gz", ("1577934245\tz", 5, "1577934245\\tz")
    test_quoted_line_breaks_keep_line_numbers = test_text_that_is_not_utf8 = None  # type: ignore

    def write(self, folder: Path, broken: str | None = None) -> None:
        text = frame().write_csv(separator="\t") + (f"{broken}\n" if broken else "")
        (folder / self.file).write_bytes(gzip.compress(text.encode()))


class TestJsonl(SourceContract):
    expected, file, titles = ROWS, "events.jsonl", None
    broken = ('{"who": null, "what": "x", "when": 1577934245}', 4, "1577934245")

    def write(self, folder: Path, broken: str | None = None) -> None:
        lines = [json.dumps(row) for row in frame().to_dicts()] + ([broken] if broken else [])
        (folder / self.file).write_text("\n".join(lines) + "\n")

    def source(self, path: Path) -> Tabular:
        return Tabular(str(path / self.file if path.is_dir() else path), **MAPPING)


def test_parquet(tmp_path: Path) -> None:
    """Typed columns need no parsing; the row number stands for the line number."""
    frame().write_parquet(tmp_path / "events.parquet")
    source = Tabular(str(tmp_path / "events.parquet"), **MAPPING)
    assert source.load(tmp_path).interactions.rows() == ROWS
    bad = pl.concat([frame(), frame().head(1).with_columns(who=pl.lit(None, pl.String))])
    bad.write_parquet(tmp_path / "events.parquet")
    with pytest.raises(DeshiError, match=r"row numbers\), line 4: no user id"):
        source.load(tmp_path)
    assert source.load(tmp_path, BadRows("skip", 1)).bad_rows.skipped == 1
    (tmp_path / "events.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DeshiError, match="can't be read as parquet"):
        source.load(tmp_path)


def test_parquet_with_dates_and_float_ids(tmp_path: Path) -> None:
    """Datetime columns need no unit; ids that a join made floats lose their point."""
    table = pl.DataFrame({"user_id": [1.0, 2.0], "item_id": [3, 4], "timestamp": [MOMENT, MOMENT]})
    table.with_columns(pl.col("timestamp").cast(pl.Datetime("ms"))).write_parquet(tmp_path / "a.parquet")
    assert Tabular(str(tmp_path / "a.parquet")).load(tmp_path).interactions.rows() == [
        ("1", "3", MOMENT),
        ("2", "4", MOMENT),
    ]


def test_positions_and_row_order(tmp_path: Path) -> None:
    """Published benchmark files often have a position, or only their order, instead of times."""
    (tmp_path / "a.tsv").write_text("user\titem\tposition\n1\t9\t0\n1\t8\t1\n")
    by_position = Tabular(str(tmp_path / "a.tsv"), "user", "item", "position", time_unit="position").load(tmp_path)
    by_row = Tabular(str(tmp_path / "a.tsv"), "user", "item", None, time_unit="row").load(tmp_path)
    assert by_position.time_unit == by_row.time_unit == "position"
    assert by_position.interactions.rows() == by_row.interactions.rows()
    assert by_position.interactions["timestamp"].to_list() == [0, 1]
    with pytest.raises(DeshiError, match="time_unit=row"):
        Tabular(str(tmp_path / "a.tsv"), "user", "item", None)


def test_item_table(tmp_path: Path) -> None:
    """Items may come in any of the formats, with chosen or all text columns."""
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp\n1,9,1577934245\n")
    (tmp_path / "items.csv").write_text('id,name,brand,size\n9,"Soap, red",Q,\n8, ,R,2\n')
    source = Tabular(str(tmp_path / "a.csv"), items_path=str(tmp_path / "items.csv"), items_id="id", items_title="name")
    items = source.load(tmp_path).items
    assert items is not None and items.columns == ["item_id", "title", "brand", "size"]
    assert items.rows() == [("9", "Soap, red", "Q", None), ("8", None, "R", "2")]
    pl.read_csv(tmp_path / "items.csv").write_parquet(tmp_path / "items.parquet")
    typed = Tabular(
        str(tmp_path / "a.csv"), items_path=str(tmp_path / "items.parquet"), items_id="id", items_title="name",
        items_text=["brand"],
    ).load(tmp_path).items  # fmt: skip
    assert typed is not None and typed.equals(items.drop("size"))
    with (tmp_path / "items.csv").open("a") as handle:
        handle.write("9,again,,\n")
    with pytest.raises(DeshiError, match=r"items\.csv, line 4: item id 9 was given before"):
        source.load(tmp_path)


def test_byte_order_mark(tmp_path: Path) -> None:
    """Spreadsheets put an invisible mark before the first column's name."""
    (tmp_path / "a.csv").write_text('\ufeff"user_id",item_id,timestamp\n1,9,1577934245\n', encoding="utf-8")
    assert Tabular(str(tmp_path / "a.csv")).load(tmp_path).interactions.rows() == [("1", "9", MOMENT)]


def test_missing_column_names_what_is_there(tmp_path: Path) -> None:
    """The mapping is the first thing a user gets wrong."""
    (tmp_path / "a.csv").write_text("uid,item_id,timestamp\n1,9,1577934245\n")
    with pytest.raises(DeshiError, match="no column user_id; it has uid, item_id, timestamp"):
        Tabular(str(tmp_path / "a.csv")).load(tmp_path)


def test_unknown_format(tmp_path: Path) -> None:
    """A name that tells nothing needs a separator."""
    (tmp_path / "events.log").write_text("user_id;item_id;timestamp\n1;9;1577934245\n")
    with pytest.raises(DeshiError, match="data.source.separator"):
        Tabular(str(tmp_path / "events.log")).load(tmp_path)
    assert Tabular(str(tmp_path / "events.log"), separator=";").load(tmp_path).interactions.height == 1


@pytest.mark.parametrize(
    ("text", "unit"),
    [("1577934245", "s"), ("1577934245.0", "s"), ("1577934245000", "ms"), ("1577934245000123", "us"),
     ("1577934245000123456", "ns"), ("2020-01-02T03:04:05Z", "iso"), ("2020-01-02 03:04:05", "iso"),
     ("2020-01-02T04:04:05+01:00", "iso"), ("2020-01-02T05:04:05+0200", "iso"), ("2020-01-02 03:04:05.000", "iso")],
)  # fmt: skip
def test_every_unit_gives_the_same_moment(text: str, unit: str) -> None:
    """One moment in every usual notation, with the unit given and found."""
    assert to_timestamps(pl.Series("t", [text]), unit).to_list() == [MOMENT]
    assert to_timestamps(pl.Series("t", [text]), "auto").to_list() == [MOMENT]


def test_dates_and_fractions() -> None:
    """A date is its midnight; fractions of a second are kept to the millisecond."""
    assert to_timestamps(pl.Series(["2020-01-02", "2020-1-x", ""]), "date").to_list() == [
        MOMENT - 11_045_000,
        None,
        None,
    ]
    assert to_timestamps(pl.Series(["1577934245.25", "7"]), "s").to_list() == [MOMENT + 250, 7000]


@pytest.mark.parametrize(
    ("values", "unit"),
    [(["-1"], "s"), (["nan"], "s"), (["inf"], "ms"), ([""], "s"), (["1577934245000"], "s"), (["1.5"], "position"),
     (["-1"], "position"), ([None], "ms"), (["99999999999999999999"], "ns")],
)  # fmt: skip
def test_times_that_are_none(values: list[str | None], unit: str) -> None:
    """Negative, absurd and unreadable times are null, hence malformed rows."""
    assert to_timestamps(pl.Series("t", values, dtype=pl.String), unit).to_list() == [None]


@pytest.mark.parametrize("values", [["1577934245", "1577934245000"], ["1", "2"], ["0", "1577934245"]])
def test_auto_refuses_mixed_units(values: list[str]) -> None:
    """Guessing would put events a thousand years apart without a word."""
    with pytest.raises(DeshiError, match="Set data.source.time_unit"):
        detect_unit(pl.Series("t", values))


def test_unknown_unit() -> None:
    """A typo lists what there is."""
    with pytest.raises(DeshiError, match="expected one of auto, s, ms"):
        Tabular("a.csv", time_unit="seconds")


def test_a_file_without_a_first_line(tmp_path: Path) -> None:
    """Without names the first row would be lost; the error says how to give them."""
    (tmp_path / "a.csv").write_text("1,9,1577934245\n2,9,1577934245\n")
    with pytest.raises(DeshiError, match=r"first line seems to be data.*columns="):
        Tabular(str(tmp_path / "a.csv")).load(tmp_path)
    read = Tabular(str(tmp_path / "a.csv"), columns=["user_id", "item_id", "timestamp"]).load(tmp_path)
    assert read.interactions.rows() == [("1", "9", MOMENT), ("2", "9", MOMENT)]


def test_item_table_of_another_form(tmp_path: Path) -> None:
    """The item table often comes from another program: its separator, encoding and columns are its own."""
    (tmp_path / "a.tsv").write_text('user_id\titem_id\ttimestamp\n1\t"9\t1577934245\n')
    (tmp_path / "items.csv").write_bytes('"9;Caf\xe9, "red"\n'.encode("cp1252"))
    form = {"separator": ";", "encoding": "cp1252", "quote": None, "columns": ["item_id", "title"]}
    raw = Tabular(str(tmp_path / "a.tsv"), separator="tab", items_path=str(tmp_path / "items.csv"), items_format=form)
    items = raw.load(tmp_path).items
    assert items is not None and items.rows() == [('"9', 'Caf\xe9, "red"')]
    with pytest.raises(DeshiError, match="items_format has no 'seperator'. Nearest valid keys: separator"):
        Tabular("a.csv", items_format={"seperator": ";"})


def test_html_entities_are_decoded_and_counted(tmp_path: Path) -> None:
    """Shop exports escape titles as for a page; a text teacher should read what a person reads."""
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp\n1,9,1577934245\n")
    (tmp_path / "items.csv").write_text("item_id,title,brand\n9,Tom &amp; Jerry&#39;s,A&amp;B\n8,AT&T,\n")
    raw = Tabular(str(tmp_path / "a.csv"), items_path=str(tmp_path / "items.csv")).load(tmp_path)
    assert raw.items is not None and raw.items.rows() == [("9", "Tom & Jerry's", "A&B"), ("8", "AT&T", None)]
    assert "were decoded in the texts of 1 items" in raw.bad_rows.notes[0]


def test_binary_columns_are_no_texts(tmp_path: Path) -> None:
    """A picture in the item table is left out with a sentence, a title of bytes is refused."""
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp\n1,9,1577934245\n")
    table = pl.DataFrame({"item_id": [9], "title": ["x"], "picture": [b"\xff"]})
    table.write_parquet(tmp_path / "items.parquet")
    source = {"path": str(tmp_path / "a.csv"), "items_path": str(tmp_path / "items.parquet")}
    raw = Tabular(**source).load(tmp_path)  # type: ignore[arg-type]
    assert raw.items is not None and raw.items.columns == ["item_id", "title"]
    assert "picture left out" in raw.bad_rows.notes[0]
    with pytest.raises(DeshiError, match="'picture' holds Binary, expected texts"):
        Tabular(**source, items_title="picture").load(tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize("blob", [b"9", 9, "9"])
def test_nested_and_binary_ids_are_refused(tmp_path: Path, blob: Any) -> None:
    """Bytes, lists and records are no ids."""
    table = pl.DataFrame({"user_id": [1], "item_id": [blob], "timestamp": [MOMENT]})
    nested = [table] if isinstance(blob, bytes) else [
        table.with_columns(pl.struct("item_id").alias("item_id")), table.with_columns(pl.concat_list("item_id"))
    ]  # fmt: skip
    for number, frame in enumerate(nested):
        frame.write_parquet(tmp_path / f"{number}.parquet")
        with pytest.raises(DeshiError, match="The column 'item_id' holds .*expected one id a row"):
            Tabular(str(tmp_path / f"{number}.parquet")).load(tmp_path)


@pytest.mark.parametrize("ending", ["csv.gz", "zip"])
def test_truncated_files(tmp_path: Path, ending: str) -> None:
    """A download that was cut off is an error in one line, not a traceback, and never fewer rows."""
    (tmp_path / "a.csv").write_text(
        "user_id,item_id,timestamp\n" + "".join(f"{user * 7919 % 9973},9,1577934245\n" for user in range(5000))
    )
    content = (tmp_path / "a.csv").read_bytes()
    if ending == "zip":
        with zipfile.ZipFile(tmp_path / "whole.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.csv", content)
        packed = bytearray((tmp_path / "whole.zip").read_bytes())
        packed[2000:2010] = b"0123456789"
    else:
        packed = bytearray(gzip.compress(content)[:-100])
    (tmp_path / f"b.{ending}").write_bytes(packed)
    with pytest.raises(DeshiError, match=r"(damaged or truncated|can't be unpacked)"):
        Tabular(str(tmp_path / f"b.{ending}")).load(tmp_path)
