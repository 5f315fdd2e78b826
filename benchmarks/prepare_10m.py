"""Time and peak memory of `deshi prepare` for 10 million synthetic interactions.

python benchmarks/prepare_10m.py [--rows 10000000] [--format parquet|csv] [--folder FOLDER]

The data are made in one child process and prepared in another, whose seconds, CPU seconds and peak resident memory
(all of the process: Python, imports, reading, filters, bundle, statistics and picture) are printed.
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

N_USERS, N_ITEMS = 250_000, 60_000
FILTERS = {"min_rating": 2.0, "duplicates": "last", "min_user_interactions": 5, "min_item_interactions": 5}


def generate(path: Path, rows: int) -> None:
    """Write random interactions in random order: log-normal activity, power-law popularity, string ids, seconds."""
    import numpy as np
    import polars as pl

    generator = np.random.default_rng(0)
    activity = np.cumsum(generator.lognormal(3.0, 1.1, N_USERS))
    users = np.searchsorted(activity, generator.random(rows) * activity[-1])
    items = (generator.pareto(0.8, rows) * 50).astype(np.int64) % N_ITEMS
    frame = pl.DataFrame(
        {
            "user": pl.Series(users).cast(pl.String),
            "item": pl.Series(items).cast(pl.String).str.zfill(9),
            "when": generator.integers(1_500_000_000, 1_600_000_000, rows),
            "stars": generator.integers(1, 6, rows).astype(np.float32),
        }
    ).with_columns(
        pl.concat_str(pl.lit("user-"), "user").alias("user"), pl.concat_str(pl.lit("B"), "item").alias("item")
    )
    if path.suffix == ".csv":
        frame.write_csv(path)
    else:
        frame.write_parquet(path)


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
    parser.add_argument("--format", choices=["parquet", "csv"], default="parquet")
    parser.add_argument("--folder", type=Path, help="where the temporary data go (default: the system's)")
    parser.add_argument("--generate", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.generate:
        return generate(options.generate, options.rows)
    if options.prepare:
        return prepare(options.prepare)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / f"interactions.{options.format}"
        child("--generate", str(path), "--rows", str(options.rows))
        measured = json.loads(child("--prepare", str(path)))
    figures = {
        "rows": options.rows,
        "format": options.format,
        **{name: round(value, 2) for name, value in measured.items()},
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
