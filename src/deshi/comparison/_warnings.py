"""Warnings of evaluations for comparison and report: their own, and one about all baselines that aren't beaten."""

from __future__ import annotations

from collections.abc import Mapping

from deshi.evaluation.result import unbeaten
from deshi.runs.evaluation import Evaluation


def evaluation_warnings(evaluation: Evaluation) -> list[str]:
    """The evaluation's warnings but those about baselines, of which there is one a baseline and part."""
    ks = sorted({int(key.partition("@")[2]) for key in evaluation.metrics if "@" in key})
    about_baselines = (
        set(unbeaten(evaluation.record["model"], evaluation.metrics, evaluation.baselines, ks)) if ks else set()
    )
    return [sentence for sentence in evaluation.record.get("warnings") or () if sentence not in about_baselines]


def not_beating(model: str, figure: float, baselines: Mapping[str, float], metric: str) -> list[str]:
    """One sentence about all baselines that are not beaten, none if there are none.

    Args:
        model: its name.
        figure: the model's.
        baselines: their figures, by name.
        metric: the metric and the part, such as ``NDCG@10, test``.
    """
    better = [f"{name} ({value:.4f})" for name, value in baselines.items() if not figure > value]
    return [f"{model} ({figure:.4f}) does not beat {', '.join(better)} on {metric}."] if better else []
