"""What makes an evaluation's figures doubtful, in few sentences: its own warnings, and baselines not beaten."""

from __future__ import annotations

from collections.abc import Mapping

from deshi.evaluation.result import unbeaten
from deshi.evaluation.stored import Evaluation


def own_warnings(evaluation: Evaluation) -> list[str]:
    """The evaluation's warnings but those about baselines, of which there is one a baseline and part."""
    ks = sorted({int(key.partition("@")[2]) for key in evaluation.metrics if "@" in key})
    said = set(unbeaten(evaluation.record["ranker"], evaluation.metrics, evaluation.baselines, ks)) if ks else set()
    return [sentence for sentence in evaluation.record.get("warnings") or () if sentence not in said]


def not_beating(who: str, own: float, baselines: Mapping[str, float], where: str) -> list[str]:
    """One sentence about all baselines that are not beaten, none if there are none.

    Args:
        who: what is judged.
        own: its figure.
        baselines: theirs, by name.
        where: the metric and the part, such as ``NDCG@10, test``.
    """
    better = [f"{name} ({value:.4f})" for name, value in baselines.items() if not own > value]
    return [f"{who} ({own:.4f}) does not beat {', '.join(better)} on {where}."] if better else []
