"""What batches of ever other shapes cost in memory and speed, with oneDNN's kernels for them and without.

    python benchmarks/memory.py

oneDNN keeps a compiled kernel, with its scratch memory, for each of the last 1,024 shapes. Each arm trains SASRec
(d 128, 2 blocks) in a process of its own on the same 500 batches of random lengths; the arms take turns.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

import numpy as np
import torch

from deshi.losses.softmax import Softmax
from deshi.models.sasrec import SASRec

N_ITEMS, BATCHES, POSITIONS = 3416, 500, 3200
ARMS: dict[str, tuple[bool, dict[str, str]]] = {
    "oneDNN, 1,024 shapes kept": (True, {}),
    "oneDNN, 16 shapes kept": (True, {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16", "LRU_CACHE_CAPACITY": "16"}),
    "without oneDNN": (False, {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--arm", choices=["with", "without"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        torch._C._set_mkldnn_enabled(options.arm == "with")
        train()
        return
    print("| | positions/s | peak memory, GiB |\n| --- | --- | --- |")
    for _ in range(options.rounds):
        for name, (enabled, variables) in ARMS.items():
            print(f"| {name} | " + " | ".join(one_arm(enabled, variables)) + " |", flush=True)


def one_arm(enabled: bool, variables: dict[str, str]) -> list[str]:
    """Positions per second and peak memory of one process."""
    command = [sys.executable, __file__, "--arm", "with" if enabled else "without"]
    process = subprocess.Popen(command, env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed with status {os.waitstatus_to_exitcode(status)}.")
    return [f"{float(printed):,.0f}", f"{usage.ru_maxrss / 2**20:.2f}"]


def train() -> None:
    """Print the positions per second of all batches after the first ten."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    student, loss = SASRec(N_ITEMS), Softmax()
    optimizer = torch.optim.AdamW(student.parameters(), fused=True)
    begin, positions = 0.0, 0
    for number in range(BATCHES):
        length = int(random.integers(20, 201))
        items = torch.from_numpy(random.integers(N_ITEMS, size=(POSITIONS // length, length)))
        hidden = student(items, torch.full((len(items),), length)).flatten(0, 1)
        optimizer.zero_grad()
        loss(hidden, student.item_table(), items.flatten()).backward()
        optimizer.step()
        if number == 9:
            begin = time.perf_counter()
        positions += items.numel() if number > 9 else 0
    print(positions / (time.perf_counter() - begin))


if __name__ == "__main__":
    main()
