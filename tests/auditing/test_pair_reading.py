"""An outsider's files are read as they come, or refused with a sentence that helps."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from deshi.auditing._pair import Names, audit_pair
from deshi.auditing._pair_files import read_events, read_predictions
from deshi.types import DeshiError

EVENTS = "user_id,item_id,timestamp\n1,10,1\n1,11,2\n1,12,3\n2,11,1\n2,10,2\n2,13,3\n"
LISTS = "user_id,item_id,score\n1,12,0.9\n1,13,0.1\n2,12,0.8\n2,13,0.7\n"


def _written(folder: Path, events: str = EVENTS, lists: str = LISTS) -> tuple[Path, Path]:
    (folder / "events.csv").write_text(events)
    (folder / "lists.csv").write_text(lists)
    return folder / "events.csv", folder / "lists.csv"


def test_all_formats_give_the_same(tmp_path: Path) -> None:
    """The format is the other tool's choice."""
    events, lists = _written(tmp_path)
    expected = audit_pair(events, lists).metrics
    for number, path in enumerate((events, lists)):
        (tmp_path / f"{number}.tsv").write_text(path.read_text().replace(",", "\t"))
        (tmp_path / f"{number}.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
        pl.read_csv(path).write_parquet(tmp_path / f"{number}.parquet")
        (tmp_path / f"bom{number}.csv").write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    for name in ("{}.tsv", "{}.csv.gz", "{}.parquet", "bom{}.csv"):
        assert audit_pair(tmp_path / name.format(0), tmp_path / name.format(1)).metrics == expected, name


def test_columns_may_have_other_names_and_lower_scores_be_better(tmp_path: Path) -> None:
    """Nobody should have to rewrite a file to have it audited."""
    events, lists = _written(
        tmp_path,
        EVENTS.replace("user_id,item_id,timestamp", "uid,movie,when"),
        "movie,uid,loss\n12,1,0.1\n13,1,0.9\n12,2,0.2\n13,2,0.1\n",
    )
    names = Names("uid", "movie", "when", "loss", higher_is_better=False)
    assert audit_pair(events, lists, names=names).metrics["hr@1"].mean == 1


def test_each_file_may_have_its_own_names(tmp_path: Path) -> None:
    """Predictions come from another tool than the log, and call users otherwise."""
    events, lists = _written(tmp_path, lists=LISTS.replace("user_id,item_id,score", "uid,iid,s"))
    names = Names("uid", "iid", score="s", timestamp="timestamp")
    assert audit_pair(events, lists, names=names).metrics["hr@1"].mean == 0.5
    (tmp_path / "test.csv").write_text("user_id,item_id\n1,12\n2,13\n")
    assert audit_pair(events, lists, tmp_path / "test.csv", names=names).metrics["hr@1"].mean == 0.5
    with pytest.raises(DeshiError, match="No file has a column 'uuid'.*Did you mean 'uid'.*columns.user="):
        audit_pair(events, lists, names=Names("uuid", "iid", score="s"))


def test_one_file_may_have_other_names_than_the_rest(tmp_path: Path) -> None:
    """The same name may mean users in one file and something else in another: each file takes its own."""
    events, lists = _written(tmp_path, lists=LISTS.replace("user_id,item_id,score", "who,iid,s"))
    lists.write_text(lists.read_text().replace(",", ";"))
    names = Names(files={"predictions": {"user": "who", "item": "iid", "score": "s", "separator": ";"}})
    assert audit_pair(events, lists, names=names).metrics["hr@1"].mean == 0.5
    with pytest.raises(DeshiError, match="no column 'what'"):
        audit_pair(events, lists, names=Names(files={"predictions": {**names.files["predictions"], "item": "what"}}))


def test_every_writing_of_a_file_gives_the_same(tmp_path: Path) -> None:
    """JSON, decimal commas, another encoding, and a name that looks like a pattern."""
    events, lists = _written(tmp_path, EVENTS.replace(",13,", ",é,"), LISTS.replace(",13,", ",é,"))
    expected = audit_pair(events, lists)
    pl.read_csv(lists).write_ndjson(tmp_path / "lists.jsonl")
    (tmp_path / "lists.json").write_text(json.dumps(pl.read_csv(lists).to_dicts()))
    (tmp_path / "lists[1].csv").write_text(lists.read_text())
    (tmp_path / "lists1.csv").write_text(LISTS.replace("0.9", "0.01"))
    (tmp_path / "lists.tsv").write_text(lists.read_text().replace(",", "\t").replace(".", ","))
    for name in ("lists.jsonl", "lists.json", "lists[1].csv", "lists.tsv"):
        assert audit_pair(events, tmp_path / name).metrics == expected.metrics, name
    (tmp_path / "latin.csv").write_text(lists.read_text(), encoding="latin-1")
    names = Names(files={"predictions": {"encoding": "latin-1"}})
    assert audit_pair(events, tmp_path / "latin.csv", names=names).metrics == expected.metrics
    wrong = audit_pair(events, tmp_path / "latin.csv")
    assert "malformed-rows" in {problem.name for problem in wrong.findings}


def test_nested_and_binary_columns_are_refused(tmp_path: Path) -> None:
    """A list or bytes in place of a number is one sentence, never a traceback."""
    events, lists = _written(tmp_path)
    frame = pl.read_csv(events)
    for name in ("timestamp", "item_id"):
        for column in (pl.concat_list(name), pl.col(name).cast(pl.String).cast(pl.Binary)):
            frame.with_columns(column.alias(name)).write_parquet(tmp_path / "nested.parquet")
            with pytest.raises(DeshiError, match=f"{name}.* holds (List|Binary)"):
                audit_pair(tmp_path / "nested.parquet", lists)


def test_a_share_of_targets_is_not_called_a_hit_rate(tmp_path: Path) -> None:
    """Users with five targets of which one is hit have HR 1 and a share of 0.2: one name for both misleads."""
    events = "user_id,item_id\n" + "".join(f"u{u},i{i}\n" for u in range(6) for i in range(5))
    test = "user_id,item_id\n" + "".join(f"u{u},t{i}\n" for u in range(6) for i in range(5))
    lists = "user_id,item_id,rank\n" + "".join(f"u{u},t0,1\nu{u},i9,2\n" for u in range(6))
    (tmp_path / "test.csv").write_text(test)
    result = audit_pair(*_written(tmp_path, events, lists), test=tmp_path / "test.csv", ks=[10, 2])
    effects = " ".join(problem.effect for problem in result.findings)
    assert result.metrics["hr@2"].mean == 1 and result.metrics["recall@2"].mean == pytest.approx(0.2)
    assert "share of targets hit@2 0.2000" in effects and "HR@" not in effects


def test_lists_in_a_cell_are_refused(tmp_path: Path) -> None:
    """Many tools write one row a user with all items in it."""
    events, lists = _written(tmp_path)
    wide = pl.read_csv(lists).group_by("user_id").agg("item_id", "score")
    wide.write_parquet(tmp_path / "wide.parquet")
    with pytest.raises(DeshiError, match=r"holds List.*a row for each"):
        audit_pair(events, tmp_path / "wide.parquet")


def test_dates_are_times(tmp_path: Path) -> None:
    """Many logs write dates, with and without a time of day."""
    days = EVENTS
    for day in "321":
        days = days.replace(f",{day}\n", f",2024-01-0{day} 10:00:00\n")
    events, lists = _written(tmp_path, days)
    assert read_events(events, "interactions", Names(), 0).frame["time"].is_sorted() is False
    assert audit_pair(events, lists).metrics["hr@1"].mean == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("events", "lists", "words"),
    [
        (EVENTS.replace("user_id", "userid"), LISTS, ["no column 'user_id'", "userid, item_id", "columns.user="]),
        (EVENTS.replace("user_id", "userid"), LISTS, ["Did you mean 'userid'?"]),
        (EVENTS.partition("\n")[2], LISTS, ["first line seems to be data"]),
        (EVENTS.replace(",", ";"), LISTS, ["separated by another sign"]),
        ("", LISTS, ["interactions", "is empty"]),
        ("user_id,item_id\n", LISTS, ["is empty", "no rows"]),
        (EVENTS, LISTS.replace("score", "value"), ["neither a column 'score' nor 'rank'", "columns.score="]),
        (EVENTS, LISTS.replace("0.", "x"), ["4 malformed rows of 4", "line 2: score is not a number", "1,12,x9"]),
        (EVENTS, LISTS + "1\n" * 5, ["malformed rows", "line 6: 1 columns, expected 3"]),
        (EVENTS, LISTS + "1,14,0.1,7\n" * 5, ["malformed rows", "line 6: 4 columns, expected 3"]),
        (EVENTS, LISTS.replace("1,1", "7,1").replace("2,1", "8,1"), ["None of the 2 users", "'7', '8'", "'1', '2'"]),
        ("user_id,item_id\n1,2\n2,3\n", LISTS, ["No user", "at least two events"]),
    ],
)  # fmt: skip
def test_wrong_files_are_refused_with_a_hint(events: str, lists: str, words: list[str], tmp_path: Path) -> None:
    """The first minute decides whether a tool is tried a second time."""
    paths = _written(tmp_path, events, lists)
    with pytest.raises(DeshiError) as caught:
        audit_pair(*paths, max_bad_rows=3)
    assert [word for word in words if word not in str(caught.value)] == [], caught.value


def test_missing_and_strange_files_are_refused(tmp_path: Path) -> None:
    """A path with a slip gets the nearest file, an unknown ending the known ones."""
    events, lists = _written(tmp_path)
    with pytest.raises(DeshiError, match=r"There is no file .* Did you mean .*events.csv"):
        audit_pair(tmp_path / "event.csv", lists)
    (tmp_path / "lists.xlsx").write_text("PK")
    with pytest.raises(DeshiError, match=r"xlsx .*can't be told from its name, expected .csv"):
        audit_pair(events, tmp_path / "lists.xlsx")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DeshiError, match="can't be read as parquet"):
        audit_pair(events, tmp_path / "broken.parquet")
    (tmp_path / "broken.csv.gz").write_bytes(gzip.compress(LISTS.encode())[:30])
    with pytest.raises(DeshiError, match=r"truncated|malformed"):
        audit_pair(events, tmp_path / "broken.csv.gz")


def test_a_few_malformed_rows_are_left_out_and_told_with_their_lines(tmp_path: Path) -> None:
    """One broken row in a million is no reason to stop, and none to be silent."""
    events, lists = _written(tmp_path, EVENTS + "\n,12,4\n3,,5\n3,12,soon\n", LISTS + "2,14,high\n")
    result = audit_pair(events, lists)
    found = {one.what.split()[0].rpartition("/")[2]: one for one in result.findings if one.name == "malformed-rows"}
    assert [text.split(": ")[:2] for text in found["events.csv"].where] == [
        ["events.csv line 9", "no user id"],
        ["events.csv line 10", "no item id"],
        ["events.csv line 11", "no valid timestamp"],
    ]
    assert found["lists.csv"].where == ("lists.csv line 6: score is not a number: '2,14,high'",)


def test_empty_scores_are_nan(tmp_path: Path) -> None:
    """Pandas writes NaN as an empty field: that is a fault of the model and no malformed row."""
    _, lists = _written(tmp_path, EVENTS, LISTS.replace("0.1", ""))
    table = read_predictions(lists, Names(), 0)
    assert table.bad == 0
    assert table.frame["score"].is_nan().to_list() == [False, True, False, False]
