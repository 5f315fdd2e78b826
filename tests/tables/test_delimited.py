"""Text tables: both readers agree, and every line is a row, malformed, blank, continued or the first one."""

from __future__ import annotations

import gzip
import random
from pathlib import Path
from typing import Any

import pytest

from deshi.tables import TableFormat, column_names, read_table
from deshi.tables import _delimited as delimited
from deshi.types import DeshiError

SIGNS = [
    "a",
    "b",
    '"',
    ",",
    "\n",
    "\r\n",
    "é",
    "1",
    ".",
    " ",
    "\\",
    '""',
    "\t",
    "\r",
    "\0",
    '"x"',
    '"a,b"',
    '"a\nb"',
    "\ufeff",
]
WEIGHTS = [6, 6, 2, 10, 8, 4, 1, 4, 1, 1, 0.3, 1, 1, 0.1, 0.05, 3, 4, 2, 0.1]


def content(rows: delimited.Rows) -> tuple[Any, ...]:
    return rows.frame.rows(), list(rows.lines), rows.malformed, rows.blank, rows.continued


def random_table(generator: random.Random, n_columns: int) -> str:
    """Signs in any order, or rows that are mostly well formed."""
    if generator.random() < 0.5:
        return "".join(generator.choices(SIGNS, WEIGHTS, k=generator.randint(1, 40)))
    rows = []
    for _ in range(generator.randint(1, 6)):
        fields = []
        for _ in range(n_columns if generator.random() < 0.9 else generator.randint(1, 5)):
            text = "".join(generator.choices(["a", "1", " ", "é", '"', ",", "\n", "\\"], k=generator.randint(0, 3)))
            fields.append('"' + text.replace('"', '""') + '"' if generator.random() < 0.5 else text)
        rows.append(",".join(fields))
    return generator.choice(["\n", "\r\n"]).join(rows) + generator.choice(["", "\n"])


@pytest.mark.parametrize("block", range(4))
def test_both_readers_agree_and_lose_no_line(block: int) -> None:
    """The fast reader may only answer where it gives what the reader by line gives, for any bytes."""
    n_fast = 0
    for seed in range(block * 1000, block * 1000 + 1000):
        generator = random.Random(seed)
        names = tuple("wxyz"[: generator.randint(1, 4)])
        has_header = generator.random() < 0.7
        data = (",".join(names) + "\n" if has_header else "").encode() + random_table(generator, len(names)).encode()
        if generator.random() < 0.05:
            data = data.replace(b"a", b"\xe9", 1)
        layout = delimited.Layout(",", generator.choice(['"', '"', None]), names, has_header, names[:1])
        fast, slow = (read(data, layout, names) for read in (delimited._read_by_polars, delimited._read_by_line))
        assert slow is not None
        n_lines = data.count(b"\n") + (not data.endswith(b"\n"))
        parts = (slow.frame.height, len(slow.malformed), slow.blank, slow.continued, has_header)
        assert sum(parts) == n_lines, (seed, data)
        if fast is not None:
            n_fast += 1
            assert content(fast) == content(slow), (seed, data)
    assert n_fast > 50


def test_an_unbalanced_quote_costs_its_line(tmp_path: Path) -> None:
    """A quote that never closes must not swallow the rows behind it."""
    lines = ["user_id,item_id,timestamp", *(f"u{n % 4},i{n % 9},{n}" for n in range(84))]
    lines[40] = 'u1,"Heroes,39'
    path = tmp_path / "a.csv"
    path.write_text("\n".join(lines) + "\n")
    table = read_table(path)
    assert table.frame.height == 83
    assert [(line, reason) for line, reason, _ in table.malformed] == [(41, "a quote opens that isn't closed")]
    assert read_table(path, form=TableFormat(quote=None)).frame["item_id"][39] == '"Heroes'


def test_tabs_have_no_quotes(tmp_path: Path) -> None:
    """In a tab-separated file a quote is a sign as any other."""
    path = tmp_path / "a.tsv"
    path.write_text('user_id\titem_id\nu1\t"Heroes\nu2\tx\n')
    assert read_table(path).frame["item_id"].to_list() == ['"Heroes', "x"]


@pytest.mark.parametrize(
    ("text", "rows", "malformed", "blank"),
    [
        ("a,b\r\n1,2\r\n\r\n3,4\r\n", 2, [], 1),
        ("a,b\r1,2\r3,4\r", 2, [], 0),
        ("a,b\n1,2\n,\n3,4", 2, [], 1),
        ("a,b\n1\n1,2,3\n3,4\n", 1, [2, 3], 0),
        ('a,b\n"x\ny",2\n3,4\n', 1, [2], 0),
        ("a,b\n1\x002,3\n3,4\n", 1, [2], 0),
        ("a,b\n", 0, [], 0),
        ('a,b\n"q\\"q",2\n', 1, [], 0),
    ],
    ids=["crlf", "cr", "separators only", "ragged", "line break in an id", "nul", "header only", "escaped quote"],
)
def test_every_line_is_accounted_for(tmp_path: Path, text: str, rows: int, malformed: list[int], blank: int) -> None:
    """Rows, malformed lines with their numbers, and empty lines are what the text holds."""
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode())
    table = read_table(path, ["a", "b"])
    assert (table.frame.height, [line for line, *_ in table.malformed], table.blank) == (rows, malformed, blank)


def test_long_fields_are_read(tmp_path: Path) -> None:
    """Python's csv module stops at 131,072 signs; reviews are longer."""
    path = tmp_path / "a.csv"
    path.write_text('item_id,text\ni1,"' + "x" * 300_000 + '"\n')
    assert read_table(path).frame["text"].str.len_chars()[0] == 300_000


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "shift_jis"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    """A mark in the file or the encoding's name gives the same ids; the first column's name has no mark."""
    word = "品" if encoding == "shift_jis" else "Café"
    path = tmp_path / "a.csv"
    path.write_bytes(f"item_id,n\n{word},1\n".encode(encoding))
    form = TableFormat(encoding="utf-8" if encoding.startswith("utf") else encoding)
    assert read_table(path, form=form).frame.rows() == [(word, "1")]


def test_another_encoding_is_noticed(tmp_path: Path) -> None:
    """A byte that is no UTF-8 must be neither replaced nor merged with another id."""
    path = tmp_path / "a.csv"
    path.write_bytes(b"item_id,title\ni0,Caf\xe9\ni1,x\n")
    table = read_table(path)
    assert table.malformed[0][:2] == (2, "not valid text in its encoding")
    assert table.frame["item_id"].to_list() == ["i1"]
    path.write_bytes(b"item_id,titl\xe9\ni0,x\n")
    with pytest.raises(DeshiError, match="encoding"):
        read_table(path)


@pytest.mark.parametrize(("separator", "written"), [("tab", "\t"), ("\\t", "\t"), (";", ";"), ("::", "::"), ("|", "|")])
def test_separators(tmp_path: Path, separator: str, written: str) -> None:
    """Tab by its name, and separators of several signs."""
    path = tmp_path / "a.txt"
    path.write_text(written.join(["a", "b"]) + "\n" + written.join(["1", "x y"]) + "\n")
    assert read_table(path, form=TableFormat(separator)).frame.rows() == [("1", "x y")]


def test_names_of_columns(tmp_path: Path) -> None:
    """Columns of one name are refused, also two without a name; files without a first line take names."""
    path = tmp_path / "a.csv"
    path.write_text("a,b,a\n1,2,3\n")
    with pytest.raises(DeshiError, match="several columns called a"):
        read_table(path)
    assert read_table(path, form=TableFormat(columns=["x", "y", "z"])).frame.height == 2
    path.write_text(",,b\n1,2,3\n")
    with pytest.raises(DeshiError, match="several columns"):
        column_names(path)


def test_brackets_are_no_pattern(tmp_path: Path) -> None:
    """Polars takes [1] and * of a name for a pattern and would read another file."""
    for ending, text in (("csv", "item_id\n{}\n"), ("jsonl", '{{"item_id": "{}"}}\n')):
        (tmp_path / f"e[1].{ending}").write_text(text.format("right"))
        (tmp_path / f"e1.{ending}").write_text(text.format("wrong"))
        assert read_table(tmp_path / f"e[1].{ending}").frame["item_id"].to_list() == ["right"]


def test_gzip(tmp_path: Path) -> None:
    """Several members are one text; a file that was cut off is refused by a sentence, not half read."""
    path = tmp_path / "a.csv.gz"
    data = gzip.compress(b"a,b\n1,2\n") + gzip.compress(b"3,4\n")
    path.write_bytes(data)
    assert read_table(path).frame.height == 2
    for cut in (10, 20, len(data) - 3):
        path.write_bytes(data[:cut])
        with pytest.raises(DeshiError, match="damaged or truncated"):
            read_table(path)
