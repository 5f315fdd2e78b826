"""Two processes of one thread beside one process of one thread: seconds of a step, computing and talking apart.

python benchmarks/devices.py [--dim 64] [--items 3500] [--users 3000] [--epochs 4]

Random events, SASRec, the default batches. A fit's seconds are those of its epochs but the first and the last, the
first process's alone; "computes" is the step without the trainer: forward, backward, clipping, optimizer. What a
process of two spends beyond it is the trainer and the exchange of gradients. The wall ratio holds for free cores only:
the load stands beside it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import polars as pl
import torch

import deshi
from deshi.configuration.targets import build
from deshi.data.rank_batches import RankBatches
from deshi.distillation.objective import Objective
from deshi.runs import load_bundle, new_network
from deshi.stages import compose
from deshi.training._callbacks import LearningCurve
from deshi.training._precision import _seconds
from deshi.training.module import TrainingModule
from deshi.training.trainer import data_module, target_counts

LENGTH = 100


def main() -> None:
    """Print the seconds of a step by the number of processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--items", type=int, default=3_500)
    parser.add_argument("--users", type=int, default=3_000)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        _prepare(root, options)
        words = [
            f"paths.root={root}", "data.name=random", f"student.dim={options.dim}", "train.precision=fp32",
            "train.threads=1", "train.accelerator=cpu", "train.progress=false",
        ]  # fmt: skip
        steps, computing = _computing(words)
        print("| processes | computes, CPU s a step | fit, CPU s a step | fit, wall s a step |")
        print("| ---: | ---: | ---: | ---: |")
        walls = []
        for devices in (1, 2):
            cpu, wall = _fit([*words, f"train.devices={devices}"], options.epochs)
            walls.append(wall / steps)
            print(f"| {devices} | {computing[devices]:.4f} | {cpu / steps:.4f} | {walls[-1]:.4f} |", flush=True)
        load = os.getloadavg()[0]
        print(
            f"\nwall ratio {walls[0] / walls[1]:.2f}, {steps} steps an epoch, load {load:.1f} of {os.cpu_count()} cores"
        )


def _prepare(root: str, options: argparse.Namespace) -> None:
    generator, size = np.random.default_rng(0), options.users * LENGTH
    events = pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(options.users), LENGTH),
            "item_id": generator.integers(0, options.items, size),
            "timestamp": np.tile(np.arange(LENGTH), options.users),
        }
    )
    deshi.prepare(deshi.Dataset.from_frames(events, name="random", time_unit="position"), f"paths.root={root}")


def _computing(words: list[str]) -> tuple[int, dict[int, float]]:
    """The steps of an epoch, and CPU seconds of one on whole batches and on the first of two processes' parts."""
    cfg = compose("fit", words, {}, None)
    bundle = load_bundle("random", cfg.paths.data)
    starts, ends = build(cfg.split)(bundle).train_ranges(bundle, "train")
    network, objective = new_network(cfg, bundle, bundle.n_items), Objective(build(cfg.loss))
    objective.set_counts(torch.from_numpy(target_counts(bundle, starts, ends)))
    objective.start_epoch([0, 0, 3], 0.0)
    epoch = data_module(cfg, bundle, starts, ends, None, network.max_length).epoch(0)
    module = TrainingModule(network, objective, cfg.train, 1, 0).train()
    optimizer = module.configure_optimizers()["optimizer"]
    seconds: dict[int, float] = {}
    for devices in (1, 2):
        batches = list(epoch if devices == 1 else RankBatches(epoch, 0, devices))
        seconds[devices] = sum(_seconds(module, optimizer, batch, bf16=False) for batch in batches) / len(batches)
    return len(epoch), seconds


def _fit(words: list[str], epochs: int) -> tuple[float, float]:
    """CPU and wall seconds of an epoch without validation, on the first process."""
    with _clocked() as moments:
        deshi.fit(*words, f"train.max_epochs={epochs}", f"train.validate_every={epochs}")
    begin, end = moments[1], moments[epochs - 1]
    return (end[0] - begin[0]) / (epochs - 2), (end[1] - begin[1]) / (epochs - 2)


@contextmanager
def _clocked() -> Iterator[list[tuple[float, float]]]:
    """CPU and wall seconds at each epoch's beginning."""
    moments: list[tuple[float, float]] = []
    start = LearningCurve.on_train_epoch_start

    def clocked(self: LearningCurve, *arguments: Any) -> None:
        moments.append((time.process_time(), time.perf_counter()))
        start(self, *arguments)

    setattr(LearningCurve, "on_train_epoch_start", clocked)  # noqa: B010
    try:
        yield moments
    finally:
        setattr(LearningCurve, "on_train_epoch_start", start)  # noqa: B010


if __name__ == "__main__":
    main()
