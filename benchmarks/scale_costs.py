"""Machines, hours and money for a billion events and ten million items: arithmetic, nothing is run.

    python benchmarks/scale_costs.py
    python benchmarks/scale_costs.py --events 1e8 --items 1e6 --gpu-tflops 312 --gpu-price 1.5

Figures under ``MEASURED`` come from the commands beside them (docs/scale.md) and are taken to grow in proportion:
preparation and its memory with the events, training with the positions. Figures of GPUs were not measured: a forward
pass is two operations for each weight and token, at ``--gpu-use`` of the peak that the maker states. Prices are
assumptions, too.
"""

from __future__ import annotations

import argparse

MEASURED = {
    "prepare_s": 1.53e-6,  # an event: 153 s for 100 million on two cores, benchmarks/prepare_scale.py
    "prepare_bytes": 48.0,  # an event: 4.47 GiB for 100 million of 10 million users, the same command
    "train_cpu_s": 114e-3 / 3200,  # a position, sparse gradients, 10 million items, dim 32: benchmarks/catalogue.py
    "distill_cpu_s": 1.430 / 3200,  # a position with a list of 100, the same command
    "exact_cpu_s": 365e-3,  # an answer, 10 million items: benchmarks/catalogue_serving.py
    "index_cpu_s": 20e-3,  # the same by the index
    "two_ranks": 1.72,  # times the speed of one: benchmarks/devices.py
}
ROW_BYTES = 100 * (4 + 2)
"""A list of 100 in a store: item numbers and half-precision scores."""


def main() -> None:
    options = arguments()
    print("| step | size | work | machines | hours | money |\n| --- | --- | --- | --- | --- | --- |")
    for row in (prepared(options), trained(options), *labelled(options), *distilled(options), *served(options)):
        print("| " + " | ".join(row) + " |")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=float, default=1e9)
    parser.add_argument("--items", type=float, default=1e7)
    parser.add_argument("--epochs", type=float, default=5, help="of the student's training and distillation")
    parser.add_argument("--cores", type=int, default=64, help="of a machine")
    parser.add_argument("--core-price", type=float, default=0.05, help="of a core for an hour")
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--gpu-tflops", type=float, default=990, help="stated peak in bf16, in 10^12 operations/s")
    parser.add_argument("--gpu-use", type=float, default=0.4, help="share of the peak that a forward pass reaches")
    parser.add_argument("--gpu-price", type=float, default=3.0, help="of a GPU for an hour")
    parser.add_argument("--weights", type=float, default=7e9, help="of the teacher")
    parser.add_argument("--item-tokens", type=float, default=10, help="tokens of an item's text")
    parser.add_argument("--history", type=float, default=50, help="items of a prompt that is written for one position")
    parser.add_argument("--requests", type=float, default=10_000, help="a second, to be served")
    return parser.parse_args()


def prepared(options: argparse.Namespace) -> list[str]:
    memory = options.events * MEASURED["prepare_bytes"] / 2**30
    hours = options.events * MEASURED["prepare_s"] / 3600
    money = f"{2 * hours * options.core_price:.2f}"
    return ["preparation", f"{memory:.0f} GiB", f"{2 * hours:.1f} core hours", "2 cores", f"{hours:.1f}", money]


def trained(options: argparse.Namespace) -> list[str]:
    seconds = options.epochs * options.events * MEASURED["train_cpu_s"]
    return cpu_row(f"plain student, {options.epochs:g} epochs", seconds, options.cores, options, copies(options))


def labelled(options: argparse.Namespace) -> list[list[str]]:
    """Lists of an LLM after a share of the positions: one pass for a whole history, or a prompt for each position."""
    rows = []
    for share in (0.01, 0.1, 1.0):
        positions = share * options.events
        for name, tokens in (("causal prompts", 1.0), ("a prompt each", options.history)):
            work = positions * tokens * options.item_tokens
            hours = work * 2 * options.weights / (options.gpu_tflops * 1e12 * options.gpu_use) / 3600
            rows.append([
                f"labels at {share:.0%}, {name}", f"{positions * ROW_BYTES / 1e9:,.0f} GB of lists",
                f"{work / 1e9:,.1f} billion tokens", f"{options.gpus} GPUs", f"{hours / options.gpus:,.1f}",
                f"{hours * options.gpu_price:,.0f}",
            ])  # fmt: skip
    return rows


def distilled(options: argparse.Namespace) -> list[list[str]]:
    rows = []
    for share in (0.01, 0.1, 1.0):
        seconds = MEASURED["train_cpu_s"] + share * (MEASURED["distill_cpu_s"] - MEASURED["train_cpu_s"])
        work = options.epochs * options.events * seconds
        rows.append(cpu_row(f"distillation, labels at {share:.0%}", work, options.cores, options, copies(options)))
    return rows


def served(options: argparse.Namespace) -> list[list[str]]:
    rows = []
    for name, seconds in (("exact", MEASURED["exact_cpu_s"]), ("by the index", MEASURED["index_cpu_s"])):
        cores = options.requests * seconds
        cost = f"{cores * options.core_price:,.1f} an hour"
        work = f"{1000 * seconds:.1f} ms an answer"
        rows.append([f"serving, {name}", f"{options.requests:,.0f} requests/s", work, f"{cores:,.0f} cores", "", cost])
    return rows


def copies(options: argparse.Namespace) -> str:
    """Memory of the item table in training: weight, two moments and EMA of 32 numbers an item, in each process."""
    return f"{options.items * 32 * 4 * 4 / 2**30:.1f} GiB a process"


def cpu_row(name: str, seconds: float, cores: int, options: argparse.Namespace, size: str) -> list[str]:
    hours = seconds / 3600 / (MEASURED["two_ranks"] / 2)  # the loss of two processes is taken for that of many
    work, money = f"{seconds / 3600:,.1f} core hours", f"{hours * options.core_price:,.1f}"
    return [name, size, work, f"{cores} cores", f"{hours / cores:,.1f}", money]


if __name__ == "__main__":
    main()
