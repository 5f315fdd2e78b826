"""Training as a share of what the processor multiplies at most, on one thread, measured in the same run.

python benchmarks/roofline.py [--dims 64 128] [--shapes toys ml-1m] [--rounds 5]
python benchmarks/roofline.py --profile 64
python benchmarks/roofline.py --products

The peak is the fastest of square products (512 to 2,048) in fp32, that in bf16 beside it. A step is forward, loss,
backward, clipping, AdamW on SASRec's default blocks and batches of 3,200 positions, in fp32; a distillation also learns
lists of 100 (``listwise``). Only the floating-point operations of products are counted, and only those of real
positions. For a history of n positions, P of them with a target, dimension d, N items, per block (4 d wide inside):

    forward  = blocks * (24 n d^2 + 2 n (n + 1) d) + 2 P d N        (projections and feed-forward; causal attention)
    a step   = 3 * forward                                          (backward: by the input and by the weight)

Gathering lists, softmax, norms, dropout, optimizer count nothing: what they take is what the share lacks. Time is the
processor's of this process, in turns with the products, so that other work on the machine slows both.

``--profile D`` lists the operations in which a fit's step at dimension D spends its time. ``--products`` times the
product of states and item table in bf16, in several layouts, as a share of its time in fp32. Training needs scores in
fp32 and their gradient in bf16: two conversions of a matrix as wide as the catalogue.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch

from deshi.configuration.schemas import TrainConfig
from deshi.data.sequences import Augmentation, TrainingBatches
from deshi.distillation import Distillation, ListwiseKL, Objective, SoftLabelLists
from deshi.hardware import limit_kernel_cache
from deshi.losses import Softmax
from deshi.models import SASRec
from deshi.soft_labels import SoftLabels
from deshi.training.module import TrainingModule
from deshi.types import Batch

SHAPES = {"toys": (11_924, 3_000, 8, 50), "ml-1m": (3_416, 300, 165, 200)}
"""Items, users, mean events of a user, longest history read."""
LIST, STEPS, BLOCKS = 100, 6, 2


def main() -> None:
    """Print the table, a profile, or the times of products."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", type=int, metavar="D", help="a profile of a fit's step instead")
    parser.add_argument("--products", action="store_true", help="the product by its layout instead")
    options = parser.parse_args()
    limit_kernel_cache()
    torch.set_num_threads(1)
    if options.profile:
        for shape in options.shapes:
            profile(Steps(shape, options.profile, distils=False))
        return
    if options.products:
        products()
        return
    print("| shape | d | training | GFLOP/s | share of the fp32 peak | fp32 peak | bf16 peak |\n" + "| --- " * 7 + "|")
    for shape in options.shapes:
        for dim in options.dims:
            for distils in (False, True):
                print(row(shape, dim, distils, options.rounds), flush=True)


def row(shape: str, dim: int, distils: bool, rounds: int) -> str:
    """A line of the table: medians over rounds in which peak and steps take turns."""
    steps = Steps(shape, dim, distils)
    steps.run()  # warms up
    speeds, shares, peaks = list[float](), list[float](), list[tuple[float, float]]()
    for _ in range(rounds):
        peaks.append((peak(torch.float32), peak(torch.bfloat16)))
        speeds.append(steps.run())
        shares.append(speeds[-1] / peaks[-1][0])
    fp32, bf16 = (statistics.median(values) / 1e9 for values in zip(*peaks, strict=True))
    figures = f"{statistics.median(speeds) / 1e9:.1f} | {statistics.median(shares):.0%} | {fp32:.1f} | {bf16:.1f}"
    return f"| {shape} | {dim} | {'distill' if distils else 'fit'} | {figures} |"


def peak(dtype: torch.dtype) -> float:
    """The most floating-point operations a second of square products."""
    best = 0.0
    for size in (512, 1024, 2048):
        left, right = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
        out = torch.empty(size, size, dtype=dtype)
        best = max(best, 2 * size**3 / fastest(lambda: torch.mm(left, right, out=out), 3))  # noqa: B023
    return best


def fastest(work: Callable[[], object], times: int) -> float:
    """The processor's seconds of the fastest run."""
    seconds = []
    for _ in range(times):
        begin = time.process_time()
        work()
        seconds.append(time.process_time() - begin)
    return max(min(seconds), 1e-9)


class Steps:
    """Training steps on the same few batches of random events.

    Args:
        shape: of the data, one of :data:`SHAPES`.
        dim: of the student.
        distils: whether lists are learnt, too.
    """

    def __init__(self, shape: str, dim: int, distils: bool) -> None:
        items, users, mean, longest = SHAPES[shape]
        self.batches, events = batches(items, users, mean, longest)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = SASRec(items, dim, longest, blocks=BLOCKS)
        objective = Distillation(Softmax(), {"kl": ListwiseKL()}, lists(items, events)) if distils else None
        self.module = TrainingModule(network, objective or Objective(Softmax()), TrainConfig(), 1000, 0).train()
        self.module.objective.start_epoch([0], 0.0)
        self.optimizer = self.module.configure_optimizers()["optimizer"]
        self.flops = sum(flops(batch, dim, items) for batch in self.batches)

    def run(self) -> float:
        """Take a step on each batch: counted operations a second of the processor's time."""
        begin = time.process_time()
        for batch in self.batches:
            self.step(batch)
        return self.flops / (time.process_time() - begin)

    def step(self, batch: Batch) -> None:
        """A step as the trainer takes it."""
        self.optimizer.zero_grad()
        self.module.objective(self.module.network, batch)[0].backward()
        self.module.configure_gradient_clipping(self.optimizer, 1.0)
        self.optimizer.step()


def batches(n_items: int, users: int, mean: int, longest: int) -> tuple[list[Batch], int]:
    """The first batches of an epoch, by deshi's own rules, and the number of events."""
    draw = np.random.default_rng(0)
    lengths = 3 + draw.geometric(1 / (mean - 2), users)
    ends = lengths.cumsum()
    items = draw.integers(0, n_items, int(ends[-1]), dtype=np.int32)
    epoch = TrainingBatches(items, ends - lengths, ends, longest, 3200, 512, "all", Augmentation(), 0, 0)
    return list(islice(cycle(epoch), STEPS)), len(items)


def lists(n_items: int, events: int) -> SoftLabelLists:
    """A random list at every event."""
    draw = np.random.default_rng(0)
    items = draw.integers(0, n_items, (events, LIST), dtype=np.int32)
    scores = -np.sort(-draw.normal(size=items.shape).astype(np.float32), axis=1)
    manifest = {"score_kind": "logit", "k": LIST, "n_rows": events, "sequences": "bundle"}
    return SoftLabelLists(events, [SoftLabels(Path("none"), manifest, items, scores)])


def flops(batch: Batch, dim: int, n_items: int) -> float:
    """The operations of a step's products, as above."""
    lengths = batch.lengths.double()
    per_block = float((24 * lengths * dim**2 + 2 * lengths * (lengths + 1) * dim).sum())
    return 3 * (BLOCKS * per_block + 2 * batch.n_targets * dim * n_items)


def profile(steps: Steps) -> None:
    """The operations with the most time of their own in a round of steps."""
    steps.run()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        steps.run()
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    print("| operation | calls a step | share |\n| --- | ---: | ---: |")
    for event in events[:18]:
        print(f"| {event.key} | {event.count / len(steps.batches):.0f} | {event.self_cpu_time_total / total:.1%} |")


def products() -> None:
    """States of a chunk times the item table: time in bf16 over that in fp32, by layout and dimension."""
    print("| d | as it is | table in columns | padded to 64 items | as it is, both conversions | conversions alone |")
    print("| ---: | --- | --- | --- | --- | --- |")
    n_items, rows = SHAPES["toys"][0], 128
    for dim in (16, 32, 64, 128):
        states, table = torch.randn(rows, dim), torch.randn(n_items, dim)
        half, narrow = states.bfloat16(), table.bfloat16()
        columns, padded = narrow.T.contiguous(), torch.nn.functional.pad(narrow, (0, 0, 0, -n_items % 64))
        wide, short, long = (torch.zeros(rows, width) for width in (n_items, n_items, len(padded)))
        short, long = short.bfloat16(), long.bfloat16()
        fp32 = fastest(lambda: torch.mm(states, table.T, out=wide), 30)  # noqa: B023
        ways: list[Callable[[], object]] = [
            lambda: torch.mm(half, narrow.T, out=short),  # noqa: B023
            lambda: torch.mm(half, columns, out=short),  # noqa: B023
            lambda: torch.mm(half, padded.T, out=long),  # noqa: B023
            lambda: short.copy_(wide.copy_(torch.mm(half, narrow.T, out=short))),  # noqa: B023
            lambda: short.copy_(wide.copy_(short)),  # noqa: B023
        ]
        print(f"| {dim} | " + " | ".join(f"{fastest(way, 30) / fp32:.2f}" for way in ways) + " |", flush=True)


if __name__ == "__main__":
    main()
