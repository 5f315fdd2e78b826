"""Random tables of interactions in one or several files, and everything that `prepare` makes of them as one hash."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from deshi.configuration.schemas import PrepareConfig
from deshi.configuration.validation import validate
from deshi.data.bundle import ARRAYS, TABLES
from deshi.data.prepare import run
from deshi.types import DeshiError

Values = list[Any]
_FIRST = 1_500_000_000
_DIRT = (None, "", " ", "nan")


def outcome_of(folder: Path, seed: int) -> str:
    """The first digits of a hash of the bundle and the result, or of the error, of the random table ``seed``."""
    folder.mkdir(parents=True)
    generator = np.random.Generator(np.random.SFC64(seed))
    source = _write_files(folder / "events", generator)
    data = {"name": "random", "source": source, **_settings(source["rating"] is not None, generator)}
    paths = {"data": str(folder / "data"), "cache": str(folder / "cache")}
    try:
        result = run(validate(PrepareConfig, {"data": data, "paths": paths}))
    except DeshiError as error:
        return "error " + _digest(str(error).replace(str(folder), ""))
    bundle = result.bundle
    report = str([result.report, result.bad_rows]).replace(str(folder), "")
    content: Values = [bundle.fingerprint, report, result.statistics]
    content += [getattr(bundle, name).tolist() for name in ARRAYS]
    content += [pl.read_parquet(bundle.path / name).rows() for name in TABLES]
    return f"{bundle.n_interactions} events " + _digest(json.dumps(content, sort_keys=True, default=str))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _settings(is_rated: bool, generator: np.random.Generator) -> dict[str, Any]:
    pick = generator.integers
    filters: dict[str, Any] = {"duplicates": ("keep", "exact", "first", "last", "error")[pick(4) if pick(12) else 4]}
    if pick(3):
        filters |= {"min_user_interactions": int(pick(1, 4)), "min_item_interactions": int(pick(1, 4))}
        filters |= {"k_core": bool(pick(3)), "min_history": int(pick(1, 4))}
    if is_rated and pick(2):
        filters["min_rating"] = 2.5
    if not pick(4):
        filters["keep"] = {"kind": ["buy", None] if pick(2) else ["buy"]}
    return {"filters": filters, "on_bad_rows": "skip" if pick(12) else "error", "max_bad_rows": 1000}


def _write_files(folder: Path, generator: np.random.Generator) -> dict[str, Any]:
    """Parts of one table, some in folders whose names hold a column; returns the source's settings."""
    pick = generator.integers
    ending = ("parquet", "parquet", "csv", "jsonl")[pick(4)]
    shape = [int(pick(2, 25)), int(pick(2, 15)), int(pick(4)), int(pick(3)), int(pick(8)), int(pick(5)), int(pick(5))]
    n_files, is_partitioned, has_dirt = int(pick(1, 5)), not pick(4), not pick(3)
    for number in range(n_files):
        if not pick(20):
            shape[2] = int(pick(4))  # ids of another type
        columns = _columns(int(pick(1, 150)), shape, has_dirt, generator)
        part = folder
        if is_partitioned:
            kind = ("buy", "view", "__HIVE_DEFAULT_PARTITION__")[pick(3)]
            part = folder / f"kind={kind}"
            columns.pop("kind")
        part.mkdir(parents=True, exist_ok=True)
        _write(pl.DataFrame(columns, strict=False), part / f"part-{number}.{ending}")
    unit = ("auto", "auto", "s", "auto", "iso", "auto", "position", "s")[shape[4]]
    source = {"_target_": "deshi.data.sources.tabular.Tabular", "path": str(folder), "time_unit": unit}
    return source | {"rating": "stars" if shape[5] else None}


def _columns(size: int, shape: list[int], has_dirt: bool, generator: np.random.Generator) -> dict[str, Values]:
    n_users, n_items, user_type, item_type, time_type, rating_type, tie_level = shape
    users = [_id(code, user_type) for code in generator.integers(n_users, size=size).tolist()]
    items = [_id(code, item_type) for code in (generator.pareto(1.0, size) * 2).astype(int) % n_items]
    seconds = _FIRST + generator.integers((10, 100, 10**4, 10**6, 10**7)[tie_level], size=size)
    times = [_time(second, time_type) for second in seconds.tolist()]
    stars = [_rating(value, rating_type) for value in generator.integers(1, 6, size).tolist()]
    kinds = [("buy", "view", None)[code] for code in generator.integers(3, size=size)]
    columns = {"user_id": users, "item_id": items, "timestamp": times, "stars": stars, "kind": kinds}
    if has_dirt:
        for name in ("user_id", "item_id", "timestamp", "stars"):
            for row in generator.integers(size, size=int(generator.integers(4))).tolist():
                is_text = isinstance(columns[name][row], str)
                columns[name][row] = _DIRT[generator.integers(4)] if is_text else None
    return columns


def _id(code: int, kind: int) -> Any:
    return (f"id-{code * 7919 % 101}", int(code) * 13 % 97, f"{' ' * (code % 2)}x{code}", float(code))[kind]


def _time(second: int, kind: int) -> Any:
    moment = datetime(1970, 1, 1) + timedelta(seconds=second)
    return (
        second, second * 1000, second + 0.25 * (second % 4), moment, moment.isoformat(), moment.date(),
        second - _FIRST, str(second),
    )[kind]  # fmt: skip


def _rating(value: int, kind: int) -> Any:
    return (value, value, float(value), f"{value},5", float("nan") if value == 5 and kind == 4 else value - 0.5)[kind]


def _write(frame: pl.DataFrame, path: Path) -> None:
    if path.suffix == ".parquet":
        frame.write_parquet(path, row_group_size=37)
    elif path.suffix == ".csv":
        frame.write_csv(path, datetime_format="%Y-%m-%d %H:%M:%S")
    else:
        frame.write_ndjson(path)
