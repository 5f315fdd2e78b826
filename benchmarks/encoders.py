"""How well encoders of item texts know which items belong together, and how fast they read.

    python benchmarks/encoders.py data/ml-1m

For items drawn from a bundle that have a category: the mean overlap (Jaccard) of an item's categories with those of its
ten nearest neighbours by cosine, for the vectors as they are and whitened, and for random vectors.
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from deshi.data.bundle import Bundle
from deshi.teachers import encode
from deshi.teachers.encoders import CausalEncoder, Encoder, SentenceEncoder
from deshi.teachers.whitening import whiten

ENCODERS: dict[str, Encoder] = {
    "all-MiniLM-L6-v2, mean": SentenceEncoder(),
    "SmolLM2-135M-Instruct, mean": CausalEncoder(),
    "SmolLM2-135M-Instruct, last": CausalEncoder(pooling="last"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--items", type=int, default=1500)
    parser.add_argument("--dim", type=int, default=64, help="columns that whitening keeps")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/deshi").expanduser())
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    table = Bundle.load(options.bundle).item_table().drop_nulls(["title", "category"])
    table = table.sample(min(options.items, table.height), seed=0)
    overlap = category_overlap(table)
    chance = agreement(torch.randn(table.height, 64, generator=torch.Generator().manual_seed(0)), overlap)
    print(f"{table.height} items of {options.bundle}, random vectors {chance:.3f}, {options.threads} threads\n")
    print(f"| encoder | raw | whitened to {options.dim} | mean cosine | titles/s |\n| --- | --- | --- | --- | --- |")
    for name, encoder in ENCODERS.items():
        vectors, seconds = timed(encoder, table["title"].to_list(), options.cache)
        raw, white = agreement(vectors, overlap), agreement(whiten(vectors, options.dim), overlap)
        cosine = torch.nn.functional.normalize(vectors, dim=1).mean(dim=0).square().sum()
        speed = f"{table.height / seconds:.0f}"
        print(f"| {name} | {raw:.3f} | {white:.3f} | {cosine:.2f} | {speed} |", flush=True)


def category_overlap(table: pl.DataFrame) -> Tensor:
    """The Jaccard overlap ``(N, N)`` of the items' categories."""
    sets = [set(re.split(r"[|,>]\s*", text)) for text in table["category"].to_list()]
    names = sorted(set[str]().union(*sets))
    member = torch.tensor([[name in one for name in names] for one in sets]).float()
    both, size = member @ member.T, member.sum(dim=1)
    return both / (size[:, None] + size[None] - both)


def agreement(vectors: Tensor, overlap: Tensor) -> float:
    """The mean overlap of items with their ten nearest neighbours."""
    unit = torch.nn.functional.normalize(vectors, dim=1)
    nearest = (unit @ unit.T).fill_diagonal_(-2).topk(10).indices
    return float(overlap.gather(1, nearest).mean())


def timed(encoder: Encoder, titles: list[str], cache: Path) -> tuple[Tensor, float]:
    """The vectors, and the seconds that encoding the titles takes once the model is loaded."""
    loaded = encoder.load(cache, torch.device("cpu"))
    encode(titles[:50], loaded, encoder)
    start = time.perf_counter()
    vectors, _ = encode(titles, loaded, encoder)
    return vectors, time.perf_counter() - start


if __name__ == "__main__":
    main()
