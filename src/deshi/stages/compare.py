"""The command ``deshi compare``."""

from __future__ import annotations

from deshi.configuration.schemas import CompareConfig
from deshi.configuration.stage import Stage

STAGE = Stage(
    name="compare",
    schema=CompareConfig,
    work="deshi.stages._compare:run",
    subject="runs",
    summary="put evaluated runs side by side, with intervals and paired tests",
    purpose="Joins runs that differ only in the seed, gives every figure a bootstrap interval over users, tests all\n"
    "pairs by permutation and Wilcoxon with Holm's correction; writes Markdown, CSV, LaTeX, HTML and JSON.",
    examples=(
        ("deshi compare latest", "the newest evaluation alone, with intervals"),
        ("deshi compare '*_ml-100k_*' metrics=[ndcg@10,mrr@10]", "all evaluations on a data set, by pattern"),
        ("deshi compare latest with_baselines=true against=popularity", "against a baseline"),
    ),
)
