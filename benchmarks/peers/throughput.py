"""Training throughput of SASRec: deshi against RecTools and RecBole, one machine, one run.

    python benchmarks/peers/throughput.py [--data FILE] [--rounds 3] [--seconds 60]

A position is one training target (a history, its next item) that the optimizer saw. All arms train the same network
size on the same events with full softmax, on the same cores; only training steps are timed (forward, loss, backward,
optimizer), after a warm-up. The arms take turns, so that a machine that slows down slows all of them. The first run
builds the libraries' environments (build.py). Leave the machine alone meanwhile: "cores used" below about 95 % says
that something else was running.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from build import HERE, PEERS, build, cache

DATA = HERE.parents[2] / "shared" / "data" / "ml-1m" / "interactions.tsv"
ARMS = ("deshi", "deshi@fp32", "rectools:128", "recbole:2048", "recbole:256")
ENVIRONMENTS = {peer: peer for peer in PEERS} | {"rectools_fast": "rectools"}
REQUIRED = {"rectools": 6.0, "rectools_fast": 6.0, "recbole": 300.0}


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="tsv with the columns user, item, position")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), help="each TOOL[:BATCH][@PRECISION] (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="times that every arm runs")
    parser.add_argument("--seconds", type=float, default=60.0, help="timed training steps of an arm in a round")
    parser.add_argument("--threads", type=int, default=2, help="cores, the same for every arm")
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument(
        "--feed-forward", type=float, default=1.0, help="of deshi's layers, in widths (fast RecTools: 4)"
    )
    parser.add_argument("--output", type=Path, help="json (default: throughput.json in the cache folder)")
    return parser.parse_args()


def run_arm(arm: str, args: argparse.Namespace) -> dict[str, Any]:
    """Run one arm in its environment, in a folder of its own, and return what it reports."""
    tool, batch, precision = parts(arm)
    python = build(ENVIRONMENTS[tool]) if tool in ENVIRONMENTS else Path(sys.executable)
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        command = [str(python), str(HERE / f"{tool}_sasrec.py"), "--data", str(args.data.resolve()), "--work", folder]
        for name in ("seconds", "threads", "dropout"):
            command += [f"--{name}={getattr(args, name)}"]
        command += ["--batch", batch] if batch else []
        command += ["--precision", precision] if precision else []
        command += [f"--feed-forward={args.feed_forward}"] if tool == "deshi" else []
        done = subprocess.run(command, cwd=folder, env=environment(args.threads), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"The arm {arm} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result | {"arm": arm}


def parts(arm: str) -> tuple[str, str, str]:
    """Tool, batch size and precision of ``TOOL[:BATCH][@PRECISION]``; what isn't given is empty."""
    left, _, precision = arm.partition("@")
    tool, _, batch = left.partition(":")
    return tool, batch, precision


def environment(threads: int) -> dict[str, str]:
    """This process's environment with every thread pool set to ``threads``."""
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")
    return dict(os.environ) | dict.fromkeys(pools, str(threads))


def restrict_cores(threads: int) -> list[int]:
    """Keep this process and its arms on the first ``threads`` cores, where the system allows it."""
    if not hasattr(os, "sched_setaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))[:threads]
    os.sched_setaffinity(0, cores)
    return cores


def machine(cores: list[int]) -> dict[str, Any]:
    """The processor's name, and what it was doing before."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"processor": names[0] if names else "unknown", "cores": cores, "load_before": os.getloadavg()}


def summarise(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per arm: lowest, median and highest positions/s over its rounds."""
    rows = []
    for arm in dict.fromkeys(run["arm"] for run in runs):
        mine = [run for run in runs if run["arm"] == arm]
        speeds = [run["positions_per_second"] for run in mine]
        rows.append(
            {
                "arm": arm,
                "tool": mine[0]["tool"],
                "min": min(speeds),
                "median": statistics.median(speeds),
                "max": max(speeds),
                "with_loading": statistics.median(run["positions_per_wall_second"] for run in mine),
                "per_cpu_second": statistics.median(run["positions_per_cpu_second"] for run in mine),
                "cpu_share": min(run["cpu_share"] for run in mine),
                "targets": sum(run["targets"] for run in mine),
                "steps": sum(run["steps"] for run in mine),
                "seconds": sum(run["seconds"] for run in mine),
                "parameters": mine[0]["parameters"],
                "peak_memory_gib": max(run["peak_memory_gib"] for run in mine),
                "settings": mine[0]["settings"],
                "versions": mine[0]["versions"],
            }
        )
    return rows


def ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many times faster deshi is than each peer's fastest arm: by medians, and slowest round by fastest."""
    ours = [row for row in rows if row["tool"] == "deshi"]
    if not ours:
        return []
    best = max(ours, key=lambda row: row["median"])
    found = []
    for tool in dict.fromkeys(row["tool"] for row in rows if row["tool"] != "deshi"):
        rival = max((row for row in rows if row["tool"] == tool), key=lambda row: row["median"])
        ratio = best["median"] / rival["median"]
        worst = best["min"] / rival["max"]
        cpu = best["per_cpu_second"] / rival["per_cpu_second"]
        aim = REQUIRED.get(tool, 1.0)
        found.append(
            {
                "deshi": best["arm"],
                "against": rival["arm"],
                "ratio": ratio,
                "lowest": worst,
                "per_cpu_second": cpu,
                "required": aim,
                "met": ratio >= aim,
            }
        )
    return found


def show(rows: list[dict[str, Any]], found: list[dict[str, Any]]) -> None:
    """Print both tables as Markdown."""
    print("\n| arm | precision | positions/s: min | median | max | with loading | parameters | targets | cores used |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        speeds = " | ".join(f"{row[name]:,.0f}" for name in ("min", "median", "max", "with_loading"))
        counts = f"{row['parameters']:,} | {row['targets']:,} | {row['cpu_share']:.0%}"
        print(f"| {row['arm']} | {row['settings']['precision']} | {speeds} | {counts} |")
    print("\n| ratio of medians | times | slowest / fastest round | per core-second | required | met |")
    print("| --- | ---: | ---: | ---: | ---: | --- |")
    for row in found:
        times = f"{row['ratio']:,.1f} | {row['lowest']:,.1f} | {row['per_cpu_second']:,.1f} | {row['required']:,.0f}"
        print(f"| {row['deshi']} / {row['against']} | {times} | {'yes' if row['met'] else 'no'} |")
    for row in rows:
        print(f"\n{row['arm']}: " + ", ".join(f"{name} {version}" for name, version in row["versions"].items()))


def main() -> None:
    """Run every arm ``--rounds`` times in turn, print the tables, write the JSON."""
    args = options()
    if not args.data.exists():
        sys.exit(f"{args.data} doesn't exist. Name an interactions file with --data (columns user, item, position).")
    cache().mkdir(parents=True, exist_ok=True)
    for tool in dict.fromkeys(parts(arm)[0] for arm in args.arms):
        if tool in ENVIRONMENTS:
            build(ENVIRONMENTS[tool])
        elif not (HERE / f"{tool}_sasrec.py").exists():
            sys.exit(f"Unknown arm {tool!r}, expected deshi, {' or '.join(ENVIRONMENTS)}, as TOOL[:BATCH][@PRECISION].")
    output = args.output or cache() / "throughput.json"
    report: dict[str, Any] = {"machine": machine(restrict_cores(args.threads)), "data": str(args.data), "runs": []}
    for number in range(args.rounds):
        for arm in args.arms:
            result = run_arm(arm, args)
            report["runs"].append(result)
            output.write_text(json.dumps(report, indent=2) + "\n")
            line = f"{result['positions_per_second']:,.0f} positions/s ({result['targets']:,} targets"
            used = f"in {result['seconds']:.1f} s, {result['cpu_share']:.0%} of the cores)"
            print(f"round {number + 1} {arm}: {line} {used}", file=sys.stderr, flush=True)
    report["summary"] = summarise(report["runs"])
    report["ratios"] = ratios(report["summary"])
    show(report["summary"], report["ratios"])
    output.write_text(json.dumps(report, indent=2) + "\n")
    print(f"\nwrote {output}")


if __name__ == "__main__":
    main()
