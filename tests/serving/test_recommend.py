"""The stage recommend: every form of input gives the same answers, every form of output the same rows."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import deshi
from deshi.data.histories import HistoryColumns
from deshi.serving.engine import Engine
from deshi.serving.histories import read_histories
from deshi.serving.http.result import ItemCounts
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
    assert "2 of 20 (10 %) events were left out (2 items such as" in str(result)
    assert "1 of 4 (25 %) users have no known item" in str(result)


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
        ("user,item_id\n1,2\n", "in.csv", "has no column user_id; it has user, item_id. Did you mean 'user'.*user="),
        ("user_id,film\n1,2\n", "in.csv", "has no column item_id"),
        ("user_id,item_id\n,2\n", "in.csv", r"in.csv, line 2: no user id: .*set on_bad_rows=skip"),
        ("user_id,item_id,timestamp\n1,2,\n", "in.csv", "line 2: no timestamp"),
        (
            "user_id,item_id,timestamp\n1,2,5\n1,3,noon\n",
            "in.csv",
            "'noon' in 'timestamp' is no time|'5' in 'timestamp'",
        ),
        ("", "in.csv", "is empty"),
        ("{", "in.jsonl", "in.jsonl"),
        ("PAR1", "in.parquet", "can't be read"),
        ("user_id,item_id\n1,2\n", "in.xlsx", "in.xlsx can't be told from its name, expected .csv"),
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


READ = ["3", "14", "15"]
"""The items of ``ann`` in every file below; the bundle's ids are "1" to "40"."""


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("a.csv", "user_id;item_id\nann;3\nann;14\nann;15\n", {"separator": ";"}),
        ("a.dat", "ann::3\nann::14\nann::15\n", {"separator": "::", "columns": ["user_id", "item_id"]}),
        ("a.csv", "\ufeffuser_id,item_id\r\nann,3\r\nann, 14\r\n\r\nann,15 \r\n", {}),
        ("a.tsv", "user_id\titem_id\tname\nann\t3\t\"Heroes\nann\t14\t\nann\t15\tb\n", {}),
        ("a.csv", "user_id,item_id,t\nann,15,28.02.2026\nann,3,28.01.2026\nann,14,1.02.2026\n",
         {"timestamp": "t", "time_format": "%d.%m.%Y"}),
        ("a.csv", "user_id,item_id,timestamp\nann,14,2026-01-01T21:00:00-05:00\nann,3,2026-01-02T06:30:00+05:30\n"
         "ann,15,2026-01-02T03:00:00+00:00\n", {}),
        ("a.json", '[{"user_id": "ann", "item_id": 3.0}, {"user_id": "ann", "item_id": 14}, '
         '{"user_id": "ann", "item_id": "15"}]', {}),
        ("a.jsonl", '{"user_id": "ann", "items": [3.0, 14, "15", null]}\n', {}),
        ("a.jsonl", '{"session": "ann", "events": [{"aid": 3}, {"aid": 14}, {"aid": 15}]}\n',
         {"user": "session", "history": "events.aid"}),
        ("a.csv", 'user_id,items\nann,"[3, 14, 15]"\n', {}),
        ("a.csv", "user_id,history_item_id,item_id\nann,\"['3', '14', '15']\",9\n", {}),
        ("a.csv", 'user_id,items\nann,"[ 3 14\n 15]"\n', {}),
        ("a.csv", "user_id,items\nann,3|14|15\n", {"history_separator": "|"}),
        ("a.inter", "user_id:token\titem_id_list:token_seq\titem_id:token\nann\t3 14 15\t9\n", {}),
        ("a.inter", "user_id:token\titem_id:token\ttimestamp:float\nann\t15\t5\nann\t3\t1.0\nann\t14\t2\n", {}),
    ],
)  # fmt: skip
def test_files_as_other_systems_write_them(
    name: str, content: str, options: dict[str, Any], serving: Path, engine: Engine, tmp_path: Path
) -> None:
    """What prepare has read must be read here likewise, else users are answered for histories they do not have."""
    (tmp_path / name).write_text(content, newline="")
    rows, result = answers(serving, tmp_path / name, **options)
    assert rows["item_id"].to_list() == [item.item_id for item in engine.recommend(READ, 5).items]
    assert (result.users, result.events, result.unknown_events, result.bad_rows.skipped) == (1, 3, 0, 0)


def test_a_name_is_no_pattern_and_gz_no_ending(serving: Path, tmp_path: Path) -> None:
    """Brackets are usual in names of downloads; the answers of a packed file stand beside it under its own name."""
    (tmp_path / "h1.csv").write_text("user_id,item_id\nann,1\n")
    (tmp_path / "h[1].csv.gz").write_bytes(gzip.compress(b"user_id,item_id\nbob,3\n"))
    result = deshi.recommend(bundle=str(serving), input=tmp_path / "h[1].csv.gz")
    assert result.output == tmp_path / "h[1].recommendations.parquet"
    with result.output.open("rb") as file:
        assert pl.read_parquet(file)["user_id"].unique().to_list() == ["bob"]
    (tmp_path / "h[1].csv.gz").write_bytes(gzip.compress(b"user_id,item_id\nbob,3\n" * 99)[:-12])
    with pytest.raises(DeshiError, match=r"h\[1\].csv.gz is damaged or truncated"):
        deshi.recommend(bundle=str(serving), input=tmp_path / "h[1].csv.gz")


def test_ids_of_floats_are_those_of_prepare(serving: Path, engine: Engine, tmp_path: Path) -> None:
    """A column with gaps is a float in a warehouse, in lists too."""
    expected = [item.item_id for item in engine.recommend(READ, 5).items]
    pl.DataFrame({"user_id": [7.0] * 3, "item_id": [3.0, 14.0, 15.0]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"user_id": [7.0], "items": [[3.0, None, 14.0, 15.0]]}).write_parquet(tmp_path / "b.parquet")
    for name in ("a.parquet", "b.parquet"):
        rows, _ = answers(serving, tmp_path / name)
        assert rows["item_id"].to_list() == expected and rows["user_id"].unique().to_list() == ["7"]


def test_rows_that_are_none_are_counted(serving: Path, tmp_path: Path) -> None:
    """Every line is an event, malformed or empty; malformed ones are refused unless they may be skipped."""
    path = tmp_path / "in.csv"
    path.write_text('user_id,item_id\nann,3\n,4\nbob,"5\n\nbob,5,6\nbob,7\ncy,\n')
    with pytest.raises(DeshiError, match=r"in.csv, line 3: no user id: .* set on_bad_rows=skip"):
        answers(serving, path)
    _, result = answers(serving, path, on_bad_rows="skip")
    assert (result.input_rows, result.events, result.users, result.bad_rows.skipped) == (6, 2, 3, 3)
    assert "6 rows read: 2 events of 3 users, 3 malformed rows skipped." in str(result)
    assert "in.csv, line 4: a quote opens" in result.bad_rows.examples[1]
    with pytest.raises(DeshiError, match="More than 2 malformed rows.*raise max_bad_rows"):
        answers(serving, path, on_bad_rows="skip", max_bad_rows=2)
    pl.DataFrame({"user_id": ["a", "b"], "items": ["[1, 2", "[3]"]}).write_csv(path)
    with pytest.raises(DeshiError, match="line 2: not a whole list of ids"):
        answers(serving, path)


def test_histories_of_unknown_items_alone_are_refused(serving: Path, tmp_path: Path) -> None:
    """The popular list for everybody is what the wrong column or data set gives, and looks like an answer."""
    (tmp_path / "in.csv").write_text('user_id,item_id\nann,"[926, 38]"\nbob,x\n')
    with pytest.raises(DeshiError, match=r"none of the 2 items is known. They are '\[926, 38\]', 'x'; the known"):
        answers(serving, tmp_path / "in.csv")
    assert not (tmp_path / "answers.parquet").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ids.txt", b"\xef\xbb\xbf3\r\n 15 \r\n\r\nnew\r\n3\r\n"),
        ("ids.txt", "3\n15\nnew".encode("utf-16")),
        ("ids.csv", b"3\r15\rnew\r"),
        ("ids.csv", b'"3"\n"15"\n"new"\n'),
        ("ids.csv", b"title,item_id\na,3\n,15\nb,new\n"),
        ("ids.txt", b"item_id\n3\n15\nnew\n"),
        ("ids.txt.gz", gzip.compress(b"3\n15\nnew\n", mtime=0)),
        ("ids.jsonl", b'{"item_id": 3.0}\n{"item_id": 15}\n{"item_id": "new"}\n'),
    ],
)
def test_files_of_item_ids(name: str, content: bytes, serving: Path, engine: Engine, tmp_path: Path) -> None:
    """Whatever wrote it, the first id is excluded too, and unknown ones are counted."""
    (tmp_path / name).write_bytes(content)
    source = write(lists(), tmp_path / "in.csv")
    rows, result = answers(serving, source, exclude=tmp_path / name, filter_seen=False)
    assert not {"3", "15"} & set(rows["item_id"]) and "1 of 3 (33.33 %) excluded items are unknown" in str(result)
    rows, result = answers(serving, source, allowed=tmp_path / name, filter_seen=False)
    assert set(rows["item_id"]) == {"3", "15"} and result.allowed is not None and result.allowed.unknown == 1


def test_files_of_unknown_item_ids_are_refused(serving: Path, tmp_path: Path) -> None:
    """An exclusion that excludes nothing recommends what was recalled; an empty one is a quiet day."""
    source = write(lists(), tmp_path / "in.csv")
    (tmp_path / "ids.txt").write_text("i3\ni4\n")
    for key in ("exclude", "allowed"):
        with pytest.raises(DeshiError, match=f"{key} is .*ids.txt, but none of its 2 ids .* They are 'i3', 'i4'; the"):
            answers(serving, source, **{key: tmp_path / "ids.txt"})
    (tmp_path / "ids.txt").write_text("\n")
    assert answers(serving, source, exclude=tmp_path / "ids.txt")[1].excluded == ItemCounts(0, 0)
    (tmp_path / "ids.txt").write_bytes(b"3\ncaf\xe9\n")
    with pytest.raises(DeshiError, match="ids.txt, line 2 is no utf-8 text"):
        answers(serving, source, exclude=tmp_path / "ids.txt")
