"""What the number of positions scored at a time costs, for several catalogues, on one thread.

python benchmarks/chunk_size.py
"""

from __future__ import annotations

import time

import torch

from deshi.losses.fused_pass import chunk_for
from deshi.losses.softmax import fused_softmax

SIZES = ((2000, 64, 12101), (3200, 128, 3416), (3200, 128, 1349))
CHUNKS = (32, 64, 128, 256, 512, 1024)


def milliseconds(positions: int, dim: int, n_items: int, chunk: int, dtype: torch.dtype) -> float:
    """The fastest of five passes, forward and backward."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(positions, dim, generator=generator).requires_grad_()
    table = torch.randn(n_items, dim, generator=generator).requires_grad_()
    targets = torch.randint(n_items, (positions,), generator=generator)
    found = []
    for _ in range(5):
        begin = time.perf_counter()
        fused_softmax(hidden, table, targets, chunk, dtype).backward()
        found.append(time.perf_counter() - begin)
    return min(found) * 1000


def main() -> None:
    """Print a row for each size and format; the default is marked."""
    torch.set_num_threads(1)
    for positions, dim, n_items in SIZES:
        for dtype in (torch.float32, torch.bfloat16):
            times = [f"{chunk}: {milliseconds(positions, dim, n_items, chunk, dtype):.0f} ms" for chunk in CHUNKS]
            default = chunk_for(n_items, torch.device("cpu"))
            print(f"{positions} x {dim} x {n_items:,} {dtype}, default {default}: {', '.join(times)}")


if __name__ == "__main__":
    main()
