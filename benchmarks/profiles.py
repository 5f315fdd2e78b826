"""What texts about users add to a distilled student, as vectors that its states learn to tell.

    python benchmarks/profiles.py amazon-toys --shared ../shared/data --seeds 0

Profiles are the titles of a user's latest 20 training events, what a language model that writes profiles would read;
no language model is asked. ``told`` learns them with the weight of ``distill=listwise-profiles``, ``permuted`` those of
other users: the control for a term that teaches nothing about the user. Students and lists are those of the whole run
(``benchmarks/whole_run.py``) under the same ``--root``, whose distilled student is what they are compared with. Figures
land in ``benchmarks/results/profiles-NAME.json``; what is finished is not done again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from deshi.data.bundle import Bundle
from deshi.data.splits import LeaveOneOut
from llm_members import step
from quality import common_parser, data_words, deshi, merged, trained, with_overrides
from teachers import SHOWN, cell, compare, tested

TERM = "{_target_: deshi.distillation.embedding.EmbeddingMatch, of: users, loss: cosine, final_weight: 0.0}"
LATEST = 20
VARIANTS = ("told", "permuted")
BASE = "distilled"


def main() -> None:
    options = with_overrides(common_parser(__doc__, "ml-100k, ml-1m, amazon-beauty, amazon-toys; and words for distil"))
    for data in options.data:
        words = [*data_words(data, options.shared), f"paths.root={options.root}"]
        found = [one_seed(data, seed, words, options) for seed in options.seeds]
        path = Path(__file__).parent / "results" / f"profiles-{data}.json"
        show(data, merged(path, {"latest": LATEST, "term": TERM, "overrides": options.overrides}, found))


def one_seed(data: str, seed: int, words: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """The distilled student of the whole run, and the same one told profiles."""
    distilled = step(data, f"distilled, seed {seed}", options.root)
    lists = max((options.root / "runs" / "run").glob(f"*_{data}/steps/*-lists-of-all-seed-{seed}.yaml"))
    bundle = Bundle.load(options.root / "data" / bundle_name(words, data))
    models = {BASE: tested(distilled, words)}
    for variant in VARIANTS:
        store = f"{data}_profiles-{variant}_seed{seed}"
        file = write_profiles(bundle, options.root / "profiles" / f"{store}.parquet", seed, variant == "permuted")
        profiles = f"{{_target_: deshi.teachers.user_profiles.UserProfiles, path: {file}}}"
        deshi("label", [f"config={lists}", f"store={store}", f"profiles={profiles}"])
        changed = [f"config={distilled}", f"soft_labels=[{store}]", f"distill.terms.profile={TERM}"]
        models[variant] = tested(trained("distill", store, [*changed, *options.overrides, words[-1]]), words)
    return {"seed": seed, "models": models}


def bundle_name(words: list[str], data: str) -> str:
    """The name of the prepared data set."""
    return next((word.partition("=")[2] for word in words if word.startswith("data.name=")), data)


def write_profiles(bundle: Bundle, file: Path, seed: int, permuted: bool) -> Path:
    """A table of each user's latest titles in training, or of another user's."""
    starts, ends = LeaveOneOut()(bundle).train_ranges(bundle)
    titles, items = bundle.item_table()["title"].to_list(), np.asarray(bundle.items)
    texts = [
        ", ".join(str(titles[item]) for item in items[max(start, end - LATEST) : end])
        for start, end in zip(starts, ends, strict=True)
    ]
    if permuted:
        order = np.random.default_rng(seed).permutation(len(texts))
        texts = [texts[user] for user in order]
    file.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame({"user_id": bundle.users["user_id"], "profile": texts}).write_parquet(file)
    return file


def show(data: str, found: list[dict[str, Any]]) -> None:
    """Markdown: mean and standard deviation over the seeds, and the paired tests."""
    names = [BASE, *VARIANTS]
    heads = [f"{part}/{metric}" for part in ("validation", "test") for metric in SHOWN]
    print(f"\n{data}, {len(found)} seeds\n| model | {' | '.join(heads)} |\n" + "| --- " * (len(heads) + 1) + "|")
    for name in names:
        print(f"| {name} | {' | '.join(cell([one['models'][name][key] for one in found]) for key in heads)} |")
    compare(found, names, BASE)


if __name__ == "__main__":
    main()
