"""What `prepare` says of the rows that it read: each is an event, filtered or malformed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deshi.configuration.schemas import PrepareConfig
from deshi.configuration.validation import validate
from deshi.data.prepare import PrepareResult, run
from deshi.data.raw import BadRowReport
from deshi.types import DeshiError

HEAD = "user_id,item_id,timestamp,event\n"
EVENTS = [(user, item) for user in range(3) for item in range(4)]
LINES = "".join(f"u{user},i{item},{10**9 + item},{'buy' if item else 'view'}\n" for user, item in EVENTS)


def prepare(folder: Path, source: dict[str, Any] | None = None, **data: Any) -> PrepareResult:
    """Prepare ``events.csv`` of the folder as the command line would."""
    target = {"_target_": "deshi.data.sources.tabular.Tabular", "path": str(folder / "events.csv")}
    values = {"name": "toy", "source": target | (source or {}), **data}
    paths = {"data": str(folder / "data"), "cache": str(folder / "cache")}
    return run(validate(PrepareConfig, {"data": values, "paths": paths}))


def test_rows_are_events_filtered_or_malformed(tmp_path: Path) -> None:
    """The invariant, with one row of each kind, in the output, the statistics, and again when it is reused."""
    text = HEAD + LINES + '\n"u9,i1,1000000001,buy\nu0,,1000000001,buy\n'
    (tmp_path / "events.csv").write_text(text)
    options: dict[str, Any] = {"on_bad_rows": "skip", "filters": {"keep": {"event": ["buy"]}}}
    result = prepare(tmp_path, **options)
    assert result.statistics["rows"] == {
        "read": 14, "events": 9, "filtered": 3, "malformed": 2, "blank": 1, "continued": 0,
    }  # fmt: skip
    assert len(text.splitlines()) == 1 + 14 + 1
    for outcome in (result, prepare(tmp_path, **options)):
        assert "14 rows read = 9 events + 3 filtered + 2 malformed; 1 empty lines." in str(outcome)


def test_a_lost_row_is_an_error() -> None:
    """A reader that loses rows must not pass."""
    with pytest.raises(DeshiError, match="fault of deshi"):
        BadRowReport(rows={"read": 3, "malformed": 0, "events": 2}).check(2)


def test_items_with_a_row(tmp_path: Path) -> None:
    """How many items have a title is printed, few are a warning, none is an error."""
    (tmp_path / "events.csv").write_text(HEAD + LINES)
    (tmp_path / "items.csv").write_text("item_id,title\ni1,One\nx,X\n")
    items = {"items_path": str(tmp_path / "items.csv")}
    result = prepare(tmp_path, items)
    assert result.statistics["item_rows"] == {"with_row": 1, "rows_without_events": 1}
    assert "1 of 4; 1 rows of items without events" in str(result)
    assert "Only 1 of 4 items have a row" in str(result)
    (tmp_path / "items.csv").write_text("item_id,title\nI1,One\n")
    with pytest.raises(DeshiError, match="None of the 4 items has a row.*their case is ignored"):
        prepare(tmp_path, items)


def test_most_times_tie(tmp_path: Path) -> None:
    """Events of one time have no order, and what leave-one-out holds out is arbitrary."""
    (tmp_path / "events.csv").write_text(HEAD + LINES)
    assert "same time as" not in str(prepare(tmp_path))
    (tmp_path / "events.csv").write_text(HEAD + "".join(f"u{n % 3},i{n},{10**9},x\n" for n in range(12)))
    assert "100% of events have the same time as the user's previous one" in str(prepare(tmp_path))


def test_a_new_part_is_a_change(tmp_path: Path) -> None:
    """A bundle of a folder is made again when a part was added, and only then."""
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "a.csv").write_text(HEAD + LINES)
    source = {"path": str(folder)}
    assert not prepare(tmp_path, source).reused
    (folder / "_SUCCESS").write_text("")
    assert prepare(tmp_path, source).reused
    (folder / "b.csv").write_text(HEAD + LINES)
    assert "parts has changed" in prepare(tmp_path, source).message


def test_a_decimal_comma(tmp_path: Path) -> None:
    """Ratings of a European spreadsheet are numbers."""
    text = "user_id;item_id;timestamp;stars\n" + "".join(f"u;i{n};{10**9 + n};{n},5\n" for n in range(4))
    (tmp_path / "events.csv").write_text(text)
    source = {"rating": "stars", "separator": ";"}
    assert prepare(tmp_path, source, filters={"min_rating": 1.5}).bundle.n_interactions == 3
