"""Lists of ids: the same ids from every type of column and every form of text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from deshi.tables import _records as records
from deshi.tables import id_lists, read_table
from deshi.types import DeshiError


def lists_of(column: pl.Series, separator: str | None = None) -> list[list[str]]:
    """A list of ids for each row; none of them may be malformed."""
    lists = id_lists(column, separator)
    assert not lists.malformed.any()
    return [part.tolist() for part in np.split(lists.values.to_numpy(), np.cumsum(lists.lengths)[:-1])]


@pytest.mark.parametrize(
    ("texts", "separator", "expected"),
    [
        (["3 5  8", "", None, "4"], None, [["3", "5", "8"], [], [], ["4"]]),
        (["3, 5,8", "4"], None, [["3", "5", "8"], ["4"]]),
        (["a b, c", "d"], None, [["a b", "c"], ["d"]]),
        (["a,1 b,2"], " ", [["a,1", "b,2"]]),
        (["a|b ", "c"], "|", [["a", "b"], ["c"]]),
        (["[926, 38]", "[]", " [4] "], None, [["926", "38"], [], ["4"]]),
        (["[926 38\n 4]"], None, [["926", "38", "4"]]),
        (["(3, 4)", "(3,)"], None, [["3", "4"], ["3"]]),
        (["['a b', 'c,d']", '["x"]'], None, [["a b", "c,d"], ["x"]]),
        (["'a','b'", "'c'"], None, [["a", "b"], ["c"]]),
        ([r'["a\"b", "caf\u00e9"]', r"['it\'s']"], None, [['a"b', "café"], ["it's"]]),
        (["[3.0, 4e0, None, nan]", "['3.0']"], None, [["3", "4"], ["3.0"]]),
        (["3.0 4.0"], None, [["3.0", "4.0"]]),
        (["[np.int64(3), np.str_('a')]", "array([4], dtype=int32)"], None, [["3", "a"], ["4"]]),
        (['"Heroes i2', "(500) x (1)"], None, [['"Heroes', "i2"], ["(500)", "x", "(1)"]]),
        (["[Heroes' tale, b]"], None, [["Heroes' tale", "b"]]),
    ],
)
def test_texts(texts: list[str | None], separator: str | None, expected: list[list[str]]) -> None:
    """pandas, numpy, JSON and RecBole write a list in a text column each in its own form."""
    assert lists_of(pl.Series("items", texts), separator) == expected


@pytest.mark.parametrize("text", ["[1, 2", "[1, 2, ..., 9]", "[1 2 ... 9]", "[[1], [2]]", "['a'b]"])
def test_texts_that_are_no_whole_list_are_malformed(text: str) -> None:
    """Numpy leaves the middle of a long list out, and a cut-off line loses its end: neither may pass as a history."""
    lists = id_lists(pl.Series("items", [text, "[3]"]))
    assert lists.malformed.to_list() == [True, False] and lists.values.to_list() == ["3"]
    assert lists.lengths.tolist() == [0, 1]


@pytest.mark.parametrize(
    "values",
    [
        pl.Series("items", [[3.0, None, 5.0], None, []]),
        pl.Series("items", [[3, 5], [None], []]),
        pl.Series("items", [["3 ", "5", ""], [], None]),
        pl.Series("items", [[3.0, 5.0], [float("nan"), None], [None, None]], dtype=pl.Array(pl.Float64, 2)),
    ],
)
def test_typed_lists(values: pl.Series) -> None:
    """Lists with gaps are floats in parquet and data frames; their ids are those of the whole numbers."""
    assert lists_of(values) == [["3", "5"], [], []]


@pytest.mark.parametrize("values", [[3], [[[3]]], [[b"a"]]])
def test_other_values_are_refused(values: list[Any]) -> None:
    """A column of numbers is no column of lists."""
    with pytest.raises(DeshiError, match="The column 'items' holds"):
        id_lists(pl.Series("items", values))


LINES = ['{"u": "a", "items": [3, "x ", null]}', '{"u": 7, "items": null}', '{"u": "c"}', '{"items":[],"u":"d"}']
OTHERS = ['{"u": "e", "items": [4.0]}', '{"u": "e", "items": 4}', '{"u": "e, 3.5", "items": ["4"]}']


@pytest.mark.parametrize("line", ["", *OTHERS])
def test_both_readers_of_json_give_the_same_lists(line: str, tmp_path: Path) -> None:
    """Lists are read all at once where every line is simple; a single other line must not change the ids."""
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([*LINES, line]).strip())
    assert (records._read_by_polars(path, ["u", "items"], []) is None) == bool(line)
    table = read_table(path, ["u", "items"])
    expected = [["3", "x"], [], [], []] + ([["4"]] if line else [])
    assert lists_of(table.frame["items"]) == expected and table.frame["u"].to_list()[:4] == ["a", "7", "c", "d"]
