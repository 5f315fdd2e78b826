"""Histories in memory: frames and dicts give what a file of the same rows gives."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from deshi.data.histories import histories_of
from deshi.types import DeshiError

IDS = pl.Series(["c", "7", "a"])
LISTS = {"ann": ["a", "c"], "bob": ["new", "7"], "cy": []}


def as_events() -> pl.DataFrame:
    rows = [("ann", "c", 5), ("bob", "new", 1), ("ann", "a", 2), ("bob", "7", 2), ("cy", None, 1)]
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


def as_lists() -> pl.DataFrame:
    return pl.DataFrame({"user_id": list(LISTS), "items": list(LISTS.values())})


@pytest.mark.parametrize("make", [lambda: LISTS, as_events, as_lists, lambda: as_events().lazy()])
def test_every_form_is_read_as_the_same_histories(make: Any) -> None:
    """Users keep their order, times order the events, unknown items are counted."""
    histories = histories_of(make(), IDS)
    assert histories.users.to_list() == ["ann", "bob", "cy"] and len(histories) == 3
    assert [histories.history(number).tolist() for number in range(3)] == [[2, 0], [1], []]
    assert (histories.events, histories.unknown_items) == (4, 1)


def test_ids_may_be_numbers() -> None:
    """A pandas column of ids with gaps holds 7.0; the vocabulary's item is 7."""
    frame = pl.DataFrame({"user_id": [1.0, 1.0, 2.0], "item_id": [7.0, None, 7.0]})
    assert histories_of(frame, IDS).items.tolist() == [1, 1]
    assert histories_of({1: [7]}, IDS).items.tolist() == [1]


@pytest.mark.parametrize("seven", [7, 7.0, "7", " 7 ", np.int64(7), np.float32(7), np.str_("7"), Decimal("7.0")])
def test_an_id_is_the_same_in_every_type(seven: Any) -> None:
    """The type depends on how a notebook has made its list; alone, among others, and in frames of lists and events."""
    frame = pl.DataFrame({"user_id": [seven], "items": [[seven]]})
    for lists in ({seven: [seven, "a"]}, {seven: [seven]}, frame, frame.explode("items").rename({"items": "item_id"})):
        histories = histories_of(lists, IDS)
        assert histories.items[0] == 1 and histories.users.to_list() == ["7"]


def test_times_of_frames_are_ordered_as_prepare_does() -> None:
    """Texts of different zones and forms sort by what they mean; what can't be read is refused."""
    events = {"user_id": ["u"] * 3, "item_id": ["a", "7", "c"]}
    zones = ["2026-01-02T06:30:00+05:30", "2026-01-01T21:00:00-05:00", "2026-01-02T03:00:00+00:00"]
    assert histories_of(pl.DataFrame(events | {"timestamp": zones}), IDS).items.tolist() == [2, 1, 0]
    micros = pl.Series([3, 1, 2], dtype=pl.Int64).cast(pl.Datetime("us"))
    assert histories_of(pl.DataFrame(events | {"timestamp": micros}), IDS).items.tolist() == [1, 0, 2]
    for mixed in ([1_700_000_000, 1_700_000_000_000, 1_700_000_001], ["9", "noon", "10"]):
        with pytest.raises(DeshiError, match="timestamp"):
            histories_of(pl.DataFrame(events | {"timestamp": mixed}), IDS)


def test_unknown_items_are_said(caplog: pytest.LogCaptureFixture) -> None:
    """A few unknown items are usual, but nobody looks at a number that isn't said."""
    histories_of(LISTS, IDS)
    assert "1 of 4 events are left out: their items are unknown, such as 'new'" in caplog.text


@pytest.mark.parametrize(
    ("histories", "message"),
    [
        ([["a"]], "histories is of type list, expected a data frame"),
        (pl.DataFrame({"user": ["u"], "item_id": ["a"]}), "no column user_id; it has user, .* Did you mean 'user'"),
        (pl.DataFrame({"user_id": ["u"], "film": ["a"]}), "histories has no column item_id"),
        ({"ann": "abc"}, "A history is 'abc', expected a list of item ids"),
        (pl.DataFrame({"user_id": ["u"], "item_id": [["a"]]}), "'item_id' holds List.String., expected one id a row"),
        ({"ann": ["3.0", "4"], "bob": ["3.0"]}, "2 items is known. They are '3.0', '4'; the known ids are 'c'"),
        (pl.DataFrame({"user_id": [None], "item_id": ["a"]}), "histories, line 1: no user id"),
    ],
)  # fmt: skip
def test_what_holds_no_histories_is_refused(histories: Any, message: str) -> None:
    """The message must name the column, not a place inside polars."""
    with pytest.raises(DeshiError, match=message):
        histories_of(histories, IDS)


@pytest.mark.parametrize("make", [np.array, pd.Series, pl.Series, tuple, lambda ids: np.array(ids, dtype=object)])
def test_lists_of_ids_come_in_every_library(make: Any) -> None:
    """An array of texts is as good as a list; whole numbers lose their fraction as in every file."""
    histories = histories_of({"ann": make(["a", "c"]), 2.0: [7.0, np.int64(7), "7"]}, IDS)
    assert histories.users.to_list() == ["ann", "2"]
    assert [histories.history(number).tolist() for number in range(2)] == [[2, 0], [1, 1, 1]]


def test_a_dict_of_columns_is_a_table_and_no_two_users() -> None:
    """Else the columns' names would be users, each with the other column as a history."""
    assert histories_of({"user_id": ["ann", "ann"], "item_id": np.array(["a", "c"])}, IDS).users.to_list() == ["ann"]
