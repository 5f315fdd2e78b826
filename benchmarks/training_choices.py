"""What a training step costs: number format, batch size, threads, dropout. Positions per second, in one run.

    python benchmarks/training_choices.py

SASRec (d 128, 2 blocks, length 200) on random full-length histories over 3,416 items; forward, fused softmax, backward
and AdamW, the median step of each choice.
"""

from __future__ import annotations

import statistics
import time
from contextlib import AbstractContextManager

import torch
from torch import nn

from deshi.losses.softmax import Softmax
from deshi.models.layers import Dropout
from deshi.models.sasrec import SASRec

N_ITEMS, LENGTH = 3416, 200


def main() -> None:
    cores = torch.get_num_threads()
    print(f"torch {torch.__version__}, {cores} threads\n")
    print("| choice | positions/s | against the first |\n| --- | --- | --- |")
    choices = {
        "fp32, 3,200 positions a batch": lambda: speed(16),
        "bf16 autocast": lambda: speed(16, bf16=True),
        "1 thread": lambda: speed(16, threads=1),
        "800 positions a batch": lambda: speed(4),
        "12,800 positions a batch": lambda: speed(64),
        "torch.nn.Dropout": lambda: speed(16, plain_dropout=True),
        "no dropout": lambda: speed(16, dropout=0.0),
    }
    first = 0.0
    for name, measure in choices.items():
        torch.set_num_threads(cores)
        found = measure()
        first = first or found
        print(f"| {name} | {found:,.0f} | {found / first:.2f} |", flush=True)


def speed(
    histories: int, bf16: bool = False, threads: int = 0, plain_dropout: bool = False, dropout: float = 0.2
) -> float:
    """Positions per second of the median step, about eight seconds of steps."""
    torch.set_num_threads(threads or torch.get_num_threads())
    torch.manual_seed(0)
    student, loss = SASRec(N_ITEMS, dropout=dropout), Softmax()
    if plain_dropout:
        replace_dropout(student)
    optimizer = torch.optim.AdamW(student.parameters(), fused=True)
    items = torch.randint(N_ITEMS, (histories, LENGTH))
    lengths, targets = torch.full((histories,), LENGTH), torch.randint(N_ITEMS, (histories * LENGTH,))
    seconds: list[float] = []
    while len(seconds) < 4 or sum(seconds) < 8:
        start = time.perf_counter()
        autocast: AbstractContextManager[object] = torch.autocast("cpu", torch.bfloat16, enabled=bf16)
        with autocast:
            value = loss(student(items, lengths).flatten(0, 1), student.item_table(), targets)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return histories * LENGTH / statistics.median(seconds[2:])


def replace_dropout(module: nn.Module) -> None:
    """Put PyTorch's own dropout in the place of deshi's."""
    for name, child in module.named_children():
        if isinstance(child, Dropout):
            setattr(module, name, nn.Dropout(child.rate))
        else:
            replace_dropout(child)


if __name__ == "__main__":
    main()
