"""The command ``deshi compare``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from deshi.configuration.schemas import ModelNames, StageConfig
from deshi.configuration.stage import Stage


class CompareConfig(StageConfig):
    """Configuration of ``deshi compare``."""

    runs: list[str] = Field(min_length=1, description="trained or evaluated runs: folders, names, patterns, or latest")
    part: Literal["validation", "test"] = Field("test", description="which targets are compared on")
    metrics: list[str] = Field(
        ["ndcg@10", "recall@10"], min_length=1, description="ndcg, recall, hr, mrr or map, each with any K"
    )
    against: str | None = Field(
        None,
        description="a model (name, kind, or run) that all others are tested against; null: all pairs",
    )
    names: ModelNames = None
    with_baselines: bool = Field(False, description="compare the baselines stored with the runs too")
    each_run: bool = Field(False, description="every run is a model of its own, instead of joining its seeds")
    samples: int = Field(2000, ge=100, description="resamples of the users for the intervals")
    permutations: int | None = Field(None, ge=100, description="sign flips of a test; null: as many as are needed")
    confidence: float = Field(0.95, gt=0, lt=1, description="of the intervals; the tests' level is 1 - confidence")
    seed: int = Field(0, ge=0, description="of the resampling")


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
