"""A training step's CPU time and memory by the size of the catalogue: the plot and the table of docs/scale.md.

python benchmarks/catalogue.py --items 10000 100000 1000000 10000000 --output benchmarks/results/catalogue-training.json
python benchmarks/catalogue.py --plot benchmarks/results/catalogue-training.json --image docs/scale.png

A step is forward, backward, clipping, optimizer and EMA of a SASRec on synthetic histories; the last kind also learns a
teacher's list of 100 items at every position (``listwise``). Items are drawn uniformly, so that nearly every row that a
step reads is cold: the worst case. Each cell is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deshi.configuration.schemas import TrainConfig
from deshi.distillation.listwise import ListwiseKL
from deshi.distillation.objective import Distillation, Objective
from deshi.distillation.soft_label_batches import SoftLabelLists
from deshi.losses.sampled_softmax import SampledSoftmax
from deshi.losses.softmax import Softmax
from deshi.models.sasrec import SASRec
from deshi.soft_labels import SoftLabels
from deshi.training._sparse_table import use_sparse_gradients
from deshi.training.module import TrainingModule
from deshi.types import Batch

HISTORIES, LENGTH, NEGATIVES = 64, 50, 1024
KINDS = ("full softmax", "sampled, dense gradients", "sampled, sparse gradients", "sparse, with lists of 100")
LIST = 100
MOST_SCORES = 3.5e9
"""The full softmax is measured up to so many scores a step: beyond it takes minutes."""


def batch(n_items: int, generator: torch.Generator) -> Batch:
    """Histories of uniformly drawn items, each position with the next item as target."""
    items = torch.randint(n_items, (HISTORIES, LENGTH + 1), generator=generator)
    rows = torch.arange(HISTORIES * LENGTH).view(HISTORIES, LENGTH)
    lengths = torch.full((HISTORIES,), LENGTH)
    return Batch(torch.arange(HISTORIES), items[:, :-1].contiguous(), lengths, items[:, 1:].contiguous(), rows)


def lists(n_items: int) -> SoftLabelLists:
    """A random list at every position of a batch."""
    draw = np.random.default_rng(0)
    items = draw.integers(0, n_items, (HISTORIES * LENGTH, LIST), dtype=np.int32)
    scores = -np.sort(-draw.normal(size=items.shape).astype(np.float32), axis=1)
    manifest = {"score_kind": "logit", "k": LIST, "n_rows": len(items), "sequences": "bundle"}
    return SoftLabelLists(len(items), [SoftLabels(Path("none"), manifest, items, scores)])


def measure(kind: str, n_items: int, dim: int, steps: int) -> dict[str, Any]:
    """The least CPU time of a step, since other work on the machine only adds to it, and the highest memory."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = SASRec(n_items, dim, LENGTH, dropout=0.2)
    loss = Softmax() if kind == KINDS[0] else SampledSoftmax(NEGATIVES, "mixed")
    settings = TrainConfig(ema_decay=0.999)
    objective = Distillation(loss, {"kl": ListwiseKL()}, lists(n_items)) if kind == KINDS[3] else Objective(loss)
    generator = torch.Generator().manual_seed(1)
    objective.set_counts(torch.ones(n_items))
    objective.start_epoch([0], 0.0)
    use_sparse_gradients(network, objective, kind in KINDS[2:])
    module = TrainingModule(network, objective, settings, 1000, 0)
    optimizer = module.configure_optimizers()["optimizer"]
    seconds = []
    for number in range(steps + 2):
        rows = batch(n_items, generator)
        begin = time.process_time()
        optimizer.zero_grad()
        module.objective(network, rows)[0].backward()
        module.on_before_optimizer_step(optimizer)
        module.configure_gradient_clipping(optimizer, 1.0)
        optimizer.step()
        module.on_train_batch_end(None, rows, number)
        seconds.append(time.process_time() - begin)
        if number == 0:  # pages of the moments that nobody has written to would be made during the steps
            for state in optimizer.state.values():
                for tensor in state.values():
                    tensor.mul_(1.0)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "kind": kind, "n_items": n_items, "dim": dim, "steps": steps,
        "cpu_ms": round(1000 * min(seconds[2:]), 2), "memory_gib": round(memory / 2**30, 3),
    }  # fmt: skip


def all_cells(sizes: list[int], dim: int, output: Path) -> None:
    """Measure every kind at every size, smallest first, and write what there is after each."""
    cells: list[dict[str, Any]] = []
    for n_items in sizes:
        for kind in KINDS:
            n_scores = HISTORIES * LENGTH * n_items
            if kind == KINDS[0] and n_scores > MOST_SCORES:
                continue
            steps = 1 if kind == KINDS[0] and n_scores > 5e8 else 5 if kind not in KINDS[2:] and n_items > 1e6 else 15
            arguments = ["--cell", kind, "--items", str(n_items), "--dim", str(dim), "--steps", str(steps)]
            done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{kind} at {n_items:,} items failed: {done.stderr.strip()[-300:]}", flush=True)
                continue
            cells.append(json.loads(done.stdout))
            print(json.dumps(cells[-1]), flush=True)
            output.write_text(json.dumps({"positions": HISTORIES * LENGTH, "cells": cells}, indent=1) + "\n")


def plot(source: Path, image: Path) -> None:
    """Time and memory of a step against the number of items."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    content = json.loads(source.read_text())
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    for axis, key, label in zip(axes, ("cpu_ms", "memory_gib"), ("CPU ms a step", "memory, GiB"), strict=True):
        for kind in KINDS:
            cells = [cell for cell in content["cells"] if cell["kind"] == kind]
            axis.plot([cell["n_items"] for cell in cells], [cell[key] for cell in cells], "o-", label=kind)
        axis.set(xscale="log", yscale="log", xlabel="items", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend()
    dim = content["cells"][0]["dim"]
    figure.suptitle(f"SASRec, dim {dim}, {content['positions']:,} positions a step, one thread, uniformly drawn items")
    figure.savefig(image, dpi=110)


def main() -> None:
    """Measure one cell, all cells, or draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 10_000_000])
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--output", type=Path, default=Path("catalogue.json"))
    parser.add_argument("--plot", type=Path, help="a file of --output to draw")
    parser.add_argument("--image", type=Path, default=Path("catalogue.png"))
    parser.add_argument("--cell", choices=KINDS, help="measure one kind at one size")
    parser.add_argument("--steps", type=int, default=15)
    arguments = parser.parse_args()
    if arguments.plot:
        plot(arguments.plot, arguments.image)
    elif arguments.cell:
        print(json.dumps(measure(arguments.cell, arguments.items[0], arguments.dim, arguments.steps)))
    else:
        all_cells(arguments.items, arguments.dim, arguments.output)


if __name__ == "__main__":
    main()
