"""Offline ranks against the lists that the exported bundle serves after the same histories, repeats or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import deshi
from deshi.runs import Run
from deshi.serving import Engine
from deshi.types import ITEM, USER
from tiny_bundles import random_sequences

ITEMS, K = 12, 3
SMALL = ["student.dim=8", "student.max_length=8", "train.max_epochs=1", "train.threads=1", "train.progress=false"]


def _groceries() -> list[list[int]]:
    """A few staples, bought again and again, among other items."""
    random, weights = np.random.default_rng(3), np.r_[np.full(4, 6.0), np.ones(ITEMS - 4)]
    return [random.choice(ITEMS, 14, p=weights / weights.sum()).tolist() for _ in range(25)]


DATA: dict[str, Callable[[], Sequence[Sequence[int]]]] = {
    "none": lambda: random_sequences(25, ITEMS, 4, 9),
    "some": lambda: [[(user + event // 3) % 5 for event in range(9)] for user in range(20)],
    "everything": lambda: [[(user + event * 3) % 10 for event in range(30)] for user in range(20)],
    "groceries": _groceries,
}
SPLITS = {
    "next": ["split=leave-one-out"],
    "all": ["split=temporal", "split.targets=all", "split.validation_share=0.2", "split.test_share=0.2"],
}


CASES = [
    ("none", "next", True),
    ("some", "next", True),
    ("some", "next", False),
    ("everything", "next", True),
    ("everything", "all", False),
    ("groceries", "all", True),
    ("groceries", "all", False),
]
"""Data, targets and eval.filter_seen: each value beside each kind of repeats; an export takes seconds."""


@pytest.fixture
def prepared(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """One of the data sets, prepared from a csv file."""
    rows = [
        (f"u{user}", f"i{item}", 1_600_000_000 + 1000 * event + user)
        for user, history in enumerate(DATA[request.param]())
        for event, item in enumerate(history)
    ]
    pl.DataFrame(rows, ["user", "item", "time"], orient="row").write_csv(tmp_path / "events.csv")
    deshi.prepare(*data_of(tmp_path), f"paths.root={tmp_path}")
    return request.param, tmp_path


def data_of(root: Path) -> list[str]:
    """The overrides that name the data set."""
    columns = ["user=user", "item=item", "timestamp=time"]
    return ["data=tabular", "data.name=shop", f"data.source.path={root / 'events.csv'}",
            *(f"data.source.{column}" for column in columns)]  # fmt: skip


@pytest.mark.parametrize(("prepared", "targets", "filter_seen"), CASES, indirect=["prepared"])
def test_a_rank_is_the_position_in_the_served_list(
    prepared: tuple[str, Path], targets: str, filter_seen: bool, tmp_path: Path
) -> None:
    """A figure that no served list can reach is a promise that nobody keeps."""
    repeats, root = prepared
    run = deshi.fit(*data_of(root), *SPLITS[targets], *SMALL, f"paths.root={root}", f"eval.filter_seen={filter_seen}")
    evaluated = deshi.evaluate(f"run={run.folder}", f"paths.root={root}")  # ranks as the run is served
    engine = deshi.load(deshi.export(f"run={run.folder}", f"paths.root={root}", f"output={tmp_path / 'out'}").folder)
    assert engine.bundle.filter_seen is filter_seen
    _assert_with_counts(run, root, tmp_path / "counted")
    examples, histories = run.split.examples(run.bundle, "test"), _histories(run)
    lists, positions = _served(engine, histories, evaluated.ranks)
    assert evaluated.ranks["rank"].to_list() == positions
    assert evaluated.ranks["n_candidates"].to_list() == [len(lists[row]) for row in evaluated.ranks["example"]]
    served = [any(position <= K for position in served) for served in _by_example(positions, examples.owners)]
    assert np.isfinite(list(evaluated.metrics.values())).all(), evaluated.metrics
    assert _hits(evaluated.ranks) == pytest.approx(np.mean(served))
    assert _of_run(run, histories) == lists
    repeated = examples.seen_targets(run.bundle.items)
    assert np.isinf(positions).tolist() == (repeated & filter_seen).tolist()
    assert {"none": not repeated.any(), "everything": repeated.all()}.get(repeats, repeated.any())


def _histories(run: Run) -> list[list[str]]:
    """Those of the test examples, as ids."""
    examples, ids = run.split.examples(run.bundle, "test"), run.bundle.vocabulary[ITEM]
    rows = zip(examples.starts, examples.ends, strict=True)
    return [ids.gather(run.bundle.items[start:end]).to_list() for start, end in rows]


def _served(
    engine: Engine, histories: Sequence[Sequence[str]], ranks: pl.DataFrame
) -> tuple[list[list[str]], list[float]]:
    """The list that is served after each history, and the place of each row's target in it."""
    lists = [[item.item_id for item in engine.recommend(history, k=engine.n_items).items] for history in histories]
    positions = [
        lists[row["example"]].index(row[ITEM]) + 1 if row[ITEM] in lists[row["example"]] else np.inf
        for row in ranks.iter_rows(named=True)
    ]
    return lists, positions


def _assert_with_counts(run: Run, root: Path, folder: Path) -> None:
    """The same of a bundle with counts, whose figures are those of ``deshi evaluate served=``."""
    engine = deshi.load(deshi.export(f"run={run.folder}", f"paths.root={root}", f"output={folder}", "counts=3").folder)
    evaluated = deshi.evaluate(f"run={run.folder}", f"paths.root={root}", f"served={folder}")
    assert evaluated.model == "sasrec+counts" and engine.bundle.pair_table is not None
    assert evaluated.ranks["rank"].to_list() == _served(engine, _histories(run), evaluated.ranks)[1]


def _by_example(positions: Sequence[float], owners: np.ndarray) -> list[list[float]]:
    return [[p for p, owner in zip(positions, owners, strict=True) if owner == example] for example in set(owners)]


def _hits(ranks: pl.DataFrame) -> float:
    return float(ranks.group_by("example").agg((pl.col("rank") <= K).any())["rank"].mean())  # type: ignore[arg-type]


def _of_run(run: Run, histories: Sequence[Sequence[str]]) -> list[list[str]]:
    """The lists of ``run.recommend``, which filters as the run was validated."""
    frame = run.recommend(pl.DataFrame({USER: [f"{n:02}" for n in range(len(histories))], "items": histories}), k=ITEMS)
    by_user = dict(zip(*frame.group_by(USER).agg(ITEM).get_columns(), strict=True))
    return [list(by_user.get(f"{number:02}", [])) for number in range(len(histories))]
