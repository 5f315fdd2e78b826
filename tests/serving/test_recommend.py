"""The stage recommend: every form of input gives the same answers, every form of output the same rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import deshi
from deshi.data.histories import HistoryColumns
from deshi.serving.engine import Engine
from deshi.serving.histories import read_histories
from deshi.stages import _recommend as recommend
from deshi.types import DeshiError

HISTORIES = {"ann": ["3", "14", "15"], "bob": ["9", "new", "2"], "cy": ["nothing"], "dee": ["1"] * 12 + ["40"]}
"""By user; the bundle's item ids are "1" to "40"."""


def events() -> pl.DataFrame:
    """A row an event, users mixed, newest first: only the column of times gives the order."""
    rows = [(user, item, place) for user, items in HISTORIES.items() for place, item in enumerate(items)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    newest_first = frame.sort("timestamp", descending=True, maintain_order=True)
    return newest_first.sort(pl.col("user_id").rank("dense") % 2, maintain_order=True)


def lists() -> pl.DataFrame:
    return pl.DataFrame({"user_id": list(HISTORIES), "items": list(HISTORIES.values())})


def write(frame: pl.DataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    elif path.suffix in (".jsonl", ".ndjson"):
        frame.write_ndjson(path)
    else:
        texts = frame.with_columns(pl.col("items").list.join(" ")) if "items" in frame.columns else frame
        texts.write_csv(path, separator="\t" if path.suffix == ".tsv" else ",")
    return path


def answers(serving: Path, source: Path, **options: Any) -> tuple[pl.DataFrame, recommend.RecommendResult]:
    output = source.parent / "answers.parquet"
    result = deshi.recommend(bundle=str(serving), input=str(source), output=str(output), k=5, **options)
    return pl.read_parquet(output), result


@pytest.mark.parametrize("form", ["csv", "tsv", "parquet", "jsonl", "ndjson"])
@pytest.mark.parametrize("make", [events, lists])
def test_every_form_of_input_is_read_as_the_same_histories(
    make: Callable[[], pl.DataFrame], form: str, serving: Path, engine: Engine, tmp_path: Path
) -> None:
    """Whatever a warehouse writes, a user's answer must be the engine's."""
    found, result = answers(serving, write(make(), tmp_path / f"in.{form}"))
    assert found.columns == ["user_id", "item_id", "score", "rank"]
    for user, history in HISTORIES.items():
        own = found.filter(pl.col("user_id") == user)
        expected = engine.recommend(history, 5)
        assert own["item_id"].to_list() == [item.item_id for item in expected.items], user
        assert own["rank"].to_list() == [1, 2, 3, 4, 5]
        assert own["score"].to_list() == pytest.approx([item.score for item in expected.items], rel=1e-4)
    assert (result.users, result.rows, result.popular_users, result.short_users) == (4, 20, 1, 0)
    assert (result.events, result.unknown_events, result.unknown_items) == (20, 2, 2)
    assert "2 of 20 events were left out" in str(result) and "1 users have no known item" in str(result)


def test_users_keep_the_order_of_the_file(serving: Path, tmp_path: Path) -> None:
    """Someone who joins the answers by position must not be surprised; chunks and threads must not show."""
    frame = lists().sort("user_id", descending=True)
    found, _ = answers(serving, write(frame, tmp_path / "in.parquet"), threads=3)
    assert found["user_id"].unique(maintain_order=True).to_list() == ["dee", "cy", "bob", "ann"]


def test_many_chunks_are_one_answer(serving: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counts and the order must survive the cutting into chunks and the threads."""
    frame = pl.concat([lists().with_columns(pl.col("user_id") + str(copy)) for copy in range(9)])
    source = write(frame, tmp_path / "in.jsonl")
    whole, first = answers(serving, source, threads=1)
    monkeypatch.setattr(recommend, "CHUNK", 5)
    cut, second = answers(serving, source, threads=3)
    assert cut.drop("score").equals(whole.drop("score")) and cut["user_id"].n_unique() == 36
    assert (second.users, second.rows, second.popular_users) == (first.users, first.rows, first.popular_users)


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_every_form_of_output_holds_the_same_rows(form: str, serving: Path, tmp_path: Path) -> None:
    """Users without events, in a file of lists, are answered too."""
    frame = pl.DataFrame(
        {"user_id": ["7", "8"], "items": [["3"], None]}, schema={"user_id": pl.String, "items": pl.List(pl.String)}
    )
    expected, _ = answers(serving, write(frame, tmp_path / "in.parquet"))
    output = tmp_path / f"lists.{form}"
    result = deshi.recommend(bundle=str(serving), input=str(tmp_path / "in.parquet"), output=str(output), k=5)
    types = {"user_id": pl.String, "item_id": pl.String, "score": pl.Float32, "rank": pl.Int32}
    readers = {
        "parquet": pl.read_parquet,
        "csv": lambda path: pl.read_csv(path, schema=types),
        "jsonl": lambda path: pl.read_ndjson(path, schema=types),
    }
    assert readers[form](output).equals(expected) and result.popular_users == 1


def test_empty_lists_are_told(serving: Path, engine: Engine, tmp_path: Path) -> None:
    """A user who has seen everything gets nothing from a list without seen items, and that isn't silent."""
    everything = engine.bundle.items["item_id"].to_list()
    seen = pl.DataFrame({"user_id": ["all", "most"], "items": [everything, everything[3:]]})
    lists, result = answers(serving, write(seen, tmp_path / "in.parquet"))
    assert (result.rows, result.short_users, result.empty_users) == (3, 2, 1) and set(lists["user_id"]) == {"most"}
    assert "1 of 2 users got no item at all" in str(result) and "filter_seen=false" in str(result)
    _, result = answers(serving, tmp_path / "in.parquet", filter_seen=False)
    assert (result.rows, result.short_users, result.empty_users) == (10, 0, 0)
    assert "no item" not in str(result)


def test_files_of_allowed_and_excluded_items(serving: Path, engine: Engine, tmp_path: Path) -> None:
    """Stock and blacklists are files of other systems, with ids that the model may not know."""
    (tmp_path / "stock.txt").write_text("1\n2\n3\n\n4\nunknown\n")
    (tmp_path / "never.txt").write_text("4\n")
    source = write(lists(), tmp_path / "in.csv")
    options = {"allowed": str(tmp_path / "stock.txt"), "exclude": str(tmp_path / "never.txt")}
    found, result = answers(serving, source, **options)
    ann = found.filter(pl.col("user_id") == "ann")["item_id"].to_list()
    assert ann == [i.item_id for i in engine.recommend(HISTORIES["ann"], 5, allowed=engine.mask(["1", "2"])).items]
    assert result.short_users == 4 and "4 users got fewer items" in str(result)
    (tmp_path / "stock.txt").write_text("4\n")
    with pytest.raises(DeshiError, match="leave none of the bundle's items"):
        answers(serving, source, **options)


def test_an_answer_appears_whole_or_not_at_all(serving: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that reads the file at night must never find half of it, nor lose yesterday's to a failure."""
    (tmp_path / "answers.parquet").write_bytes(b"yesterday's")

    def fail(*args: object, **options: object) -> None:
        raise DeshiError("the network is broken")

    monkeypatch.setattr(Engine, "top", fail)
    with pytest.raises(DeshiError, match="the network is broken"):
        answers(serving, write(lists(), tmp_path / "in.csv"))
    assert (tmp_path / "answers.parquet").read_bytes() == b"yesterday's"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.parquet", "in.csv"]


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        ("user,item_id\n1,2\n", "in.csv", "has no column 'user_id'.*Nearest valid columns: user.*columns.user"),
        ("user_id,film\n1,2\n", "in.csv", "has no column 'item_id'"),
        ("user_id,item_id\n,2\n", "in.csv", "1 users have no id"),
        ("user_id,item_id,timestamp\n1,2,\n", "in.csv", "1 of 1 rows have no timestamp"),
        ("user_id,item_id,timestamp\n1,2,5\n1,3,noon\n", "in.csv", "1 of 2 values of timestamp are no numbers"),
        ("", "in.csv", "is empty"),
        ("{", "in.jsonl", "can't be read"),
        ("PAR1", "in.parquet", "can't be read"),
        ("user_id,item_id\n1,2\n", "in.xlsx", "expected a file that ends in .csv"),
    ],
)
def test_files_that_cannot_be_histories_are_refused(
    content: str, name: str, said: str, serving: Path, tmp_path: Path
) -> None:
    """The message must name the file and the column, not a place inside polars."""
    (tmp_path / name).write_text(content)
    with pytest.raises(DeshiError, match=said):
        answers(serving, tmp_path / name)


def test_places_that_cannot_be_written_to_are_refused(serving: Path, tmp_path: Path) -> None:
    """The input is somebody's only copy."""
    source = write(lists(), tmp_path / "in.csv")
    for output, said in (("in.csv", "expected two files"), ("out.xlsx", "one of the endings")):
        with pytest.raises(DeshiError, match=said):
            deshi.recommend(bundle=str(serving), input=str(source), output=str(tmp_path / output))
    with pytest.raises(DeshiError, match="There is no file"):
        deshi.recommend(bundle=str(serving), input=str(tmp_path / "absent.csv"))
    deshi.recommend(bundle=str(serving), input=str(source))
    assert (tmp_path / "in.recommendations.parquet").is_file()


@pytest.mark.parametrize(
    ("order", "values"),
    [
        ("timestamp", ["9", "10", "1e3"]),
        ("timestamp", ["2024-02-01", "2024-02-10T08:00", "2025-01-01"]),
        ("position", ["1700000000000000001", "1700000000000000002", "1700000000000000003"]),
        (None, None),
    ],
)
def test_orders(order: str | None, values: list[str] | None, tmp_path: Path) -> None:
    """Numbers as numbers, nanoseconds without rounding, times as times; and without any, the file's own order."""
    frame = pl.DataFrame({"user_id": ["u"] * 3, "item_id": ["a", "b", "c"]})
    if order is not None:
        frame = frame.with_columns(pl.Series(order, values)).reverse()
    path = write(frame, tmp_path / "in.csv")
    ids = pl.Series(["c", "b", "a"])
    found = read_histories(path, ids, HistoryColumns())
    assert found.history(0).tolist() == [2, 1, 0] and found.users.to_list() == ["u"]


def test_ids_are_texts_whatever_a_file_says(tmp_path: Path) -> None:
    """Numbers in parquet, leading zeros in csv: the vocabulary holds texts, and 007 is not 7."""
    frame = pl.DataFrame({"user_id": [1, 1], "item_id": [7, 8]})
    ids = pl.Series(["7", "007"])
    assert read_histories(write(frame, tmp_path / "a.parquet"), ids, HistoryColumns()).items.tolist() == [0]
    (tmp_path / "b.csv").write_text("user_id,item_id\n1,007\n1,7\n1,7.0\n")
    found = read_histories(tmp_path / "b.csv", ids, HistoryColumns())
    assert found.items.tolist() == [1, 0] and found.unknown_items == 1


def test_a_row_without_an_item_is_a_user_without_events(tmp_path: Path) -> None:
    """An outer join leaves such rows: the user is to be answered, and no event was lost."""
    (tmp_path / "a.csv").write_text("user_id,item_id\nann,\nbob,7\n")
    found = read_histories(tmp_path / "a.csv", pl.Series(["7"]), HistoryColumns())
    assert found.users.to_list() == ["ann", "bob"] and found.offsets.tolist() == [0, 0, 1] and found.events == 1
