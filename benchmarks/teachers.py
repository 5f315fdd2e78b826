"""What an LLM's knowledge of the items adds to an ID model: ensembles by scores, beside ensembles of ID models alone.

    python benchmarks/teachers.py ml-100k
    python benchmarks/teachers.py amazon-beauty amazon-toys --shared ../shared/data

For each seed: the ID student of the preset, a second one of another seed, the text teacher (see ``text_words``), and
two ensembles, ID + text and ID + ID, whose weights are chosen on validation. All are tested by
``deshi evaluate``; paired permutation tests compare ID + text with the others. Figures land in
``benchmarks/results/teachers-NAME.json``, beside those of other seeds with the same settings, with the test ranks that
the tests need. What is finished is not done again.
"""

from __future__ import annotations

import argparse
import base64
import json
import statistics
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from deshi.metrics import bootstrap_interval, holm, paired_permutation
from quality import common_parser, data_words, deshi, evaluated, merged, preset, trained, with_overrides

OTHER = 100
"""Added to a seed for the second ID student."""
TEXT: dict[str, tuple[str, ...]] = {
    "amazon-beauty": ("teacher.feed_forward=2.0", "train.learning_rate=3.0e-3", "train.validate_every=3"),
    "amazon-toys": ("teacher.feed_forward=2.0", "train.learning_rate=3.0e-3", "train.validate_every=3"),
    "ml-100k": ("teacher.positions=rotary",),
    "ml-1m": ("teacher.positions=rotary",),
}
"""In what the text teacher's training differs from the preset's: the student's positions on MovieLens, the rest
chosen on validation of seed 0 of Amazon Beauty."""
MODELS = ("id", "text", "id+id", "id+text")
SHOWN = ("ndcg@10", "recall@10")


def main() -> None:
    options = arguments()
    for data in options.data:
        words = [*data_words(data, options.shared), f"paths.root={options.root}"]
        deshi("prepare", words)
        found = [one_seed(data, seed, words, options) for seed in options.seeds]
        write_and_show(data, found, options)


def arguments() -> argparse.Namespace:
    parser = common_parser(__doc__, "ml-100k, ml-1m, amazon-beauty, amazon-toys; and words for every teach")
    parser.add_argument("--scale", default="log_softmax", help="of the ensembles' scores")
    parser.add_argument("--label", default="", help="ends the names of the text teachers and of the results file")
    return with_overrides(parser)


def one_seed(data: str, seed: int, words: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Train or find the four models of a seed and test them."""
    label = options.label
    fitted = [
        trained("fit", f"{data}_seed{s}", [f"experiment={data}", f"seed={s}", *words]) for s in (seed, seed + OTHER)
    ]
    recipe = [*text_words(data), f"seed={seed}", *words, *options.overrides]
    text = trained("teach", f"{data}_text{label}_seed{seed}", recipe)
    members = {"id+id": fitted, "id+text": [fitted[0], text]}
    runs = {"id": fitted[0], "text": text}
    for name, pair in members.items():
        joined = "[" + ",".join(str(run) for run in pair) + "]"
        given = [
            "teacher=ensemble",
            f"teacher.members={joined}",
            f"teacher.scale={options.scale}",
            f"seed={seed}",
            *words,
        ]
        runs[name] = trained("teach", f"{data}_{name.replace('+', '-')}{label}_{options.scale}_seed{seed}", given)
    return {"seed": seed, "models": {name: tested(run, words) for name, run in runs.items()}}


def text_words(data: str) -> list[str]:
    """The preset's training with :data:`TEXT`, as words for the text teacher of its own widths."""
    return [*own_widths(data), *TEXT.get(data, ())]


def own_widths(data: str) -> list[str]:
    """The preset's training, as words for a teacher of its own widths."""
    length = preset(data)["student"].get("max_length", 200)
    return [f"teacher.max_length={length}", *train_words(data)]


def id_words(data: str) -> list[str]:
    """The preset's student and its training, as words for a teacher."""
    student = [f"teacher.{key}={value}" for key, value in preset(data)["student"].items()]
    return ["teacher=sasrec", *student, *train_words(data)]


def train_words(data: str) -> list[str]:
    """The preset's training."""
    train = dict(preset(data)["train"])
    augment = train.pop("augment", {})
    train.setdefault("patience", train["max_epochs"])
    words = [f"train.{key}={value}" for key, value in train.items()]
    return [*words, f"train.augment.item_drop={augment.get('item_drop', 0.0)}"]


def tested(run: Path, words: list[str]) -> dict[str, Any]:
    """Figures of a run on both parts (of a refitted one on test), its time, and an ensemble's weights."""
    root = run.parents[2]
    folder = evaluated([f"run={run}", "part=both", f"paths.root={root}"])
    metrics = json.loads((folder / "metrics.json").read_text())
    record = json.loads((run / "run.json").read_text())
    seconds = json.loads((run / "time.json").read_text())["wall_seconds"]
    names = [f"{part}/{name}" for part in ("validation", "test") for name in SHOWN]
    figures = {name: metrics[name] for name in names if name in metrics}
    weights, ranks = record.get("state", {}).get("weights"), top_ranks(folder)
    return {"run": str(folder), "seconds": seconds, "weights": weights, "top10": ranks, **figures}


def write_and_show(data: str, found: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Markdown: mean and standard deviation over the seeds, the gain over the ID student, and the paired tests."""
    path = Path(__file__).parent / "results" / f"teachers-{data}{options.label}.json"
    settings = {
        "preset": preset(data),
        "text": text_words(data),
        "overrides": options.overrides,
        "scale": options.scale,
    }
    found = merged(path, settings, found)
    print(
        f"\n{data}, {len(found)} seeds\n| model | part | NDCG@10 | Recall@10 | NDCG@10 against ID |\n"
        + "| --- " * 5
        + "|"
    )
    for part in ("validation", "test"):
        base = statistics.mean(one["models"]["id"][f"{part}/ndcg@10"] for one in found)
        for name in MODELS:
            columns = [[one["models"][name][f"{part}/{metric}"] for one in found] for metric in SHOWN]
            cells = [cell(values) for values in columns]
            print(f"| {name} | {part} | {' | '.join(cells)} | {statistics.mean(columns[0]) / base - 1:+.1%} |")
    compare(found, MODELS, "id+text")


def compare(found: list[dict[str, Any]], names: Iterable[str], baseline: str) -> None:
    """Paired tests against one model over users, each user's figures being the mean over the seeds; Markdown."""
    names = list(names)
    known = [one for one in found if all("top10" in one["models"][name] for name in names)]
    others = [name for name in names if name != baseline]
    print(f"\ntests against {baseline}, seeds {', '.join(str(one['seed']) for one in known) or 'none'}")
    if not known:
        return
    values = {name: np.mean([per_user(one["models"][name]["top10"]) for one in known], axis=0) for name in names}
    tests = [(name, place) for name in others for place in range(len(SHOWN))]
    pairs = [(values[name][:, place], values[baseline][:, place]) for name, place in tests]
    p_values = holm([paired_permutation(first, second) for first, second in pairs])
    print("| model | metric | difference, 95 % interval | p (Holm) |\n" + "| --- " * 4 + "|")
    for (name, place), (first, second), p in zip(tests, pairs, p_values, strict=True):
        gain = bootstrap_interval(first - second)
        print(f"| {name} | {SHOWN[place]} | {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}] | {p:.3f} |")


def top_ranks(evaluation: Path) -> str:
    """An evaluation's test ranks up to 10, user by user, in few letters: what tests in a later session need.

    Doubled, since a mean rank of ties may end in a half, and 0 beyond 10; bytes, compressed, in base 64.
    """
    ranks = pl.read_parquet(evaluation / "ranks.parquet").filter(pl.col("part") == "test").sort("example")["rank"]
    doubled = np.where(ranks.to_numpy() <= 10, 2 * ranks.to_numpy(), 0).astype(np.uint8)
    return base64.b64encode(zlib.compress(doubled.tobytes(), 9)).decode()


def per_user(packed: str) -> NDArray[np.float64]:
    """NDCG@10 and Recall@10 ``(C, 2)`` of what :func:`top_ranks` wrote; an example has one target."""
    ranks = np.frombuffer(zlib.decompress(base64.b64decode(packed)), dtype=np.uint8) / 2
    hit = ranks > 0
    return np.stack([np.where(hit, 1 / np.log2(1 + ranks.clip(min=1)), 0.0), hit], axis=1)


def cell(values: list[float]) -> str:
    """Mean and standard deviation."""
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"


if __name__ == "__main__":
    main()
