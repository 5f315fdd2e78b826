"""What an answer costs: the time of one, and what must lie in memory for it, for runs beside one another.

    python benchmarks/answer_cost.py plain=RUN teacher=RUN distilled=RUN [--requests 200] [--threads 1]

Each run (a folder of deshi fit, teach or distill) is loaded in a process of its own, in turn, and asked for the 10
best items after whole histories of its data set's users, one history at a time; the first 20 answers are left out. Time
is that of the process summed over its threads, so that a busy machine doesn't matter much, with the wall time beside
it. Numbers are all distinct tensors that the loaded run holds, whatever it is made of: weights, item vectors, the
language model. Where a run has a serving bundle (deshi export RUN), its engine is measured too.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

import deshi
from deshi.data.bundle import Bundle
from deshi.serving.latency import latencies

WARM_UP = 20
BUNDLE = "serving"

Ask = Callable[[], object]


def main() -> None:
    options = arguments()
    if options.way:
        folder = Path(options.runs[0].rpartition("=")[2])
        print(json.dumps(measure(folder, options.way, options.requests, options.threads)))
        return
    print(
        "| model | CPU time of an answer, p50, p99 | wall, p50, p99 | numbers | process, GiB |\n" + "| --- " * 5 + "|"
    )
    for named in options.runs:
        name, _, folder = named.rpartition("=")
        ways = ["torch"] + (["engine"] if (Path(folder) / BUNDLE).is_dir() else [])
        for way in ways:
            asked = [f"={folder}", f"--way={way}", f"--requests={options.requests}", f"--threads={options.threads}"]
            done = subprocess.run([sys.executable, __file__, *asked], stdout=subprocess.PIPE, text=True)
            if done.returncode:
                sys.exit(f"Measuring {folder} failed with status {done.returncode}; the reason stands above.")
            cost = json.loads(done.stdout.splitlines()[-1])
            label = (name or Path(folder).name) + (" exported, ONNX" if way == "engine" else "")
            print(
                f"| {label} | {cost['cpu'][0]:.2f} ms, {cost['cpu'][1]:.2f} ms | {cost['wall'][0]:.2f} ms, "
                f"{cost['wall'][1]:.2f} ms | {cost['mib']:,.1f} MiB | {cost['gib']:.2f} |",
                flush=True,
            )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--way", choices=["torch", "engine"], help="measure the one run here and print JSON")
    options = parser.parse_args()
    folders = [Path(named.rpartition("=")[2]) for named in options.runs]
    missing = [str(folder) for folder in folders if not (folder / "config.yaml").is_file()]
    if missing:
        parser.error(f"expected folders of finished runs, such as runs/fit/NAME; no run is at {', '.join(missing)}")
    return options


def measure(folder: Path, way: str, requests: int, threads: int) -> dict[str, object]:
    """Times in ms, the size of what is held in MiB and the process's resident memory in GiB."""
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    bundle = Bundle.load(Path(config["paths"]["data"]) / config["data"]["name"])
    users = np.random.default_rng(0).integers(0, bundle.n_users, requests + WARM_UP)
    load = with_engine if way == "engine" else with_torch
    asks, size = load(folder, bundle, users, threads)
    walls, processes = latencies(asks)
    resident = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    quantiles = {
        name: np.quantile(values[WARM_UP:], [0.5, 0.99]).tolist()
        for name, values in (("cpu", processes), ("wall", walls))
    }
    return {**quantiles, "mib": size / 2**20, "gib": int(resident.split()[1]) / 2**20}


def with_engine(folder: Path, bundle: Bundle, users: NDArray[np.int64], threads: int) -> tuple[list[Ask], int]:
    """The requests to the engine of the run's serving bundle, without PyTorch, and the size of its graph."""
    engine, ids = deshi.load(folder / BUNDLE, threads=threads), bundle.vocabulary["item_id"]
    histories = [ids.gather(bundle.history(int(user))).to_list() for user in users]
    return [partial(engine.recommend, one, k=10) for one in histories], (folder / BUNDLE / "model.onnx").stat().st_size


def with_torch(folder: Path, bundle: Bundle, users: NDArray[np.int64], threads: int) -> tuple[list[Ask], int]:
    """The requests to the run itself, and the bytes of the tensors alive, each storage once."""
    import torch

    from deshi.data.sequences import history_batches
    from deshi.runs import Run

    torch.set_num_threads(threads)
    scorer = Run(folder).scorer(bundle=bundle)
    starts, ends = bundle.offsets[users], bundle.offsets[users + 1]
    parts = history_batches(np.asarray(bundle.items), users, starts, ends, int((ends - starts).max()), 1)
    asks: list[Ask] = [partial(best_items, scorer, batch) for _, batch in parts]
    alive = [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor)]
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in alive}
    return asks, sum(storages.values())


def best_items(scorer: Any, batch: Any) -> object:
    """The answer that is timed: the 10 best items of a batch."""
    return scorer.scores(batch).topk(10)


if __name__ == "__main__":
    main()
