"""Speed of a serving bundle: all users of a data set by deshi recommend, and single requests to the engine.

    python benchmarks/recommend_speed.py BUNDLE DATA [--k 100] [--threads 2] [--requests 2000]

BUNDLE is a folder of deshi export, DATA a data bundle (data/NAME) whose histories are asked. The bounds, for
MovieLens-1M on two free cores: all users, top 100, in 10 s, reading and writing included; a single request 2 ms at the
median. The process time beside each is summed over the threads: it is what to read on a busy machine. Each precision
that the bundle holds is measured.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

import deshi
from deshi.data.bundle import Bundle
from deshi.serving.bundle import ServingBundle
from deshi.serving.latency import latencies

BATCH_BOUND, MEDIAN_BOUND = 10.0, 2.0


def events_of(data: Bundle) -> pl.DataFrame:
    """A row an event, in the order of time, as another system would export them."""
    users = np.repeat(np.arange(data.n_users), np.diff(data.offsets))
    frame = pl.DataFrame(
        {
            "user_id": data.users["user_id"].gather(users),
            "item_id": data.vocabulary["item_id"].gather(np.asarray(data.items)),
            "timestamp": np.asarray(data.timestamps),
        }
    )
    return frame.sort("timestamp", maintain_order=True)


def measure_batch(bundle: Path, events: pl.DataFrame, folder: Path, precision: str, k: int, threads: int) -> float:
    """Print and return the wall time of a whole ``deshi recommend`` in this process, csv to parquet."""
    events.write_csv(folder / "events.csv")
    wall, process = time.perf_counter(), time.process_time()
    result = deshi.recommend(
        bundle=str(bundle), input=str(folder / "events.csv"), output=str(folder / "lists.parquet"), k=k,
        threads=threads, precision=precision, progress=False,
    )  # fmt: skip
    wall, process = time.perf_counter() - wall, time.process_time() - process
    print(
        f"{precision}: {result.users:,} users, {result.rows:,} rows, {threads} threads: wall {wall:.2f} s, "
        f"process {process:.2f} s"
    )
    return wall


def measure_single(bundle: Path, data: Bundle, precision: str, requests: int) -> float:
    """Print the latency of single requests for users' whole histories, top 10; return the median in ms."""
    engine = deshi.load(bundle, precision=precision)
    ids = data.vocabulary["item_id"]
    users = np.random.default_rng(0).integers(0, data.n_users, requests + 50)
    histories = [ids.gather(data.history(int(user))).to_list() for user in users]
    walls, processes = latencies([partial(engine.recommend, history, k=10) for history in histories])
    for name, values in (("wall", walls[50:]), ("process", processes[50:])):
        p50, p99 = np.quantile(values, [0.5, 0.99])
        print(f"{precision}: {requests} single requests, one thread, {name} p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    return float(np.median(walls[50:]))


def main() -> int:
    parser = argparse.ArgumentParser(description="Speed of deshi recommend and of the engine.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--requests", type=int, default=2000)
    arguments = parser.parse_args()
    data, served = Bundle.load(arguments.data), ServingBundle.load(arguments.bundle)
    batch, median = [], []
    with tempfile.TemporaryDirectory() as folder:
        events = events_of(data)
        for precision in served.precisions:
            median.append(measure_single(arguments.bundle, data, precision, arguments.requests))
            place = Path(folder)
            batch.append(measure_batch(arguments.bundle, events, place, precision, arguments.k, arguments.threads))
    within = batch[0] < BATCH_BOUND and median[0] < MEDIAN_BOUND
    print(f"fp32 is {'within' if within else 'ABOVE'} the bounds of {BATCH_BOUND:g} s and {MEDIAN_BOUND:g} ms")
    return 0 if within else 1


if __name__ == "__main__":
    raise SystemExit(main())
