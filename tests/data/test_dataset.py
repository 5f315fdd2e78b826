"""A data set of data frames: the same bundle as from files, whatever library made the frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import deshi
from deshi.configuration.overrides import from_python
from deshi.data.bundle import Bundle
from deshi.data.dataset import Dataset
from deshi.types import DeshiError

pandas = pytest.importorskip("pandas")
START = 1_577_934_245


class ArrowTable:
    """A table of a library that polars doesn't know: it has columns and the Arrow PyCapsule interface."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame, self.columns = frame, frame.columns

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._frame.__arrow_c_stream__(requested_schema)


def to_pyarrow(frame: pl.DataFrame) -> Any:
    pytest.importorskip("pyarrow")
    return frame.to_arrow()


def to_pandas(frame: pl.DataFrame) -> Any:
    return pandas.DataFrame(frame.to_dict(as_series=False))


LIBRARIES: dict[str, Callable[[pl.DataFrame], Any]] = {
    "polars": lambda frame: frame,
    "lazy": lambda frame: frame.lazy(),
    "pandas": to_pandas,
    "pyarrow": to_pyarrow,
    "arrow": ArrowTable,
    "columns": lambda frame: frame.to_dict(as_series=False),
}


def events() -> pl.DataFrame:
    """Six users with five events each; item ids are numbers."""
    rows = [
        (f"u{user}", user + step, START + 100 * step + user, step % 5 + 0.5) for user in range(6) for step in range(5)
    ]
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "stars"], orient="row")


def items() -> pl.DataFrame:
    return pl.DataFrame(
        {"item_id": range(10), "title": [f"Film {i}" if i else None for i in range(10)], "genre": ["x"] * 10}
    )


def prepared(dataset: Dataset, root: Path) -> Any:
    return deshi.prepare(dataset, paths={"root": str(root)})


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_library_gives_the_bundle_of_the_same_rows_in_files(library: str, tmp_path: Path) -> None:
    """A figure must not depend on whether the rows came from a frame or from a file."""
    events().write_csv(tmp_path / "events.csv")
    items().write_csv(tmp_path / "items.csv")
    paths = {"path": str(tmp_path / "events.csv"), "items_path": str(tmp_path / "items.csv"), "rating": "stars"}
    files = from_python({"data": {"name": "files", "source": paths}, "paths": {"root": str(tmp_path)}})
    expected = deshi.prepare("data=tabular", *files).bundle
    make = LIBRARIES[library]
    dataset = Dataset.from_frames(make(events()), make(items()), name="shop", rating="stars")
    bundle = prepared(dataset, tmp_path).bundle
    assert bundle.fingerprint == expected.fingerprint and bundle.name == "shop"
    assert bundle.item_table().equals(expected.item_table())


def test_the_same_frames_are_prepared_once(tmp_path: Path) -> None:
    """A notebook that is run again must not prepare again, and other rows must."""
    assert not prepared(Dataset.from_frames(events(), name="shop"), tmp_path).reused
    assert prepared(Dataset.from_frames(to_pandas(events()), name="shop"), tmp_path).reused
    fewer = prepared(Dataset.from_frames(events().head(20), name="shop"), tmp_path)
    assert not fewer.reused and fewer.bundle.n_interactions == 20
    assert Bundle.load(tmp_path / "data" / "shop").fingerprint == fewer.bundle.fingerprint


def test_functions_take_a_data_set_where_they_take_a_name(tmp_path: Path) -> None:
    """A run on frames needs no file and no preparation by hand, and a saved configuration repeats it."""
    dataset = Dataset.from_frames(to_pandas(events()), name="shop", filters={"min_user_interactions": 2})
    paths, train = {"root": str(tmp_path)}, {"max_epochs": 1, "progress": False, "threads": 1}
    run = deshi.fit(dataset, train=train, student={"dim": 8}, paths=paths)
    assert run.bundle.fingerprint == prepared(dataset, tmp_path).bundle.fingerprint
    assert run.config.data.filters.min_user_interactions == 2
    result = deshi.evaluate(baseline="popularity", data=dataset, paths=paths)
    assert result.metrics["test/n_examples"] == 6
    again = deshi.fit(config=run.folder)
    assert again.metrics == run.metrics and again.folder != run.folder


def test_names_of_columns_and_no_times(tmp_path: Path) -> None:
    """Frames have names of their own, and the rows' order may be all that is known of time."""
    own = events().rename({"user_id": "who", "item_id": "what"}).drop("timestamp")
    dataset = Dataset.from_frames(own, user="who", item="what", timestamp=None, filters={"min_history": 5})
    bundle = prepared(dataset, tmp_path).bundle
    assert (bundle.name, bundle.time_unit, bundle.n_users) == ("frames", "position", 6)
    assert bundle.vocabulary["item_id"][int(bundle.history(0)[0])] == "0"


def test_pandas_columns_with_missing_values_and_time_zones(tmp_path: Path) -> None:
    """Pandas turns whole numbers with gaps into floats; an item 3.0 would be another one than the item 3."""
    frame = to_pandas(events())
    frame["timestamp"] = pandas.to_datetime(frame["timestamp"], unit="s", utc=True).dt.tz_convert("Asia/Tokyo")
    frame.loc[len(frame)] = [None, None, None, None]
    dataset = Dataset.from_frames(frame, name="gaps", on_bad_rows="skip")
    result = prepared(dataset, tmp_path)
    assert result.bad_rows.skipped == 1
    expected = prepared(Dataset.from_frames(events(), name="whole"), tmp_path).bundle
    assert result.bundle.fingerprint == expected.fingerprint


def test_item_ids_with_a_gap_fit_those_of_the_events(tmp_path: Path) -> None:
    """An item table of pandas whose ids became floats would else have no title for any item."""
    table = to_pandas(items().select("item_id", "title"))
    table["item_id"] = table["item_id"].astype(float)
    bundle = prepared(Dataset.from_frames(events(), table), tmp_path).bundle
    assert bundle.item_table()["title"].drop_nulls().len() == 9


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ("events.csv", "events is of type str, expected a data frame of pandas, Polars or pyarrow"),
        ([1, 2], "events is of type list"),
        (pl.Series([1]), "events is of type Series"),
        ({"user_id": [1], "item_id": [1, 2]}, "events can't be read as a table"),
        (pl.DataFrame({"user": [1], "item_id": [1]}), "has no column user_id, timestamp; it has user, item_id. Did"),
        (events().clear(), "events has no rows"),
        (events().with_columns(item_id=pl.lit(None, pl.String)), "line 1: no item id"),
        (events().with_columns(timestamp=-1), "line 1: no valid timestamp"),
        (events().with_columns(item_id=pl.concat_list("item_id")), "'item_id' holds lists"),
        (pandas.concat([to_pandas(events())] * 2, axis=1), "several columns called item_id, stars"),
    ],
)  # fmt: skip
def test_what_is_no_table_of_events_is_refused_at_once(frame: Any, message: str) -> None:
    """The error must come where the frame is given, not in a stage that reads it later."""
    with pytest.raises(DeshiError, match=message):
        Dataset.from_frames(frame)


def test_an_item_table_without_titles() -> None:
    """The message must name the way out."""
    table = items().drop("title")
    with pytest.raises(DeshiError, match="items has no column title; it has item_id, genre. .*title=None is none"):
        Dataset.from_frames(events(), table)
    assert Dataset.from_frames(events(), table, title=None).title is None


def test_columns_come_as_arrays_and_series_of_several_libraries() -> None:
    """A pandas Series of texts in a dict raised an ImportError of pyarrow; a structured array is a dict of columns."""
    users, items, times = np.array(["u"] * 4), np.array(["a", "b", "a", "c"]), np.arange(4) + 1_500_000_000
    columns = {"user_id": pandas.Series(users), "item_id": pl.Series(items), "timestamp": times}
    kinds = [("user_id", "U1"), ("item_id", "U1"), ("timestamp", "i8")]
    table = np.array(list(zip(users, items, times, strict=True)), dtype=kinds)
    first, second = (Dataset.from_frames(events).events for events in (columns, table))
    assert first.rows() == second.rows() and first.rows()[0] == ("u", "a", 1_500_000_000)
