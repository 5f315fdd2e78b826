"""Time and peak memory of `deshi prepare`, and of `deshi fit` on its bundle, for millions of synthetic interactions.

python benchmarks/prepare_scale.py [--rows 10000000] [--users 250000] [--items 60000] [--format parquet|csv] [--fit 2]

The data are made in one child process and prepared in another, whose seconds, CPU seconds and peak resident memory
(all of the process: Python, imports, reading, filters, bundle, statistics and picture) are printed. Filters: ratings of
2 and more, a user's latest event of an item, 5-core. `--fit MINUTES` then trains SASRec (d 32, sampled softmax) on all
users for so many minutes of an epoch and validates on 1,000 users.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

FILTERS = {"min_rating": 2.0, "duplicates": "last", "min_user_interactions": 5, "min_item_interactions": 5}
PART = 5_000_000
"""Rows of a parquet file."""


def generate(path: Path, options: argparse.Namespace) -> None:
    """Write random interactions in random order: log-normal activity, power-law popularity, string ids, seconds.

    Args:
        path: a folder of parquet files, or a csv file.
        options: of the command line.
    """
    import numpy as np

    generator = np.random.default_rng(0)
    activity = np.cumsum(generator.lognormal(3.0, 1.1, options.users))
    for number, begin in enumerate(range(0, options.rows, PART)):
        frame = interactions(activity, options.items, min(PART, options.rows - begin), generator)
        if options.format == "parquet":
            path.mkdir(exist_ok=True)
            frame.write_parquet(path / f"part-{number:04d}.parquet")
        else:
            with path.open("ab") as file:
                frame.write_csv(file, include_header=number == 0)


def interactions(activity: np.ndarray, n_items: int, rows: int, generator: np.random.Generator) -> pl.DataFrame:
    """Random rows; ``activity`` is the running sum of the users' shares."""
    import numpy as np
    import polars as pl

    # Sorted numbers are looked up ten times as fast; the rows are in random order all the same.
    users = generator.permutation(np.searchsorted(activity, np.sort(generator.random(rows) * activity[-1])))
    items = (generator.pareto(0.8, rows) * 50).astype(np.int64) % n_items
    return pl.DataFrame(
        {
            "user": users,
            "item": items,
            "when": generator.integers(1_500_000_000, 1_600_000_000, rows),
            "stars": generator.integers(1, 6, rows).astype(np.float32),
        }
    ).with_columns(pl.format("user-{}", "user").alias("user"), pl.format("B{}", pl.col("item") + 10**9).alias("item"))


def prepare(path: Path) -> None:
    """Run the stage on the file and print the result and the figures as one JSON line."""
    start = time.perf_counter()
    from deshi.configuration.schemas import PrepareConfig
    from deshi.data.prepare import run

    columns = {"user": "user", "item": "item", "timestamp": "when", "rating": "stars", "time_unit": "s"}
    source = {"_target_": "deshi.data.sources.tabular.Tabular", "path": str(path), **columns}
    config = PrepareConfig.model_validate(
        {
            "data": {"name": "synthetic", "source": source, "filters": FILTERS},
            "paths": {"root": str(path.parent), "cache": str(path.parent / "cache")},
        }
    )
    print(run(config))
    used = resource.getrusage(resource.RUSAGE_SELF)
    figures = {"seconds": time.perf_counter() - start, "cpu_seconds": used.ru_utime + used.ru_stime}
    print(json.dumps(figures | {"peak_gib": used.ru_maxrss / 2**20}))


def fit(folder: Path, minutes: float) -> dict[str, float]:
    """Train on the bundle in the folder by the command line, and return what it took."""
    settings = [
        "data=tabular", "data.name=synthetic", f"data.source.path={folder}", f"paths.root={folder}", "student=sasrec",
        "student.dim=32", "loss=sampled_softmax", f"train.max_minutes={minutes}", "train.max_epochs=1",
        "train.precision=fp32", "train.progress=false", "eval.max_validation_users=1000", "name=scale",
    ]  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "deshi", "fit", *settings])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"deshi fit failed with {os.waitstatus_to_exitcode(status)}")
    run = next((folder / "runs" / "fit").iterdir())
    record, seconds = (json.loads((run / f"{name}.json").read_text()) for name in ("run", "time"))
    # Weights, their best copy, gradients and AdamW's two moments: five numbers of four bytes for each parameter.
    return {
        "fit_positions": record["positions"],
        "fit_epoch_seconds": seconds["student_baseline_train_time"],
        "fit_cpu_seconds": usage.ru_utime + usage.ru_stime,
        "fit_peak_gib": usage.ru_maxrss / 2**20,
        "fit_parameters_gib": record["parameters"] * 4 * 5 / 2**30,
    }


def child(*arguments: str) -> str:
    """Run this file with ``arguments`` in a process of its own and return the last line that it prints."""
    command = [sys.executable, __file__, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [line for line in process.stdout if not print(line, end="")]
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {process.returncode}")
    return lines[-1] if lines else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, default=250_000)
    parser.add_argument("--items", type=int, default=60_000)
    parser.add_argument("--format", choices=["parquet", "csv"], default="parquet")
    parser.add_argument("--fit", type=float, metavar="MINUTES", help="also train for so long")
    parser.add_argument("--folder", type=Path, help="where the temporary data go (default: the system's)")
    parser.add_argument("--generate", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.generate:
        return generate(options.generate, options)
    if options.prepare:
        return prepare(options.prepare)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / ("interactions.csv" if options.format == "csv" else "interactions")
        sizes = [f"--{name}={getattr(options, name)}" for name in ("rows", "users", "items", "format")]
        child("--generate", str(path), *sizes)
        measured = json.loads(child("--prepare", str(path)))
        if options.fit:
            measured |= fit(Path(folder), options.fit)
    figures = {
        **{name: getattr(options, name) for name in ("rows", "users", "items", "format")},
        **{name: round(value, 2) for name, value in measured.items()},
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
