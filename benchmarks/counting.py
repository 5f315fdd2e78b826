"""CPU time and peak memory of counting item pairs, by the size of the catalogue.

    python benchmarks/counting.py --items 60000 1000000 --rows 10000000

Histories are synthetic: log-normal activity of a user for every ten events, half of the events of popular items (a
power law), half of any. Pairs up to 20 events apart count, as ``pairwise`` does by default. Each size is measured in a
process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

from deshi.baselines._pair_counts import count_pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[60_000, 1_000_000])
    parser.add_argument("--rows", type=int, default=10_000_000, help="events")
    options = parser.parse_args()
    if len(options.items) == 1:
        return measure(options.items[0], options.rows)
    print("| items | events | pairs | counts kept | CPU time | peak memory |\n| --- | --- | --- | --- | --- | --- |")
    for items in options.items:
        command = [sys.executable, __file__, f"--items={items}", f"--rows={options.rows}"]
        result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        print(
            f"| {items:,} | {options.rows:,} | {result['pairs']:,} | {result['counts']:,} | {result['seconds']:.0f} s "
            f"| {result['gib']:.1f} GiB |",
            flush=True,
        )


def measure(n_items: int, rows: int) -> None:
    """Count once and print the figures as a line of JSON."""
    generator = np.random.default_rng(0)
    activity = np.cumsum(generator.lognormal(0.0, 1.0, max(1, rows // 10)))
    users = np.searchsorted(activity, np.sort(generator.random(rows)) * activity[-1])
    shares = np.cumsum(np.arange(1, n_items + 1) ** -0.8)
    popular = np.searchsorted(shares, generator.random(rows) * shares[-1])
    items = np.where(generator.random(rows) < 0.5, popular, generator.integers(n_items, size=rows))
    items = generator.permutation(n_items)[items]
    weights = 0.7 ** np.arange(20, dtype=np.float64)
    pairs = sum(int((users[distance:] == users[:-distance]).sum()) for distance in range(1, len(weights) + 1))
    before = time.process_time()
    counts = count_pairs(users, items, n_items, weights)
    seconds = time.process_time() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"pairs": pairs, "counts": counts.nnz, "seconds": seconds, "gib": peak}))


if __name__ == "__main__":
    main()
