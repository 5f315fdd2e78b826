"""The stage `prepare`: determinism, reuse, messages and errors."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from deshi.artifacts import file_sha256
from deshi.configuration.schemas import PrepareConfig
from deshi.configuration.validation import validate
from deshi.data.bundle import Bundle
from deshi.data.prepare import run
from deshi.data.raw import BadRowReport, BadRows, FileRecord, RawData
from deshi.types import DeshiError

loads: list[str] = []


@dataclass
class CsvSource:
    """A minimal source: a csv file with user_id, item_id, timestamp and rating."""

    path: str
    address: str = ""

    def load(self, cache: Path, bad_rows: BadRows) -> RawData:
        """Read the file and note that it was read."""
        loads.append(self.path)
        schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "rating": pl.Float32}
        frame = pl.read_csv(self.path, schema=schema)
        items = frame.select(pl.col("item_id").drop_nulls().unique(maintain_order=True))
        items = items.with_columns(title=pl.lit("Title of ") + pl.col("item_id"))
        record = FileRecord(Path(self.path).name, file_sha256(Path(self.path)), self.path)
        skipped = BadRowReport(bad_rows.limit, ["x.csv, line 3: too short: '1'"] * (bad_rows.limit > 0))
        return RawData(frame, items, "ms", [record], skipped)


def config(
    tmp_path: Path, data: str = "data", force: bool = False, max_bad_rows: int = 0, address: str = "", **filters: object
) -> PrepareConfig:
    """A config as the command line would make it, for the file ``tmp_path / events.csv``."""
    source = {"_target_": f"{__name__}.CsvSource", "path": str(tmp_path / "events.csv"), "address": address}
    values = {"name": "toy", "source": source, "filters": filters, "max_bad_rows": max_bad_rows}
    paths = {"data": str(tmp_path / data), "cache": str(tmp_path / "cache")}
    return validate(PrepareConfig, {"data": values, "paths": paths, "force": force})


@pytest.fixture
def events(tmp_path: Path) -> pl.DataFrame:
    """A csv of 3000 random events with ties and repeats."""
    generator = np.random.default_rng(7)
    size = 3000
    frame = pl.DataFrame(
        {
            "user_id": [f"user {user}" for user in generator.integers(0, 150, size)],
            "item_id": [f"B{item:03d}" for item in generator.zipf(1.4, size) % 200],
            "timestamp": generator.integers(0, 500, size) * 86_400_000,
            "rating": generator.integers(1, 6, size).astype(np.float32),
        }
    )
    frame.write_csv(tmp_path / "events.csv")
    loads.clear()
    return frame


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_two_runs_have_the_same_bytes_in_every_file(tmp_path: Path, events: pl.DataFrame) -> None:
    """Same input, same bytes: parquet, arrays, manifest, statistics and picture."""
    options: dict[str, Any] = {
        "min_rating": 2.0,
        "duplicates": "last",
        "min_user_interactions": 5,
        "min_item_interactions": 5,
    }
    first = run(config(tmp_path, "one", **options)).bundle.path
    second = run(config(tmp_path, "two", **options)).bundle.path
    assert contents(first) == contents(second)
    names = {"interactions.parquet", "items.parquet", "users.parquet", "vocabulary.parquet", "manifest.json"}
    arrays = {f"sequences/{name}.npy" for name in ("offsets", "items", "timestamps")}
    assert set(contents(first)) == names | arrays | {"statistics.json", "statistics.png"}


def test_bundle_holds_what_the_source_had(tmp_path: Path, events: pl.DataFrame) -> None:
    """Nothing lost, nothing invented: each user's events in time order, ties in file order."""
    bundle = run(config(tmp_path)).bundle
    names = bundle.vocabulary["item_id"].to_list()
    wanted = events.sort("timestamp", maintain_order=True)
    for user, user_id in zip(bundle.users["index"], bundle.users["user_id"], strict=True):
        expected = wanted.filter(pl.col("user_id") == user_id)["item_id"].to_list()
        assert [names[item] for item in bundle.history(user)] == expected
    assert Bundle.load(bundle.path, check=True).item_table()["title"][0] == f"Title of {names[0]}"
    assert bundle.manifest["tie_rule"].startswith("events of one user with equal timestamps keep the order")


def test_a_second_run_reuses_and_says_so(tmp_path: Path, events: pl.DataFrame) -> None:
    """Running again must cost nothing and must not read the source."""
    first = run(config(tmp_path, min_rating=3.0, max_bad_rows=2))
    second = run(config(tmp_path, min_rating=3.0, max_bad_rows=2))
    assert len(loads) == 1 and second.reused and not first.reused
    assert "Nothing to do" in str(second) and "force=true" in str(second)
    assert second.report == first.report and second.statistics == first.statistics
    assert second.bad_rows == first.bad_rows
    assert second.bundle.fingerprint == first.bundle.fingerprint


def test_force_settings_and_changed_files_prepare_again(tmp_path: Path, events: pl.DataFrame) -> None:
    """A stale bundle must never pass for a fresh one, and the message tells why it was replaced."""
    run(config(tmp_path))
    assert "force=true" in run(config(tmp_path, force=True)).message
    changed = run(config(tmp_path, min_rating=3.0))
    assert "filters.min_rating: None -> 3.0" in changed.message and not changed.reused
    events.head(2000).write_csv(tmp_path / "events.csv")
    grown = run(config(tmp_path, min_rating=3.0))
    assert "events.csv has changed" in grown.message and grown.report[0].interactions == 2000
    (grown.bundle.path / "users.parquet").unlink()
    assert "damaged" in run(config(tmp_path, min_rating=3.0)).message
    assert len(loads) == 5


def test_a_touched_file_with_the_same_content_is_reused(tmp_path: Path, events: pl.DataFrame) -> None:
    """A fresh checkout changes times, not content."""
    run(config(tmp_path))
    os.utime(tmp_path / "events.csv", (1, 1))
    assert run(config(tmp_path)).reused
    text = (tmp_path / "events.csv").read_text()
    (tmp_path / "events.csv").write_text(text.replace("user 1,", "user 2,", 1))
    assert not run(config(tmp_path)).reused


def test_passwords_stay_out_of_the_manifest(tmp_path: Path, events: pl.DataFrame) -> None:
    """A bundle is shared; the database's password is not."""
    options: dict[str, Any] = {"address": "postgresql://me:secret@host/db"}
    result = run(config(tmp_path, **options))
    assert "secret" not in (result.bundle.path / "manifest.json").read_text()
    assert "not checked" in run(config(tmp_path, **options)).message


def test_results_show_as_text_and_html(tmp_path: Path, events: pl.DataFrame) -> None:
    """The same report in a terminal and in a notebook; skipped rows are named."""
    result = run(config(tmp_path, max_bad_rows=3, min_user_interactions=10, min_item_interactions=3))
    for shown in (str(result), result._repr_html_()):
        assert "k-core" in shown and "popularity, Gini" in shown and "3 malformed rows were skipped" in shown
        assert "x.csv, line 3" in shown
    assert replace(result, bad_rows=BadRowReport()).report[0].interactions == 3000


def test_everything_filtered_away_shows_the_report(tmp_path: Path, events: pl.DataFrame) -> None:
    """The user must see which filter was too strict, and the old bundle must survive."""
    run(config(tmp_path))
    with pytest.raises(DeshiError, match=r"(?s)removed every interaction.*rating >= 3.*k-core.*history >= 3000"):
        run(config(tmp_path, min_rating=3.0, min_user_interactions=2, min_history=3000))
    assert run(config(tmp_path)).reused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no interactions"),
        ("u,a,1,5\n", "No user has two events"),
        ("u,a,1,5\nv,a,2,5\n", "No user has two events"),
        ("u,a,,5\nu,b,2,5\n", "no timestamp"),
        ("u,,1,5\nu,b,2,5\n", "null item_id"),
        ("u,a,1,5\nu,a ,2,5\n", "differ only in surrounding spaces"),
    ],
)
def test_unusable_data_are_refused_and_leave_nothing_behind(tmp_path: Path, text: str, message: str) -> None:
    """A bundle from which nothing can be learned would only fail later, with a worse message."""
    (tmp_path / "events.csv").write_text("user_id,item_id,timestamp,rating\n" + text)
    with pytest.raises(DeshiError, match=message):
        run(config(tmp_path))
    assert not (tmp_path / "data").exists()
