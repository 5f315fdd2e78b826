"""Time and memory of `deshi compare` on evaluations of the size of MovieLens-1M: 20 models, 6,040 users, all 190 pairs.

    python benchmarks/compare_speed.py [--models 20] [--users 6040] [--permutations N]

Writes evaluations with random ranks into a temporary folder (users differ in how hard they are, models in how good
they are, so that the tests have both ties and differences), then runs the whole stage once, imports included. The
bound is 10 s of wall time on 2 free cores; on a busy machine read the process time (summed over the threads).
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import yaml

import deshi
from deshi.artifacts import write_json
from deshi.runs import write_record

ITEMS = 3416
METRICS = ["ndcg@10", "recall@10", "mrr@10", "ndcg@20"]
BOUND = 10.0


def write_evaluation(root: Path, number: int, hardness: np.ndarray, generator: np.random.Generator) -> None:
    """One fit run's configuration and its evaluation; model ``number`` ranks a little better than the one before."""
    quality = 0.02 * number
    noise = generator.normal(0, 0.7, len(hardness))
    ranks = np.clip(np.exp(hardness - quality + noise).astype(np.int64), 1, ITEMS).astype(np.float64)
    users = np.arange(len(hardness))
    run = root / "runs" / "fit" / f"20260101-{number:06d}_ml-1m_sasrec"
    folder = root / "runs" / "evaluate" / f"20260102-{number:06d}_ml-1m_sasrec"
    run.mkdir(parents=True)
    folder.mkdir(parents=True)
    config = {"student": {"_target_": "deshi.models.sasrec.SASRec", "dim": 8 * (number + 1)}, "seed": 0}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "config.yaml").write_text("{}\n")
    (run / "epochs.csv").write_text("epoch\n1\n")
    write_record(run, {"stage": "fit"})
    record = {
        "stage": "evaluate",
        "model": "sasrec",
        "run": str(run),
        "fit": {"student": "sasrec", "seed": 0, "refit": False},
        "data": "ml-1m",
        "data_fingerprint": "0" * 64,
        "protocol": {"candidates": "full", "filter_seen": True},
        "protocol_fingerprint": "0" * 64,
        "warnings": [],
    }
    write_record(folder, record)
    write_json(folder / "metrics.json", {"test/n_examples": len(users)})
    frame = pl.DataFrame(
        {
            "part": "test",
            "example": users,
            "user": users,
            "user_id": pl.Series(users + 1).cast(pl.String),
            "target": users % ITEMS,
            "item_id": pl.Series(users % ITEMS).cast(pl.String),
            "rank": ranks,
            "n_candidates": ITEMS - 165,
        }
    )
    frame.write_parquet(folder / "ranks.parquet")


def main() -> int:
    parser = argparse.ArgumentParser(description="Time of deshi compare on synthetic evaluations.")
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--users", type=int, default=6040)
    parser.add_argument("--permutations", type=int, default=None)
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    hardness = generator.normal(3.5, 1.6, arguments.users)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.models):
            write_evaluation(Path(folder), number, hardness, generator)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        wall, process = time.perf_counter(), time.process_time()
        result = deshi.compare(
            f"paths.root={folder}", runs=["*_ml-1m_*"], metrics=METRICS, permutations=arguments.permutations
        )
        wall, process = time.perf_counter() - wall, time.process_time() - process
    print(result.comparison.figures["sasrec dim=8"]["ndcg@10"])
    significant = sum(test.permutation_holm < 0.05 for test in result.comparison.tests)
    print(
        f"{len(result.comparison.models)} models, {len(result.comparison.tests)} tests of which {significant} are "
        f"significant, {result.comparison.permutations:,} sign flips"
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"wall {wall:.2f} s, process {process:.2f} s, peak memory {peak:.0f} MiB ({memory:.0f} MiB before)")
    print("within" if wall < BOUND else "ABOVE", f"the bound of {BOUND:.0f} s")
    return 0 if wall < BOUND else 1


if __name__ == "__main__":
    raise SystemExit(main())
