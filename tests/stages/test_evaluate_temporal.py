"""One clock for all users, end to end: fit, evaluation, baselines and slices, with new users and cold items."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import deshi
from deshi.artifacts import read_json
from deshi.baselines import BASELINES
from deshi.evaluation import EvaluateResult
from tiny_movielens import SMALL

DAY = 86_400_000
START = 1_500_000_000_000
USERS, LENGTH, NEWCOMERS = 30, 20, 4


def write_events(path: Path) -> None:
    """30 users with an event a day for 20 days, 4 who arrive on day 18, and the item ``new`` from day 17 on."""
    random = np.random.default_rng(0)
    rows = []
    for user in range(USERS + NEWCOMERS):
        first = 0 if user < USERS else 18
        for day in range(first, LENGTH + (0 if user < USERS else 2)):
            item = "new" if day == 17 and user % 3 == 0 else f"i{(user + 3 * day + int(random.integers(2))) % 25}"
            rows.append({"user_id": f"u{user}", "item_id": item, "timestamp": START + day * DAY + user})
    pl.DataFrame(rows).write_csv(path)


@pytest.fixture(scope="module")
def temporal(tmp_path_factory: pytest.TempPathFactory) -> EvaluateResult:
    """Fitted before day 14, validated before day 17, tested after it, beside all baselines."""
    root = tmp_path_factory.mktemp("temporal")
    write_events(root / "events.csv")
    data = [f"paths.root={root}", "data=tabular", "data.name=clock", f"data.source.path={root / 'events.csv'}"]
    data += ["data.filters.min_history=1", "data.source.time_unit=ms"]
    split = ["split=temporal", f"split.validation_start={START + 14 * DAY}", f"split.test_start={START + 17 * DAY}"]
    deshi.prepare(*data)
    run = deshi.fit(*data, *split, *SMALL)
    result: EvaluateResult = deshi.evaluate(
        f"paths.root={root}", f"run={run.folder}", "part=both", "with_baselines=true"
    )
    return result


def test_every_stage_works_by_the_clock(temporal: EvaluateResult) -> None:
    """The split of the run is the split of its evaluation, its baselines and its slices."""
    record = read_json(temporal.folder / "run.json")
    assert record["protocol"]["split"]["name"] == "temporal" and not [w for w in temporal.warnings if "LEAK" in w]
    assert temporal.metrics["test/n_examples"] == temporal.metrics["validation/n_examples"] == USERS
    assert set(BASELINES) == set(temporal.baselines)
    assert set(temporal.slices["part"]) == {"validation", "test"}


def test_new_users_and_cold_items_are_counted_and_shown(temporal: EvaluateResult) -> None:
    """Leave-one-out hides them; with a clock they are part of the truth: 4 users x 4 events, 10 targets."""
    counts = read_json(temporal.folder / "run.json")["population"]
    assert counts["test"] == {
        "events": USERS * 3 + NEWCOMERS * 4,
        "examples": USERS,
        "targets": USERS,
        "cold_targets": 10,
        "new_users": NEWCOMERS,
        "events_of_new_users": NEWCOMERS * 4,
        "seen_targets": 8,
        "few_candidates": USERS,
    }
    assert counts["validation"]["new_users"] == counts["validation"]["cold_targets"] == 0
    note, catalogue, _ = temporal.notes
    assert catalogue.startswith("The catalogue has")
    assert note.startswith("16 of 106 test events have no example, since their 4 users have no history before the part")
    assert "10 of 30 test targets are cold (no training event)" in note and "16 of 106" in str(temporal)


def test_cold_targets_are_a_slice(temporal: EvaluateResult) -> None:
    """Their figures stand apart, and popularity can't find what nobody had."""
    cold = temporal.slices.filter((pl.col("value") == "cold") & (pl.col("part") == "test"))
    assert set(cold["n_examples"]) == {10} and set(cold["model"]) == {temporal.model, *temporal.baselines}
    assert cold.filter(pl.col("model") == "popularity")["hr@1"].item() == 0.0
    assert np.isfinite(temporal.metrics["test/novelty@10"])
