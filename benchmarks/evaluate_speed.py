"""Time of an exact full ranking of the size of MovieLens-1M: 6,040 users x 3,416 items, seen items filtered.

    python benchmarks/evaluate_speed.py [--threads 2] [--repeats 5]

Random states and histories, so that no download is needed. Three ways: from a full score matrix (what validation does
during training); the whole evaluation of a bundle by a baseline, with top-50 lists, per-user frame and all metrics of
accuracy; and the same with all that deshi evaluate measures of a student: diversity of random item vectors, calibration
and slices too. The bound is 2 s of wall time on 2 free cores for each; the process time beside it is what to read on a
busy machine (it is summed over the threads).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import torch

from deshi.baselines import Popularity
from deshi.data.bundle import Bundle, write_bundle
from deshi.data.splits import LeaveOneOut
from deshi.data.vocabulary import Events
from deshi.evaluation import EvaluationSet, RankedExamples, evaluate_ranks, measure_model, summarise
from deshi.metrics import exact_ranks, metrics_from_ranks

USERS, ITEMS, DIM, LENGTH = 6040, 3416, 128, 165
KS = [1, 5, 10, 20, 50]
BOUND = 2.0


def random_bundle(folder: Path, generator: np.random.Generator) -> Bundle:
    """Histories of ``LENGTH`` distinct random items for every user."""
    items = np.argsort(generator.random((USERS, ITEMS), dtype=np.float32), axis=1)[:, :LENGTH]
    frame = pl.DataFrame(
        {
            "user": np.repeat(np.arange(USERS, dtype=np.int32), LENGTH),
            "item": items.ravel().astype(np.int32),
            "timestamp": np.tile(np.arange(LENGTH), USERS),
        }
    )
    ids = [pl.Series([f"{letter}{number}" for number in range(size)]) for letter, size in (("u", USERS), ("i", ITEMS))]
    return write_bundle(folder / "random", "random", Events(ids[0], ids[1], frame), time_unit="position")


def measure(name: str, work: Callable[[], object], repeats: int) -> float:
    """Print and return the best wall time of ``repeats`` runs after one to warm up."""
    work()
    walls, processes = [], []
    for _ in range(repeats):
        wall, process = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        processes.append(time.process_time() - process)
    print(f"{name:<34} wall {min(walls):6.3f} s (median {np.median(walls):.3f}), process {min(processes):6.3f} s")
    return min(walls)


def main() -> int:
    parser = argparse.ArgumentParser(description="Time of exact full ranking, 6,040 users x 3,416 items.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch_generator = torch.Generator().manual_seed(0)
    hidden, table = (torch.randn(size, DIM, generator=torch_generator) for size in (USERS, ITEMS))
    targets = torch.randint(0, ITEMS, (USERS,), generator=torch_generator)
    seen = torch.randint(0, ITEMS, (USERS, LENGTH), generator=torch_generator)
    scores = hidden @ table.T
    with tempfile.TemporaryDirectory() as folder:
        bundle = random_bundle(Path(folder), np.random.default_rng(0))
        split = LeaveOneOut()(bundle)
        examples, scorer = split.examples(bundle, "test"), Popularity().fit(bundle, *split.train_ranges(bundle))

        def whole() -> object:
            ranking = evaluate_ranks(scorer, bundle, examples)
            return summarise(ranking.ranks, ranking.top_items, KS, ITEMS)

        counts, vectors = np.bincount(bundle.items, minlength=ITEMS), table.numpy()
        parts = {"test": RankedExamples(examples)}
        evaluation_set = EvaluationSet(bundle, parts, counts, KS, filter_seen=True, batch_size=512)

        slowest = max(
            measure(
                "ranks and metrics from scores",
                lambda: metrics_from_ranks(exact_ranks(scores, targets, seen), KS),
                arguments.repeats,
            ),
            measure("whole evaluation, popularity", whole, arguments.repeats),
            measure(
                "all that is measured",
                lambda: measure_model(scorer, evaluation_set, "cpu", vectors),
                arguments.repeats,
            ),
        )
    print(f"slowest {slowest:.3f} s: {'within' if slowest < BOUND else 'ABOVE'} the bound of {BOUND:.0f} s")
    return 0 if slowest < BOUND else 1


if __name__ == "__main__":
    raise SystemExit(main())
