"""Tables in which a row is a history: lists of ids become events, and lists are never taken for ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from deshi.data.raw import BadRows, RawData
from deshi.data.sources import RecBole, Tabular
from deshi.data.sources._histories import Lists
from deshi.types import DeshiError

HISTORIES = {"u1": ["1", "2", "3", "4", "5"], "u2": ["3", "1", "2"]}
ORDER: dict[str, Any] = {"timestamp": None, "time_unit": "row"}


def prefixes(longest: int = 50) -> list[tuple[str, list[str], str]]:
    """Every beginning of the histories, cut to the latest items, with the item that came next."""
    return [
        (user, items[max(0, end - longest) : end], items[end])
        for user, items in HISTORIES.items()
        for end in range(1, len(items))
    ]


def histories(raw: RawData) -> dict[str, list[str]]:
    """The items of each user in the order of time."""
    frame = raw.interactions.sort("timestamp", maintain_order=True)
    return {user: frame.filter(user_id=user)["item_id"].to_list() for user in frame["user_id"].unique()}


def recbole(folder: Path, name: str, rows: list[tuple[str, list[str], str]]) -> None:
    lines = [f"{user}\t{' '.join(items)}\t{target}" for user, items, target in rows]
    (folder / f"{name}.inter").write_text(
        "\n".join(["user_id:token\titem_id_list:token_seq\titem_id:token", *lines, ""])
    )


@pytest.mark.parametrize("longest", [50, 3, 2])
def test_recbole_lists_in_three_files(tmp_path: Path, longest: int) -> None:
    """Training examples repeat each user's events; every event must be read once, those held out too."""
    rows = prefixes(longest)
    last = [row == len(rows) - 1 or rows[row + 1][0] != rows[row][0] for row in range(len(rows))]
    recbole(tmp_path, "x.train", [row for row, is_last in zip(rows, last, strict=True) if not is_last])
    recbole(tmp_path, "x.test", [row for row, is_last in zip(rows, last, strict=True) if is_last])
    (tmp_path / "x.item").write_text("item_id:token\ttitle:token_seq\n1\tOne\n")
    raw = RecBole(str(tmp_path), name=["x.train", "x.test"], **ORDER).load(tmp_path)
    assert histories(raw) == HISTORIES and raw.items is not None
    assert raw.bad_rows.rows == {"read": 6, "malformed": 0, "histories": 6, "events": 8, "blank": 0, "continued": 0}


def test_recbole_lists_need_the_order(tmp_path: Path) -> None:
    """A time of the target says nothing about the events before it."""
    recbole(tmp_path, "x", prefixes())
    with pytest.raises(DeshiError, match="timestamp=null time_unit=row"):
        RecBole(str(tmp_path)).load(tmp_path)


def test_recbole_list_as_the_item_is_refused(tmp_path: Path) -> None:
    """A list is no id."""
    (tmp_path / "x.inter").write_text("user_id:token\titem_id:token_seq\ttimestamp:float\nu\t1 2\t3\n")
    with pytest.raises(DeshiError, match="history=item_id"):
        RecBole(str(tmp_path)).load(tmp_path)


@pytest.mark.parametrize("write", [str, json.dumps, lambda items: "[" + " ".join(f"'{item}'" for item in items) + "]"])
@pytest.mark.parametrize("kind", [int, str])
def test_text_lists(tmp_path: Path, write: Any, kind: type) -> None:
    """Lists printed by Python, JSON and numpy in a csv file, of numbers and of texts."""
    rows = [(user, write([kind(item) for item in items]), target) for user, items, target in prefixes()]
    path = tmp_path / "x.csv"
    pl.DataFrame(rows, ["user_id", "history_item_id", "item_id"], orient="row").write_csv(path)
    assert histories(Tabular(str(path), history="history_item_id", **ORDER).load(tmp_path)) == HISTORIES
    with pytest.raises(DeshiError, match="holds lists such as .*data.source.history=history_item_id"):
        Tabular(str(path), item="history_item_id", **ORDER).load(tmp_path)


def test_line_of_items(tmp_path: Path) -> None:
    """S3Rec's and BERT4Rec's files: the user and all items of a line."""
    (tmp_path / "x.txt").write_text("".join(f"{user} {' '.join(items)}\n" for user, items in HISTORIES.items()))
    source = Tabular(
        str(tmp_path / "x.txt"), item=None, history="items", separator=" ", columns=["user_id", "items"], **ORDER
    )
    assert histories(source.load(tmp_path)) == HISTORIES


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_lists_of_a_type(tmp_path: Path, ending: str) -> None:
    """Lists of parquet and JSON, of numbers: ids without a fraction as elsewhere."""
    path = tmp_path / f"x.{ending}"
    rows = [(user, [float(item) for item in items]) for user, items in HISTORIES.items()]
    frame = pl.DataFrame(rows, ["user_id", "items"], orient="row")
    frame.write_parquet(path) if ending == "parquet" else frame.write_ndjson(path)
    assert histories(Tabular(str(path), item=None, history="items", **ORDER).load(tmp_path)) == HISTORIES
    with pytest.raises(DeshiError, match="holds lists"):
        Tabular(str(path), item="items", **ORDER).load(tmp_path)


def otto(folder: Path) -> Tabular:
    """Sessions with a time and a kind of each event."""
    sessions = [
        {"session": user, "events": [{"aid": int(item), "ts": 10**12 + int(item), "type": "a"} for item in items]}
        for user, items in HISTORIES.items()
    ]
    (folder / "x.jsonl").write_text("".join(json.dumps(session) + "\n" for session in sessions))
    return Tabular(
        str(folder / "x.jsonl"), user="session", item=None, history="events.aid", timestamp="events.ts", time_unit="ms"
    )


def test_sessions_with_times(tmp_path: Path) -> None:
    """OTTO's file: each event has its own time, which orders it."""
    raw = otto(tmp_path).load(tmp_path)
    assert histories(raw) == {user: sorted(items) for user, items in HISTORIES.items()}
    assert raw.time_unit == "ms" and raw.interactions["timestamp"].min() == 10**12 + 1


def test_lists_of_unequal_length(tmp_path: Path) -> None:
    """A session with a time too few can't be read, the others can."""
    path = tmp_path / "x.parquet"
    rows = [("a", [1, 2], [10**9, 10**9]), ("b", [1, 2], [10**9])]
    pl.DataFrame(rows, ["user_id", "items", "timestamp"], orient="row").write_parquet(path)
    source = Tabular(str(path), item=None, history="items", time_unit="s")
    with pytest.raises(DeshiError, match="line 2: 2 items, but 1 entries in timestamp"):
        source.load(tmp_path)
    raw = source.load(tmp_path, BadRows("skip", 1))
    assert raw.interactions.height == 2 and raw.bad_rows.rows["malformed"] == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [(("u1", ["1", "9"], "3"), "contradicts another row of user u1"), ((None, ["1"], "2"), "no user id"),
     (("u3", ["1", None], "2"), "no item id"), (("u3", [], None), "no item id")],
)  # fmt: skip
def test_rows_that_are_no_histories(tmp_path: Path, row: Any, reason: str) -> None:
    """A row that can't be true is malformed, and leaves the others as they are."""
    path = tmp_path / "x.parquet"
    schema: Any = {"user_id": pl.String, "items": pl.List(pl.String), "item_id": pl.String}
    pl.DataFrame([*prefixes(), row], schema, orient="row").write_parquet(path)
    source = Tabular(str(path), history="items", **ORDER)
    with pytest.raises(DeshiError, match=f"line 7: .*{reason}"):
        source.load(tmp_path)
    raw = source.load(tmp_path, BadRows("skip", 1))
    assert histories(raw) == HISTORIES
    assert raw.bad_rows.rows["read"] == raw.bad_rows.rows["histories"] + raw.bad_rows.rows["malformed"] == 7


@pytest.mark.parametrize("text", ["[3, 5]", "[3.0 5.0]", "('3', '5')", "[3, 5,]", "np.array([3, 5])"[3:]])
def test_brackets_are_read_whatever_the_separator(text: str) -> None:
    """The separator is that of plain texts: a list in brackets says itself what stands between its ids."""
    for separator in (" ", ",", "|"):
        lists = Lists.of(pl.Series("history", [text, "1" + separator + "2"]), separator)
        assert (lists.values.to_list(), lists.problems) == (["3", "5", "1", "2"], [])


@pytest.mark.parametrize("text", ["[1, , 2]", "[1, 2", "[[1], [2]]", "[1, ..., 2]", "[, 1]"])
def test_damaged_lists_are_no_histories(text: str) -> None:
    """Half a list would be half a history without a word."""
    assert Lists.of(pl.Series("history", [text]), " ").problems == [(0, "history is not a whole list of ids")]
