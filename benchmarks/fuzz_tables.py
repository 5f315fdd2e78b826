"""Generated tables through `prepare` and `recommend`: no traceback, no lost row, the same ids by every path.

python benchmarks/fuzz_tables.py [--tables 100000] [--first 0] [--log FILE] [--folder FOLDER]

Each seed makes the events of a table and writes them as csv, JSON lines, a JSON array, parquet and a data frame, in all
the ways of `fuzz_writers.py`, some of them with faults. Every file counts as a table. The generator knows each file's
events and malformed lines itself; it shares no code with deshi. The stage functions run in this process; the picture
of the statistics is left out. A table is refused where deshi says so in a sentence (`DeshiError`).
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from deshi.configuration.schemas import PrepareConfig
from deshi.data import Bundle, Dataset, prepare, statistics
from deshi.serving.histories import read_histories, read_item_ids
from deshi.types import DeshiError
from fuzz_writers import FORMS, Expected, Written, logical_table, mutate

SHARE_OF_MUTATED = 0.15
LIMIT = 10**9


@dataclass
class Tally:
    """What came of the tables so far."""

    tables: int = 0
    rows: int = 0
    forms: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)
    tracebacks: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """All numbers, with the first faults."""
        return {
            "tables": self.tables, "rows": self.rows, "forms": dict(self.forms), "checks": dict(self.checks),
            "refused": dict(self.refused.most_common()), "tracebacks": len(self.tracebacks),
            "losses": len(self.losses), "faults": (self.tracebacks + self.losses)[:20],
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=100_000, help="stop after so many")
    parser.add_argument("--first", type=int, default=0, help="the first seed: go on where a log ended")
    parser.add_argument("--log", type=Path, help="a line of JSON with all figures after every 1,000 tables")
    parser.add_argument("--folder", type=Path, help="where the temporary data go (default: the system's)")
    options = parser.parse_args()
    start, tally, reported = time.perf_counter(), Tally(), 0
    statistics.draw = lambda *_: None
    seed = options.first
    while tally.tables < options.tables:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            one_seed(seed, Path(folder), tally)
        seed += 1
        if tally.tables - reported >= 1000 or tally.tables >= options.tables:
            reported = tally.tables
            seconds = round(time.perf_counter() - start)
            figures = {"next_seed": seed, "seconds": seconds, **tally.figures()}
            print(
                {name: figures[name] for name in ("next_seed", "seconds", "tables", "tracebacks", "losses")}, flush=True
            )
            if options.log:
                with options.log.open("a", encoding="utf-8") as log:
                    log.write(json.dumps(figures, ensure_ascii=False) + "\n")
    print(json.dumps(tally.figures(), indent=1, ensure_ascii=False))
    raise SystemExit(bool(tally.tracebacks or tally.losses))


def one_seed(seed: int, folder: Path, tally: Tally) -> None:
    """The table of a seed in every form."""
    generator = random.Random(seed)
    table = logical_table(generator)
    for name, write in FORMS.items():
        written = write(table, folder, generator)
        if written is None:
            continue
        if mutated := written.path is not None and generator.random() < SHARE_OF_MUTATED:
            mutate(written.path, generator)
        tally.tables += 1
        tally.forms[name + (", damaged" if mutated else "")] += 1
        tally.rows += written.expected.n_lines
        where = f"seed {seed} {name}"
        try:
            bundle = _prepared(written, folder, tally, where)
            if mutated:
                _recommended(written, pl.Series(["i0"]), None)
            elif bundle is not None:
                _check_bundle(bundle, written.expected, where, tally)
                _check_recommend(bundle, written, folder, where, tally)
        except DeshiError as error:
            tally.refused[_kind(error)] += 1
            if not mutated and not written.expected.refusable:
                tally.losses.append(f"{where}: refused: {str(error)[:300]}")
        except (Exception, pl.exceptions.PanicException):
            tally.tracebacks.append(f"{where}: {traceback.format_exc()[-1500:]}")


def _prepared(written: Written, folder: Path, tally: Tally, where: str) -> Bundle | None:
    """The bundle of a file or a frame, made by the stage's function."""
    rules = {"filters": {"min_history": 1}, "on_bad_rows": "skip", "max_bad_rows": LIMIT}
    if written.frame is not None:
        arguments = {key: value for key, value in written.source.items() if key != "encoding"}
        dataset = Dataset.from_frames(
            written.frame, written.items, where.replace(" ", "-"), **arguments, filters={"min_history": 1},
            on_bad_rows="skip", max_bad_rows=LIMIT,
        )  # fmt: skip
        data = dataset.data_config(folder / "data")
    else:
        source = {"_target_": "deshi.data.sources.tabular.Tabular", "path": str(written.path), **written.source}
        data = {"name": where.replace(" ", "-"), "source": source, **rules}
    result = prepare.run(PrepareConfig.model_validate({"data": data, "paths": {"root": str(folder)}}))
    tally.checks["rows accounted for"] += 1
    counts = result.bad_rows.rows
    n_lines = counts["read"] + counts.get("blank", 0) + counts.get("continued", 0)
    if counts["read"] != counts["events"] + counts["malformed"] or n_lines != written.n_lines():
        tally.losses.append(f"{where}: {counts} of {written.n_lines()} lines")
    return result.bundle


def _check_bundle(bundle: Bundle, expected: Expected, where: str, tally: Tally) -> None:
    """Compare users, sequences and times with those that the generator knows."""
    tally.checks["events, ids and times of prepare"] += 1
    users, items = bundle.users["user_id"].to_list(), bundle.vocabulary["item_id"].to_list()
    arrived = {
        user: [
            (items[item], int(moment))
            for item, moment in zip(
                bundle.items[bundle.offsets[index] : bundle.offsets[index + 1]],
                bundle.timestamps[bundle.offsets[index] : bundle.offsets[index + 1]],
                strict=True,
            )
        ]
        for index, user in enumerate(users)
    }
    skipped = bundle.manifest["bad_rows"]["skipped"]
    if arrived != expected.histories or skipped != expected.n_malformed:
        tally.losses.append(
            f"{where}: prepare gives {arrived} and {skipped} skipped, expected {expected.histories} and "
            f"{expected.n_malformed}"[:1500]
        )
    titles = dict(bundle.item_table().select("item_id", "title").iter_rows())
    if expected.titles is not None and titles != {item: expected.titles.get(item) for item in items}:
        tally.losses.append(f"{where}: titles {titles}, expected {expected.titles}"[:1500])


def _recommended(written: Written, item_ids: pl.Series, order: str | None) -> dict[str, list[int]]:
    """The histories that recommend reads from a file, as item indices."""
    if written.path is None:
        return {}
    histories = read_histories(written.path, item_ids, *written.history_arguments())
    users = histories.users.to_list()
    return {user: histories.history(number).tolist() for number, user in enumerate(users)}


def _check_recommend(bundle: Bundle, written: Written, folder: Path, where: str, tally: Tally) -> None:
    """Compare the histories that recommend reads with those of prepare, and the ids of a list of items."""
    item_ids = bundle.vocabulary["item_id"]
    if written.path is not None and not written.expected.n_malformed and written.can_recommend:
        tally.checks["histories of recommend"] += 1
        histories = _recommended(written, item_ids, None)
        names = item_ids.to_list()
        answer = {user: [names[item] for item in history] for user, history in histories.items()}
        expected = {user: [item for item, _ in events] for user, events in written.expected.histories.items()}
        if answer != expected:
            tally.losses.append(f"{where}: recommend reads {answer}, expected {expected}"[:1500])
    if written.ids_path is not None:
        tally.checks["ids of exclude files"] += 1
        listed = read_item_ids(written.ids_path, "item_id")
        if set(listed) != set(item_ids):
            tally.losses.append(f"{where}: exclude has {sorted(listed)}, expected {sorted(item_ids)}"[:1500])


def _kind(error: DeshiError) -> str:
    """An error's message without names and numbers."""
    text = str(error)
    for mark, kind in _KINDS.items():
        if mark in text:
            return kind
    return " ".join(word for word in text.split() if word.isalpha())[:60]


_KINDS = {
    "none of the items is": "no item that recommend knows", "Malformed row": "a malformed row, which recommend refuses",
    "None of the items has": "no item has a row in the item table",
    "truncated": "damaged or truncated file", "as parquet": "damaged parquet", "no column": "a column is missing",
    "several columns": "columns of one name", "can't tell one unit": "units of time mixed or too small",
    "dates of the calendar": "calendar numbers", "no time that can be read": "no readable time", "is empty": "no rows",
    "No user has two events": "no user with two events", "holds ": "a column of another type",
    "JSON array": "damaged JSON array", "no interactions": "no rows", "encoding": "not text in its encoding",
    "is no valid text": "not text in its encoding", "a quote opens": "quote in the first line isn't closed",
    "256": "an id of more than 256 characters",
}  # fmt: skip


if __name__ == "__main__":
    main()
