"""The semantic-ID teacher: quality, what a beam search loses, and what it adds to other teachers.

    python benchmarks/semantic_ids.py amazon-beauty --seeds 0
    python benchmarks/semantic_ids.py amazon-toys --seeds 0 --members TEXT COUNTS

Each seed is one ``deshi teach teacher=semantic-ids`` (see ``code_words``) and one ``deshi evaluate`` on both parts.
Beams are measured on validation, on the run of the exact ranking: NDCG@10, Recall@10, and the share of the exact list
of ten that the beam search's has. ``--members`` names finished runs under the same root: an ensemble of them and one of
them and the semantic-ID teacher choose their weights on validation. ``key=value`` words go to ``deshi teach``. Figures
land in ``benchmarks/results/semantic_ids-NAME.json``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from deshi.data.example_batches import ExampleBatches
from deshi.data.splits import Examples
from deshi.evaluation import evaluate_ranks
from deshi.metrics import best_items, metrics_from_ranks
from deshi.models import scorer_of
from deshi.runs import Run
from deshi.teachers import SemanticIds
from quality import common_parser, data_words, deshi, merged, trained, with_overrides
from teachers import own_widths, tested

BEAMS = (10, 20, 50, 100, 200)
LISTS = 2000
"""Validation examples whose lists are compared."""
FIGURES = ("ndcg@10", "recall@10")


def main() -> None:
    options = arguments()
    for data in options.data:
        words = [*data_words(data, options.shared), f"paths.root={options.root}"]
        deshi("prepare", words)
        seeds = [one_seed(data, seed, words, options) for seed in options.seeds]
        settings = {"words": code_words(data), "overrides": options.overrides, "members": options.members}
        path = Path(__file__).parent / "results" / f"semantic_ids-{data}{options.label}.json"
        for seed in merged(path, settings, seeds):
            show(data, seed)


def arguments() -> argparse.Namespace:
    parser = common_parser(__doc__, "ml-100k, ml-1m, amazon-beauty, amazon-toys; and words for deshi teach")
    parser.add_argument("--label", default="", help="ends the names of the teachers and of the results file")
    parser.add_argument("--members", nargs="+", default=[], help="finished runs under --root that it is added to")
    return with_overrides(parser)


def code_words(data: str) -> list[str]:
    """The training of the preset for the teacher of its own widths."""
    fewer = ["teacher.feed_forward=2.0", "train.learning_rate=3.0e-3", "train.validate_every=5"]
    return ["teacher=semantic-ids", *own_widths(data), *fewer]


def one_seed(data: str, seed: int, words: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Train or find the teacher and the ensembles of a seed, and measure them."""
    recipe = [*code_words(data), f"seed={seed}", *words, *options.overrides]
    run = trained("teach", f"{data}_codes{options.label}_seed{seed}", recipe)
    record = json.loads((run / "run.json").read_text())
    measured = {"seed": seed, "codes": record["codes"], "parameters": record["parameters"]} | tested(run, words)
    measured["beams"] = beams(Run(run))
    for name, members in {"without": options.members, "with": [*options.members, str(run)]}.items():
        if options.members:
            joined = f"teacher.members=[{','.join(members)}]"
            ensemble = ["teacher=ensemble", "teacher.scale=log_softmax", joined, f"seed={seed}", *words]
            measured[name] = tested(trained("teach", f"{data}_{name}_codes{options.label}_seed{seed}", ensemble), words)
    return measured


def beams(run: Run) -> list[dict[str, Any]]:
    """Figures on validation and lists of the exact ranking (beams: null) and of each width."""
    bundle, network = run.bundle, run.network()
    assert isinstance(network, SemanticIds)
    examples = run.trained_split(bundle).examples(bundle, "validation")
    drawn = examples.sample(LISTS, 0)
    exact, rows = lists(run, network, drawn), []
    for width in (None, *BEAMS):
        network.beams = width
        begin = time.process_time()
        ranks = evaluate_ranks(scorer_of(network), bundle, examples, True, 128, torch.device("cpu"), top_k=0).ranks
        milliseconds = 1000 * (time.process_time() - begin) / len(examples)
        metrics = metrics_from_ranks(ranks["rank"].to_numpy(), (10,), ranks["example"].to_numpy())
        same = (lists(run, network, drawn)[:, :, None] == exact[:, None, :]).any(2).double().mean()
        row = {"beams": width, "overlap": round(float(same), 4), "cpu_ms": round(milliseconds, 3)}
        rows.append(row | {name: metrics[name] for name in FIGURES})
    return rows


@torch.no_grad()
def lists(run: Run, network: SemanticIds, examples: Examples) -> torch.Tensor:
    """The ten best unseen items of each example ``(C, 10)``, -1 where there are fewer."""
    bundle, scorer, parts = run.bundle, scorer_of(network), []
    for batch in ExampleBatches(bundle, examples, bundle.n_interactions, 128, True):
        parts.append(best_items(scorer.scores(batch.histories), batch.seen, 10)[0])
    return torch.cat(parts)


def show(data: str, seed: dict[str, Any]) -> None:
    """Markdown."""
    print(f"\n{data}, seed {seed['seed']}: {seed['parameters']} parameters, {seed['seconds']:.0f} s, {seed['codes']}")
    head = [f"{part} {figure}" for part in ("validation", "test") for figure in FIGURES]
    print(f"| model | {' | '.join(head)} |\n" + "| --- " * 5 + "|")
    for name in ("semantic IDs", "without", "with"):
        row = seed if name == "semantic IDs" else seed.get(name)
        if row is None:
            continue
        cells = [f"{row[f'{part}/{figure}']:.4f}" for part in ("validation", "test") for figure in FIGURES]
        print(f"| {name} {row['weights'] or ''} | {' | '.join(cells)} |")
    print("| beams | NDCG@10 | Recall@10 | share of the exact list | ms (CPU) |\n" + "| --- " * 5 + "|")
    for row in seed["beams"]:
        cells = [f"{row[name]:.4f}" for name in (*FIGURES, "overlap")]
        print(f"| {row['beams'] or 'exact'} | {' | '.join(cells)} | {row['cpu_ms']:.2f} |")


if __name__ == "__main__":
    main()
