"""What `train.precision=auto` measures for students of several widths, beside whole epochs in both formats.

python benchmarks/precision.py [--dims 16 32 64 128]

Seconds are the processor's for this process, so that other programs' work doesn't count. One thread.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile

import numpy as np
import polars as pl
import torch

import deshi
from deshi.configuration.targets import build
from deshi.distillation.objective import Objective
from deshi.runs import load_bundle, new_network
from deshi.stages import compose
from deshi.training._precision import _seconds, bf16_share
from deshi.training.module import TrainingModule
from deshi.training.trainer import data_module, target_counts

ITEMS, USERS, LENGTH = 800, 1_000, 50


def main() -> None:
    """Print a row for each width."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", type=int, nargs="+", default=[16, 32, 64, 128])
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    events = pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(USERS), LENGTH),
            "item_id": generator.integers(0, ITEMS, USERS * LENGTH),
            "timestamp": np.tile(np.arange(LENGTH), USERS),
        }
    )
    with tempfile.TemporaryDirectory() as root:
        data = deshi.Dataset.from_frames(events, name="random", time_unit="position")
        deshi.prepare(data, f"paths.root={root}")
        print(
            "| dim | bf16 / fp32 by auto, three times | epoch in bf16, s | in fp32, s |\n| ---: | --- | ---: | ---: |"
        )
        for dim in options.dims:
            print(_row(root, dim), flush=True)


def _row(root: str, dim: int) -> str:
    cfg = compose("fit", ["data.name=random", f"student.dim={dim}", f"paths.root={root}"], {}, None)
    bundle = load_bundle("random", cfg.paths.data)
    split = build(cfg.split)(bundle)
    shares = ", ".join(f"{bf16_share(cfg, bundle, split):.2f}" for _ in range(3))
    starts, ends = split.train_ranges(bundle, "train")
    network, objective = new_network(cfg, bundle, bundle.n_items), Objective(build(cfg.loss))
    objective.set_counts(torch.from_numpy(target_counts(bundle, starts, ends)))
    objective.start_epoch([0, 0, 3], 0.0)
    batches = list(data_module(cfg, bundle, starts, ends, None, network.max_length).epoch(0))
    module = TrainingModule(network, objective, cfg.train, 1, 0).train()
    optimizer = module.configure_optimizers()["optimizer"]
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(3):
        for bf16 in (True, False):  # in turns
            seconds[bf16].append(sum(_seconds(module, optimizer, batch, bf16) for batch in batches))
    return f"| {dim} | {shares} | {statistics.median(seconds[True]):.2f} | {statistics.median(seconds[False]):.2f} |"


if __name__ == "__main__":
    main()
