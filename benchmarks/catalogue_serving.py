"""Serving of millions of items: the table of docs/scale.md.

    OMP_NUM_THREADS=1 python benchmarks/catalogue_serving.py FOLDER --items 10000000 --dim 32 --table-dtype fp16

A bundle is made up in FOLDER: a SASRec of random weights whose item table has the statistics of trained ones (see
``benchmarks/approximate_search.py``), ids, no titles. Then, each in a process of its own, the engine opens it and
answers single requests of 10 items after histories of 50, exactly and by the index. Recall is that of the index for
states like trained ones, against exact lists. Times are those of the whole request, network included.
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

from approximate_search import states_near, trained_like

SEEN, K, LENGTH = 50, 10, 50


def make(folder: Path, n_items: int, dim: int, table_dtype: str, with_index: bool) -> dict[str, Any]:
    """Write the bundle; what it took."""
    import polars as pl
    import torch
    from torch import nn

    from deshi.artifacts import write_json, write_parquet, write_tensors
    from deshi.models.item_table import ItemEmbedding
    from deshi.models.sasrec import SASRec
    from deshi.serving import bundle as files
    from deshi.serving.approximate_search import ItemIndex, build_index, measure_recall
    from deshi.serving.graph import write_graph

    torch.set_num_threads(1)
    draw = np.random.default_rng(0)
    table, shared = trained_like(n_items, dim, draw)
    states = states_near(table, shared, 200, draw)
    table = table.astype(np.float16 if table_dtype == "fp16" else np.float32)
    student = SASRec(1, dim, LENGTH)
    with torch.device("meta"):
        student.items = ItemEmbedding(n_items, dim)
    student.items.weight = nn.Parameter(torch.zeros(1, dim).expand(n_items + 1, dim))
    student.n_items = n_items
    folder.mkdir(parents=True)
    write_graph(student.eval(), folder / files.GRAPHS["fp32"], with_table=False)
    write_tensors({"item_table": table}, folder / files.TABLE)
    write_tensors({"norm.weight": student.norm.weight.detach().numpy()}, folder / files.WEIGHTS)
    index = pl.int_range(n_items, eager=True, dtype=pl.Int64).alias("index")
    items = pl.DataFrame({"index": index, "item_id": pl.select(pl.format("item-{}", index)).to_series()})
    items = items.with_columns(title=pl.lit(None, dtype=pl.String), count=pl.Series(draw.integers(1, 99, n_items)))
    write_parquet(items, folder / files.ITEMS)
    config = {"n_items": n_items, "dim": dim, "max_length": LENGTH, "filter_seen": True}
    write_json(folder / files.CONFIG, config)
    write_json(folder / files.PARITY, {})
    (folder / files.CARD).write_text("A made-up bundle.\n", encoding="utf-8")
    facts: dict[str, Any] = {"items": n_items, "dim": dim, "table": table_dtype}
    if with_index:
        begin = time.process_time()
        build_index(table, folder / files.INDEX)
        facts["index_cpu_s"] = round(time.process_time() - begin, 1)
        facts["index_mib"] = round((folder / files.INDEX).stat().st_size / 2**20)
        recall = measure_recall(ItemIndex(folder / files.INDEX, table), table, [row[None] for row in states])
        facts |= {"recall10": round(recall.recall10, 4), "recall100": round(recall.recall100, 4)}
    files.write_manifest(folder, "made-up", {})
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    facts["graph_kib"] = round(sizes[files.GRAPHS["fp32"]] / 2**10)
    facts["table_mib"] = round(sizes[files.TABLE] / 2**20)
    return facts


def answer(folder: Path, search: str, requests: int) -> dict[str, Any]:
    """Open the bundle and answer; memory after that and at its highest, and times."""
    from deshi.serving.bundle import ServingBundle
    from deshi.serving.engine import Engine

    begin = time.process_time()
    engine = Engine(ServingBundle.load(folder, check=False), search=search)
    opened = time.process_time() - begin
    draw = np.random.default_rng(1)
    cpu, wall = [], []
    for _ in range(requests + 3):
        history = [f"item-{number}" for number in draw.integers(0, engine.n_items, SEEN)]
        begin_wall, begin = time.perf_counter(), time.process_time()
        answered = engine.recommend(history, K)
        cpu.append(time.process_time() - begin)
        wall.append(time.perf_counter() - begin_wall)
        assert len(answered.items) == K and answered.unknown_events == 0
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "search": search, "requests": requests, "open_cpu_s": round(opened, 1),
        "cpu_p50_ms": round(1000 * float(np.median(cpu[3:])), 2),
        "wall_p50_ms": round(1000 * float(np.median(wall[3:])), 2),
        "resident_gib": round(pages * resource.getpagesize() / 2**30, 2),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }  # fmt: skip


def main() -> None:
    """Make the bundle and answer from it, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--table-dtype", choices=("fp32", "fp16"), default="fp32")
    parser.add_argument("--index", action="store_true", help="build an index, too")
    parser.add_argument("--requests", type=int, default=20)
    parser.add_argument("--step", choices=("make", "exact", "auto"), help="one step alone")
    arguments = parser.parse_args()
    if arguments.step == "make":
        print(
            json.dumps(make(arguments.folder, arguments.items, arguments.dim, arguments.table_dtype, arguments.index))
        )
    elif arguments.step:
        print(json.dumps(answer(arguments.folder, arguments.step, arguments.requests)))
    else:
        for step in ("make", "exact", *(["auto"] if arguments.index else [])):
            subprocess.run([sys.executable, *sys.argv, "--step", step], check=True)


if __name__ == "__main__":
    main()
