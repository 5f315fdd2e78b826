"""One data set in odd files: histories to answer are those that prepare has read, whatever file they come from."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import deshi
from deshi.data.bundle import Bundle
from deshi.serving.histories import read_histories
from deshi.types import ITEM, USER

ROWS = [(u, (7 * u + 3 * place) % 9, 1_700_000_000 + 86_400 * (5 * place % 8)) for u in range(12) for place in range(8)]
EVENTS = pl.DataFrame(ROWS, schema=["user_id", "item_id", "timestamp"], orient="row")


def write(folder: Path) -> list[Path]:
    """The events with ids as floats, between blanks behind a mark, as JSON floats, and times as texts."""
    floats = EVENTS.cast({"user_id": pl.Float64, "item_id": pl.Float64})
    dates = pl.from_epoch("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%SZ").alias("timestamp")
    floats.write_parquet(folder / "floats.parquet")
    floats.write_ndjson(folder / "floats[1].jsonl")
    blanks = EVENTS.with_columns(pl.format(" {} ", "item_id").alias("item_id"), dates)
    (folder / "blanks.csv").write_text("\ufeff" + blanks.write_csv(line_terminator="\r\n"), newline="")
    (folder / "utf16.tsv").write_text(EVENTS.write_csv(separator="\t"), encoding="utf-16")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("prepared", range(4))
def test_every_file_gives_the_prepared_histories(prepared: int, tmp_path: Path) -> None:
    """An id with two spellings is an unknown item when the model is asked."""
    (tmp_path / "files").mkdir()
    files = write(tmp_path / "files")
    deshi.prepare("data=tabular", "data.name=odd", f"data.source.path='{files[prepared]}'", f"paths.root={tmp_path}")
    bundle = Bundle.load(next(tmp_path.rglob("manifest.json")).parent)
    for file in files:
        histories = read_histories(file, bundle.vocabulary[ITEM])
        assert histories.events == len(histories.items) == EVENTS.height
        for number, user in enumerate(histories.users):
            row = bundle.users[USER].index_of(user)
            assert histories.history(number).tolist() == bundle.history(int(row or 0)).tolist(), (file.name, user)
