"""What each distillation term costs: a pass of loss and term, forward and backward, against the full softmax alone.

    python benchmarks/distill_cost.py
    python benchmarks/distill_cost.py --items 3416 --dims 128 --step

Every position has a list of K items, the worst case. The choices of ``distill`` take turns with the plain loss, on one
thread, and the CPU time of the fastest round counts: other work on the machine can only slow it down. ``--step``
measures whole training steps of SASRec (2 blocks, histories of 200) in the place of passes: what an epoch costs.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable
from importlib.resources import files

import numpy as np
import torch
import yaml

from deshi.configuration.targets import build
from deshi.distillation.objective import Distillation, Objective
from deshi.distillation.soft_label_batches import SoftLabelBatch
from deshi.distillation.term import Context, Term
from deshi.losses.softmax import Softmax
from deshi.models.base import SequentialRecommender
from deshi.models.sasrec import SASRec
from deshi.types import Batch, ScoreKind

POSITIONS, LENGTH, WIDTH = 3200, 200, 384


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[1349, 3416, 12101])
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--choices", nargs="+", help="of distill; all by default")
    parser.add_argument("--step", action="store_true", help="whole training steps instead of passes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes = list(itertools.product(options.items, options.dims))
    columns = [cost(items, dim, options) for items, dim in sizes]
    print("| | " + " | ".join(f"{items:,} items, d {dim}" for items, dim in sizes) + " |")
    print("| --- " * (len(sizes) + 1) + "|")
    print("| plain, ms | " + " | ".join(f"{1e3 * column['plain']:.0f}" for column in columns) + " |")
    for name in columns[0]:
        if name != "plain":
            print(f"| {name} | " + " | ".join(f"{column[name] / column['plain']:.2f}" for column in columns) + " |")


def cost(n_items: int, dim: int, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of the fastest round, of the plain loss (``plain``) and of each choice."""
    torch.manual_seed(0)
    student: SequentialRecommender = SASRec(n_items, dim, LENGTH) if options.step else Given(n_items, dim)
    batch, lists = work(n_items, options.k)
    arms: dict[str, Objective] = {"plain": Objective(Softmax())}
    for name, terms in choices(options.choices).items():
        for term in terms.values():
            term.prepare(context(n_items, dim, options.k))
        arms[name] = Distillation(Softmax(), terms, lists)  # type: ignore[arg-type]
    best = dict.fromkeys(arms, math.inf)
    for _, (name, objective) in itertools.product(range(options.rounds + 1), arms.items()):  # the first warms up
        best[name] = min(best[name], seconds(lambda objective=objective: step(student, batch, objective)))  # type: ignore[misc]
    return best


class Given(SequentialRecommender):
    """Hidden states that cost nothing, so that the pass alone is measured."""

    def __init__(self, n_items: int, dim: int) -> None:
        super().__init__(n_items, dim, LENGTH)
        self.hidden = torch.nn.Parameter(torch.randn(POSITIONS // LENGTH, LENGTH, dim))

    def encode(self, items: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The states themselves."""
        return self.hidden


class GivenLists:
    """The same lists at every call, in the place of a store that is read."""

    def __init__(self, signal: SoftLabelBatch) -> None:
        self.signal = signal
        self.covered = np.ones(POSITIONS, dtype=np.bool_)

    def at(self, rows: torch.Tensor) -> SoftLabelBatch:
        """The lists themselves."""
        return self.signal


def work(n_items: int, k: int) -> tuple[Batch, GivenLists]:
    """A batch of whole histories with a list at every position."""
    shape = (POSITIONS // LENGTH, LENGTH)
    items, targets = torch.randint(n_items, shape), torch.randint(n_items, shape)
    batch = Batch(
        torch.arange(shape[0]), items, torch.full(shape[:1], LENGTH), targets, torch.arange(POSITIONS).view(shape)
    )
    listed = torch.stack([torch.randperm(n_items)[:k] for _ in range(POSITIONS)])
    scores = torch.randn(POSITIONS, listed.shape[1]).sort(descending=True).values
    return batch, GivenLists(SoftLabelBatch(listed, scores))


def choices(wanted: list[str] | None) -> dict[str, dict[str, Term]]:
    """The choices of ``distill`` that have terms, built with their defaults."""
    folder = files("deshi.conf") / "distill"
    read = {path.name[:-5]: yaml.safe_load(path.read_text("utf-8")) for path in folder.iterdir()}
    named = sorted(name for name, node in read.items() if node.get("terms") and (not wanted or name in wanted))
    return {name: {key: build(node) for key, node in read[name]["terms"].items()} for name in named}


def context(n_items: int, dim: int, k: int) -> Context:
    counts = (1e4 / torch.arange(1, n_items + 1)).long() + 1
    return Context(n_items, dim, ScoreKind.LOGIT, k, counts, torch.randn(n_items, WIDTH))


def step(student: SequentialRecommender, batch: Batch, objective: Objective) -> None:
    """One pass forward and backward."""
    student.zero_grad(set_to_none=True)
    objective(student, batch)[0].backward()


def seconds(call: Callable[[], None]) -> float:
    begin = time.process_time()
    call()
    return time.process_time() - begin


if __name__ == "__main__":
    main()
