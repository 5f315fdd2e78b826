"""Active distillation: what a student gains from a share of the teacher's answers, by the strategy that chose them.

    python benchmarks/active.py ml-100k
    python benchmarks/active.py ml-100k --strategies random error uncertainty coreset --shares 0.02 0.1

All students learn from one store: that of ``--store``, or of the ensemble ID + text of ``benchmarks/teachers.py`` of
the first seed, which is made if need be. For each seed: the preset's plain student, at which the strategies look, and
for each strategy and share a student of the same size by ``distill=listwise`` with the preset's own training. All are
tested by ``deshi evaluate``; paired permutation tests compare the strategies with random rows. Further ``key=value``
words go to every student's training, not to the teacher's. Figures land in ``benchmarks/results/active-NAME.json``
after every run. What is finished is not done again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from distillation import soft_labels
from quality import common_parser, data_words, deshi, trained, with_overrides
from teachers import cell, compare, tested

STRATEGIES: dict[str, str] = {
    "random": "Random",
    "confidence": "Confidence",
    "disagreement": "Disagreement",
    "error": "GroundTruthError",
    "uncertainty": "Uncertainty",
    "coreset": "Coreset",
}
"""Of ``deshi.distillation.selection``; ``all`` is the share 1 of any."""
OF_STUDENT = ("disagreement", "error", "uncertainty", "coreset")
WHOLE = "all"


def main() -> None:
    options = arguments()
    for data in options.data:
        words = [*data_words(data, options.shared), f"paths.root={options.root}"]
        deshi("prepare", words)
        store = options.store or soft_labels("text", "lists", data, options.seeds[0], words)
        path = Path(__file__).parent / "results" / f"active-{data}{options.label}.json"
        results = known(path, store, options.overrides)
        for seed in options.seeds:
            one_seed(data, seed, store, words, options, results, path)
        show(data, results, options)


def arguments() -> argparse.Namespace:
    parser = common_parser(__doc__, "ml-100k, ml-1m, amazon-beauty, amazon-toys; and words for the students")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.02, 0.1, 0.3, 1.0])
    parser.add_argument("--strategies", nargs="+", choices=list(STRATEGIES), default=list(STRATEGIES))
    parser.add_argument("--store", help="a soft-label store under the root that covers the training rows")
    parser.add_argument("--label", default="", help="ends the names of the runs and of the results file")
    return with_overrides(parser)


def known(path: Path, store: str, overrides: list[str]) -> dict[str, Any]:
    """What was measured before from the same store with the same words."""
    found = json.loads(path.read_text()) if path.exists() else {}
    same = found.get("store") == store and found.get("overrides") == overrides
    return found if same else {"store": store, "overrides": overrides, "seeds": {}}


def one_seed(
    data: str, seed: int, store: str, words: list[str], options: argparse.Namespace, results: dict[str, Any], path: Path
) -> None:
    """Train or find the students of a seed and test those that weren't tested yet."""
    label, recipe = options.label, [f"experiment={data}", f"seed={seed}", *words, *options.overrides]
    plain = trained("fit", f"{data}_seed{seed}{label}", recipe)
    wanted = {"plain": plain} | {
        f"{name}@{share:g}": None for name, share in cells(options.strategies, options.shares)
    }  # fmt: skip
    tested_before = results["seeds"].setdefault(str(seed), {})
    for name, run in wanted.items():
        if name in tested_before:
            continue
        strategy, _, share = name.partition("@")
        if run is None:
            more = [] if strategy == WHOLE else [strategy_word(strategy, share, plain)]
            given = [*recipe, "distill=listwise", f"soft_labels=[{store}]", *more]
            run = trained("distill", f"{data}_active_{strategy}-{share}_seed{seed}{label}", given)
        record = json.loads((run / "run.json").read_text())
        tested_before[name] = tested(run, words) | {"distilled": record.get("distilled", 0)}
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


def cells(strategies: list[str], shares: list[float]) -> list[tuple[str, float]]:
    """Strategies with their shares; all rows are the same whoever chose them."""
    whole = [(WHOLE, 1.0)] if 1.0 in shares else []
    return [(strategy, share) for share in shares if share < 1 for strategy in strategies] + whole


def strategy_word(strategy: str, share: str, student: Path) -> str:
    """The override that sets the strategy."""
    look = f",student:'{student}'" if strategy in OF_STUDENT else ""
    return f"distill.selection={{_target_:deshi.distillation.selection.{STRATEGIES[strategy]},share:{share}{look}}}"


def show(data: str, results: dict[str, Any], options: argparse.Namespace) -> None:
    """Markdown: NDCG@10 of each strategy and share, mean and standard deviation over the seeds, and paired tests."""
    found = [results["seeds"][str(seed)] for seed in options.seeds]
    shares = [share for share in options.shares if share < 1]
    for part in ("validation", "test"):
        values = {name: cell([one[name][f"{part}/ndcg@10"] for one in found]) for name in found[0]}
        print(f"\n{data}, {len(found)} seeds, {part} NDCG@10; plain student {values['plain']}", end="")
        print(f", distilled on all rows {values.get(f'{WHOLE}@1', 'not measured')}\n")
        print("| strategy | " + " | ".join(f"{share:.0%} of the rows" for share in shares) + " |")
        print("| --- " * (len(shares) + 1) + "|")
        for strategy in options.strategies:
            print(f"| {strategy} | " + " | ".join(values[f"{strategy}@{share:g}"] for share in shares) + " |")
    by_seed = [{"seed": seed, "models": results["seeds"][str(seed)]} for seed in options.seeds]
    for share in shares if "random" in options.strategies and len(options.strategies) > 1 else []:
        compare(by_seed, [f"{strategy}@{share:g}" for strategy in options.strategies], f"random@{share:g}")


if __name__ == "__main__":
    main()
