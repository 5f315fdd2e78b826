"""Tables in several files: folders of parts, partitions, lists of paths."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from deshi.data.sources import Tabular
from deshi.types import DeshiError

EVENTS = pl.DataFrame(
    {"user_id": [1, 1, 2, 2], "item_id": [5, 6, 7, 5], "timestamp": [10**9, 10**9 + 1, 10**9 + 2, 10**9 + 3]}
)
ROWS = [(str(user), str(item), time * 1000) for user, item, time in EVENTS.rows()]


@pytest.fixture
def warehouse(tmp_path: Path) -> Path:
    """A folder as Spark writes it."""
    folder = tmp_path / "table"
    folder.mkdir()
    for number in range(2):
        EVENTS[2 * number : 2 * number + 2].write_parquet(folder / f"part-{number}.parquet")
        (folder / f".part-{number}.parquet.crc").write_bytes(b"1")
    for name in ("_SUCCESS", "_metadata", ".hidden.parquet"):
        (folder / name).write_bytes(b"")
    return folder


def test_a_folder_of_parts(warehouse: Path) -> None:
    """All parts in the order of their names; what a warehouse puts beside them is left out and counted."""
    raw = Tabular(str(warehouse)).load(warehouse)
    assert raw.interactions.rows() == ROWS
    assert raw.bad_rows.notes == [f"2 files of {warehouse} were read, 5 left out, such as .hidden.parquet."]
    assert [file.name for file in raw.files] == ["part-0.parquet", "part-1.parquet"]
    assert all(len(file.sha256) == 64 for file in raw.files)


def test_a_pattern_and_a_list_of_paths(warehouse: Path) -> None:
    """Parts can be chosen by a pattern or one by one, in this order."""
    assert Tabular(str(warehouse), pattern="*-1.parquet").load(warehouse).interactions.rows() == ROWS[2:]
    paths = [str(warehouse / f"part-{number}.parquet") for number in (1, 0)]
    assert Tabular(paths).load(warehouse).interactions.rows() == ROWS[2:] + ROWS[:2]
    with pytest.raises(DeshiError, match=r"holds no file \*.csv"):
        Tabular(str(warehouse), pattern="*.csv").load(warehouse)


def test_brackets_of_a_name_are_no_pattern(tmp_path: Path) -> None:
    """A file is read by its very name."""
    EVENTS.write_csv(tmp_path / "events[1].csv")
    EVENTS.head(1).write_csv(tmp_path / "events1.csv")
    assert Tabular(str(tmp_path / "events[1].csv")).load(tmp_path).interactions.rows() == ROWS


def test_partitions(tmp_path: Path) -> None:
    """A column that is only in the folders' names is there like any other."""
    for day in ("2024-01-01", "2024-01-02"):
        (tmp_path / "t" / f"day={day}").mkdir(parents=True)
        EVENTS.drop("timestamp").write_parquet(tmp_path / "t" / f"day={day}" / "part-0.parquet")
    raw = Tabular(str(tmp_path / "t"), timestamp="day", time_unit="date").load(tmp_path)
    assert raw.interactions["timestamp"].n_unique() == 2 and raw.interactions.height == 8


def test_parts_of_other_columns_or_formats(warehouse: Path) -> None:
    """A file that isn't of the same table is named."""
    EVENTS.drop("item_id").write_parquet(warehouse / "part-2.parquet")
    with pytest.raises(DeshiError, match=r"part-2.parquet has no column item_id"):
        Tabular(str(warehouse)).load(warehouse)
    EVENTS.with_columns(timestamp=pl.lit("soon")).write_parquet(warehouse / "part-2.parquet")
    with pytest.raises(DeshiError, match=r"timestamp holds String in .*part-2.parquet, but Int64"):
        Tabular(str(warehouse)).load(warehouse)
    (warehouse / "part-2.parquet").rename(warehouse / "items.csv")
    with pytest.raises(DeshiError, match="files of several formats"):
        Tabular(str(warehouse)).load(warehouse)


def test_ids_of_several_types(tmp_path: Path) -> None:
    """A part with a missing value has floats; large ids of the others must not be rounded."""
    large = EVENTS.with_columns(item_id=pl.lit(2**60 + 1))
    large.write_parquet(tmp_path / "a.parquet")
    EVENTS.cast({"item_id": pl.Float64}).write_parquet(tmp_path / "b.parquet")
    items = Tabular(str(tmp_path)).load(tmp_path).interactions["item_id"]
    assert items.to_list() == [str(2**60 + 1)] * 4 + ["5", "6", "7", "5"]


def test_a_delta_table_is_refused(warehouse: Path) -> None:
    """Its folder also holds rows that were deleted."""
    (warehouse / "_delta_log").mkdir()
    (warehouse / "_delta_log" / "0.json").write_text("{}")
    with pytest.raises(DeshiError, match="Delta table"):
        Tabular(str(warehouse)).load(warehouse)
