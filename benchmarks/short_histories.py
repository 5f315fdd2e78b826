"""Short histories of items with many events: MovieLens-1M cut into pieces, and what dropout suits a plain student.

    python benchmarks/short_histories.py --shared ../shared/data
    python benchmarks/short_histories.py --dropout 0.2 --label=-wide student.dim=128

Each history is cut into pieces of ``--length`` events, each of which becomes a user, and ``--users`` of them are
drawn: data as short as Amazon's, with ten times as many events an item. For each dropout one ``deshi fit`` with
``experiment=short-histories`` and further ``key=value`` words; the table has the best validation figures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import polars as pl

from quality import deshi, trained


def main() -> None:
    options = arguments()
    words = cut(options)
    deshi("prepare", words)
    print(
        "| dropout | validation NDCG@10 | Recall@10 | epoch | training, s |\n| --- | --- | --- | --- | --- |",
        flush=True,
    )
    for dropout in options.dropout:
        fitted = ["experiment=short-histories", *words, f"student.dropout={dropout}", *options.overrides]
        run = trained("fit", f"short-{options.users}-{dropout}{options.label}", fitted)
        metrics, record, seconds = (
            json.loads((run / f"{name}.json").read_text()) for name in ("metrics", "run", "time")
        )
        figures = [f"{metrics[f'validation/{metric}@10']:.4f}" for metric in ("ndcg", "recall")]
        time = f"{seconds['student_baseline_train_time']:.0f}"
        print(f"| {dropout} | " + " | ".join([*figures, str(record["selected_epoch"]), time]) + " |", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="key=value words for every deshi fit")
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"), help="folder of the shared data sets")
    parser.add_argument("--root", type=Path, default=Path("/tmp/deshi-bench"), help="where data and runs go")
    parser.add_argument("--length", type=int, default=12, help="events of a piece")
    parser.add_argument("--users", type=int, default=40_000, help="pieces that are drawn")
    parser.add_argument("--dropout", type=float, nargs="+", default=[0.5, 0.2])
    parser.add_argument("--label", default="", help="ends the names of the runs")
    return parser.parse_intermixed_args()


def cut(options: argparse.Namespace) -> list[str]:
    """Write the pieces; the words that name them."""
    events = pl.read_csv(options.shared / "ml-1m" / "interactions.tsv", separator="\t")
    piece = pl.format("{}-{}", "user", pl.col("position") // options.length)
    events = events.with_columns(piece.alias("user"), pl.col("position") % options.length)
    whole = events.group_by("user").len().filter(pl.col("len") == options.length).sort("user")
    drawn = whole.sample(options.users, seed=0).select("user")
    name = f"ml-1m-cut-{options.length}-{options.users}"
    path = options.root / f"{name}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    events.join(drawn, on="user", how="semi", maintain_order="left").write_csv(path, separator="\t")
    return [
        "data=tabular", f"data.name={name}", f"data.source.path={path}", "data.source.user=user",
        "data.source.item=item", "data.source.timestamp=position", "data.source.time_unit=position",
        f"paths.root={options.root}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
