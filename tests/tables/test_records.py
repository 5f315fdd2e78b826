"""Files of records: both readers give the same ids, and every line is accounted for."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from deshi.tables import _records as records
from deshi.tables import ids, numbers, read_table
from deshi.tables._delimited import Rows
from deshi.types import DeshiError

TEXTS = ["a", " a ", "é", "", "nan", "3", "3.0", 'q"q', "l\nl", "\\", "\u2028", "null", "😀", "1e5"]
VALUES = [3.0, 2.5, 1e20, -0.0, 2**53 + 1, 2**63, -(2**63), 1.7e18, None, True, [1, "a"], {"k": 1}]
LINES = ["", "{", "null", "[1]", '{"u":1,"u":2,"i":3}', "{'u': 3.0}", '{"u": NaN}', '{"u":"\\ud800"}', '{"u":1.}']


def random_records(generator: random.Random) -> bytes:
    lines = []
    odd = generator.random() < 0.4
    for _ in range(generator.randint(1, 5)):
        choices: list[list[Any]] = [TEXTS, [0, 1, 2, 3], VALUES if odd else [0]]
        record = {name: generator.choice(generator.choice(choices)) for name in "uit" if generator.random() < 0.9}
        spacing = generator.choice([(", ", ": "), (",", ":"), (" , ", " : ")])
        line = json.dumps(record, ensure_ascii=generator.random() < 0.3, separators=spacing)
        lines.append(generator.choice(LINES) if odd and generator.random() < 0.1 else line)
    return (generator.choice(["\n", "\r\n"]).join(lines) + generator.choice(["", "\n"])).encode()


def meaning(rows: Rows) -> str:
    """Ids and numbers as the commands read them."""
    frame = rows.frame
    try:
        columns = [ids(frame["u"]).to_list(), ids(frame["i"]).to_list(), numbers(frame["t"]).to_list()]
    except DeshiError as error:
        columns = [[str(error)]]
    return repr((columns, list(rows.lines), rows.malformed, rows.blank))


def test_both_readers_agree_and_lose_no_line() -> None:
    """3 and 3.0, escapes, repeated names and damaged lines must not depend on which reader took the file."""
    n_fast = 0
    for seed in range(1500):
        data = random_records(random.Random(seed))
        if not data.strip() or data.lstrip().startswith(b"["):
            continue
        slow = records._read_by_line(data, ["u", "i", "t"], ["t"], "x", False)
        n_lines = data.count(b"\n") + (not data.endswith(b"\n"))
        assert slow.frame.height + len(slow.malformed) + slow.blank == n_lines, data
        if fast := records._read_by_polars(data, ["u", "i", "t"], ["t"]):
            n_fast += 1
            assert meaning(fast) == meaning(slow), data
    assert n_fast > 250


@pytest.mark.parametrize("suffix", ["", '{"item_id": "damaged"\n', '{ "item_id": 4}\n'])
def test_one_id_for_a_number(tmp_path: Path, suffix: str) -> None:
    """A damaged line or a blank behind the brace switches readers, and must not change the ids of other lines."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"item_id": 3}\n{"item_id": 3.0}\n{"item_id": "3"}\n{"item_id": 2.5}\n' + suffix)
    assert ids(read_table(path, ["item_id"]).frame["item_id"]).to_list()[:4] == ["3", "3", "3", "2.5"]


@pytest.mark.parametrize(
    "text", ['[{"item_id": 3.0, "n": 1}, {"item_id": "x"}, 5]', '{"item_id": 3.0}\n{"item_id": "x"}\n5\n']
)
def test_arrays_and_lines(tmp_path: Path, text: str) -> None:
    """A JSON array is the same table as its records a line."""
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    table = read_table(path, ["item_id"])
    assert ids(table.frame["item_id"]).to_list() == ["3", "x"]
    assert [line for line, *_ in table.malformed] == [3]


def test_another_encoding_is_noticed(tmp_path: Path) -> None:
    """Two ids of another encoding must not become one."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"item_id": "x\xe9"}\n{"item_id": "x\xe8"}\n{"item_id": "y"}\n')
    table = read_table(path, ["item_id"])
    assert (table.frame.height, len(table.malformed)) == (1, 2)


def test_a_damaged_array_is_refused(tmp_path: Path) -> None:
    """An array that was cut off holds no whole table."""
    path = tmp_path / "a.json"
    path.write_text('[{"item_id": 1}, {"item_id"')
    with pytest.raises(DeshiError, match="no JSON array"):
        read_table(path)


def test_numbers_beyond_the_first_rows(tmp_path: Path) -> None:
    """A field that is text after thousands of numbers keeps both."""
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"item_id": {n}}}\n' for n in range(3000)) + '{"item_id": "x"}\n')
    table = read_table(path, ["item_id"])
    assert table.frame["item_id"].dtype == pl.String
    assert table.frame["item_id"].to_list()[-2:] == ["2999", "x"]
