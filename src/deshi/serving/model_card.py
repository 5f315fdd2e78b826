"""The model card of a serving bundle, in Markdown: training, figures and limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from deshi.data.bundle import Bundle
from deshi.evaluation import kept, unbeaten
from deshi.metrics import bootstrap_interval, example_ranks, metric_title, metrics_per_example
from deshi.rendering import Table, markdown_table
from deshi.runs import Evaluation
from deshi.serving.approximate_search import Recall
from deshi.serving.bundle import COUNTS
from deshi.serving.pair_counts import CountsReport
from deshi.serving.parity import Parity
from deshi.serving.result import sentences

SHOWN = ("ndcg@10", "recall@10", "mrr@10", "ndcg@20", "recall@20")
KS = (10, 20)


def model_card(
    folder: Path,
    config: Mapping[str, Any],
    bundle: Bundle,
    parities: Mapping[str, Parity],
    evaluations: Sequence[Evaluation],
    recall: Recall | None = None,
    counts: CountsReport | None = None,
) -> str:
    """The card's text.

    Args:
        folder: of the run.
        config: of the serving bundle.
        bundle: the data that the run was trained on.
        parities: of each graph.
        evaluations: of the run, the newest last; that among all items that can be served is taken.
        recall: of the index for approximate search; None if there is none.
        counts: what the transition counts change; None if there are none.
    """
    protocol = {"candidates": "full", "filter_seen": config["filter_seen"]}  # the lists that are served
    whole = [each for each in evaluations if protocol.items() <= each.record["protocol"].items()]
    sections = {
        "Model": _model(folder, config),
        "Data": _data(config, bundle),
        "Measured": _measured(folder, whole[-1] if whole else None, config["seen_targets"]),
        "The graph against the PyTorch model": [
            f"- {line}" for name, p in parities.items() for line in sentences(name, p)
        ],
        "Counts beside the student": [] if counts is None else _counts(config, counts),
        "Approximate search": [] if recall is None else _search(recall),
        "Limits": _limits(config),
    }
    parts = [f"## {title}\n" + "\n".join(lines) for title, lines in sections.items() if lines]
    return "\n\n".join([f"# {config['name']} on {config['data']}", *parts]) + "\n"


def _model(folder: Path, config: Mapping[str, Any]) -> list[str]:
    run, node = config["run"], config["student"]
    lines = [
        f"- A sequential recommender, `{config['name']}`, {config['parameters']:,} parameters; it reads the latest "
        f"{config['max_length']} items of a history and scores {config['n_items']:,} items.",
        f"- Exported by deshi {version('deshi')} from the run `{folder.name}` (stage {run['stage']}, seed "
        f"{run['seed']}), {_training(run)}.",
    ]
    if node:
        settings = ", ".join(f"{name}={value}" for name, value in node.items() if name != "_target_")
        lines.append(f"- Settings: {settings}.")
    return lines


def _training(run: Mapping[str, Any]) -> str:
    if isinstance(run["refit"], str):
        return (
            f"refitted: trained on training and validation together for {run['selected_epoch']} epochs, the number "
            f"that the run `{run['refit']}` selected by {run['selected_on']}"
        )
    refit = ", then refitted on training and validation together" if run["refit"] else ""
    selected = f"of which epoch {run['selected_epoch']} was selected by {run['selected_on']}"
    return f"trained for {run['trained_epochs']} epochs, {selected}{refit}"


def _data(config: Mapping[str, Any], bundle: Bundle) -> list[str]:
    split = config["split"]
    return [
        f"- `{bundle.name}`: {bundle.n_users:,} users, {bundle.n_items:,} items, {bundle.n_interactions:,} events; "
        f"fingerprint `{bundle.fingerprint[:16]}`.",
        f"- Split `{split['name']}`; {config['training_events']:,} events were trained on.",
        *(f"- {sentence}" for sentence in config["seen_targets"]),
    ]


def _measured(folder: Path, evaluation: Evaluation | None, seen: Sequence[str]) -> list[str]:
    if evaluation is None:
        return [
            "No figure was measured among all items: there is no finished `deshi evaluate` of this run. "
            f"Run `deshi evaluate run={folder.name}` and export again."
        ]
    protocol = evaluation.record["protocol"]
    rule = "seen items left out" if protocol["filter_seen"] else "seen items are candidates"
    lines = [
        f"From `{evaluation.folder.name}`: exact ranks among all items, {rule}, ties by {protocol['ties']}; mean over "
        "users with its 95 % bootstrap interval over users (not over seeds or data).",
    ]
    for part in evaluation.parts:
        lines += ["", _table(evaluation, part)]
    warnings = [text for text in evaluation.record["warnings"] if text not in seen]
    warnings += unbeaten(
        evaluation.record["model"], evaluation.metrics, evaluation.baselines, partial(_ranks, evaluation)
    )
    return [*lines, *([""] if warnings else []), *(f"- **WARNING** {sentence}" for sentence in warnings)]


def _ranks(evaluation: Evaluation, name: str, part: str) -> list[pl.DataFrame]:
    baseline = name in evaluation.baselines
    return kept(lambda: evaluation.baseline_ranks(name, part) if baseline else evaluation.ranks(part))


def _table(evaluation: Evaluation, part: str) -> str:
    ranks = evaluation.ranks(part)
    grouped = example_ranks(ranks["rank"].to_numpy(), ranks["example"].to_numpy())
    figures = metrics_per_example(grouped, KS)
    baselines = [evaluation.baselines[name] for name in sorted(evaluation.baselines)]
    rows = []
    for metric in SHOWN:
        values = figures[metric]
        interval = bootstrap_interval(values[~np.isnan(values)])
        values_of_baselines = [baseline.get(f"{part}/{metric}") for baseline in baselines]
        texts = ["" if value is None else f"{value:.4f}" for value in values_of_baselines]
        bounds = f"{interval.low:.4f} to {interval.high:.4f}"
        rows.append([metric_title(metric), f"{interval.mean:.4f}", bounds, *texts])
    head = f"{part}, {len(grouped.sizes):,} users"
    return markdown_table(Table("", [head, "mean", "95 % interval", *sorted(evaluation.baselines)], rows))


def _counts(config: Mapping[str, Any], counts: CountsReport) -> list[str]:
    settings = ", ".join(f"{name}={value}" for name, value in config[COUNTS]["settings"].items())
    return [
        f"- Scores are the student's plus {counts.weight:g} times pooled transition counts of the training events "
        f"({settings}), chosen on validation.",
        *(f"- {sentence}" for sentence in counts.sentences()),
        "- The figures under Measured are those of the student alone; "
        "`deshi evaluate run=RUN served=true` measures the sum.",
    ]


def _search(recall: Recall) -> list[str]:
    return [
        f"- The bundle has an index (faiss {recall.faiss}): {recall.sentence()}",
        "- The figures above are those of exact scoring, which `search=exact` asks for.",
    ]


def _limits(config: Mapping[str, Any]) -> list[str]:
    lines = [
        "- It knows only the items of its vocabulary: unknown ids are left out of histories and are never answered.",
        "- A history without any known item is answered by popularity among the training events.",
        f"- Only the latest {config['max_length']} items of a history count, in their order; times, ratings and other "
        "features are not read.",
        "- It repeats what its data held, their popularity bias included; nothing was done about fairness or content.",
        "- Figures are those of past events of the same users: what people do with recommendations was not measured.",
        "- Scores order items within one answer; they are no probabilities and can't be compared between answers.",
    ]
    if config["leaked_test_targets"]:
        lines.insert(
            0, f"- **LEAK**: {config['leaked_test_targets']:,} test targets were trained on; test figures mean nothing."
        )
    return lines
