"""Metrics of ranked lists: exact ranks, accuracy, beyond accuracy, calibration, generated answers and significance."""

from __future__ import annotations

from deshi.metrics._best_items import best_items
from deshi.metrics._beyond import beyond_accuracy, coverage, gini, intra_list_diversity, novelty, popularity_lift
from deshi.metrics._calibration import Reliability, reliability, softmax_of_rows
from deshi.metrics._generated_answers import answer_metrics, answer_ratios, judge_answer
from deshi.metrics._ranking import (
    METRICS,
    ExampleRanks,
    example_ranks,
    metric_title,
    metrics_from_ranks,
    metrics_per_example,
    read_metric,
)
from deshi.metrics._ranks import ScoreError, candidate_scores, exact_ranks, rank_rows
from deshi.metrics._score_blocks import (
    ScoreBlocks,
    best_items_of_blocks,
    product_blocks,
    rank_blocks,
    softmax_of_blocks,
)
from deshi.metrics._significance import (
    Interval,
    bootstrap_interval,
    bootstrap_means,
    effect_size,
    holm,
    paired_permutation,
    percentile_bounds,
    percentile_interval,
    permutation_p_values,
    wilcoxon,
    wins_ties_losses,
)

__all__ = [
    "METRICS",
    "ExampleRanks",
    "Interval",
    "Reliability",
    "ScoreBlocks",
    "ScoreError",
    "answer_metrics",
    "answer_ratios",
    "best_items",
    "best_items_of_blocks",
    "beyond_accuracy",
    "bootstrap_interval",
    "bootstrap_means",
    "candidate_scores",
    "coverage",
    "effect_size",
    "example_ranks",
    "exact_ranks",
    "gini",
    "holm",
    "intra_list_diversity",
    "judge_answer",
    "metric_title",
    "metrics_from_ranks",
    "metrics_per_example",
    "novelty",
    "paired_permutation",
    "percentile_bounds",
    "percentile_interval",
    "permutation_p_values",
    "popularity_lift",
    "product_blocks",
    "rank_blocks",
    "rank_rows",
    "read_metric",
    "reliability",
    "softmax_of_blocks",
    "softmax_of_rows",
    "wilcoxon",
    "wins_ties_losses",
]
