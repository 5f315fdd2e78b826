"""CPU time of each loss, forward and backward, on one thread: the table of docs/losses.md.

python benchmarks/loss_cost.py
"""

from __future__ import annotations

import time

import torch
from torch import nn

from deshi.losses.bce import BCE
from deshi.losses.gbce import GBCE
from deshi.losses.sampled_softmax import SampledSoftmax
from deshi.losses.softmax import Softmax

POSITIONS, DIM, CATALOGUES, CALLS = 9600, 128, (3417, 50_000), 3

LOSSES: dict[str, nn.Module] = {
    "softmax": Softmax(),
    "sampled_softmax negatives=1024": SampledSoftmax(1024),
    "sampled_softmax negatives=256": SampledSoftmax(256),
    "bce": BCE(),
    "gbce share=1": GBCE(share=1),
    "gbce share=16": GBCE(share=16),
    "gbce share=64": GBCE(share=64),
}


def seconds(loss: nn.Module, n_items: int) -> float:
    """Mean CPU time of a call, after one call to warm up."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(POSITIONS, DIM, generator=generator).requires_grad_()
    table = torch.randn(n_items, DIM, generator=generator).requires_grad_()
    targets = torch.randint(n_items, (POSITIONS,), generator=generator)
    loss(hidden, table, targets).backward()
    begin = time.process_time()
    for _ in range(CALLS):
        loss(hidden, table, targets).backward()
    return (time.process_time() - begin) / CALLS


def main() -> None:
    """Print a row for each loss and a column for each catalogue."""
    torch.set_num_threads(1)
    print(f"{'':32}" + "".join(f"{n_items:>10,} items" for n_items in CATALOGUES))
    for name, loss in LOSSES.items():
        print(f"{name:32}" + "".join(f"{seconds(loss, n) * 1000:>13,.0f} ms" for n in CATALOGUES), flush=True)


if __name__ == "__main__":
    main()
