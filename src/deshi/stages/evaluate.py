"""The command ``deshi evaluate``."""

from __future__ import annotations

from deshi.configuration.schemas import EvaluateConfig
from deshi.configuration.stage import Stage

STAGE = Stage(
    name="evaluate",
    schema=EvaluateConfig,
    work="deshi.stages._evaluate:run",
    subject="run",
    summary="measure a run by exact full ranking",
    purpose="Ranks the whole catalogue for every user and writes metrics.json and ranks.parquet. Baselines\n"
    "(popularity, item-kNN, EASE, last-item Markov) show whether a student has learned anything.",
    examples=(
        ("deshi evaluate run=latest", "the newest run, on its own data and split"),
        ("deshi evaluate run=latest with_baselines=true", "beside the baselines"),
        ("deshi evaluate run=latest candidates=llara", "HitRatio@1 among 20 candidates"),
        ("deshi evaluate baseline=popularity data=ml-100k", "a baseline alone"),
    ),
)
