"""The command ``deshi gap``."""

from __future__ import annotations

from pydantic import Field

from deshi.configuration.schemas import StageConfig
from deshi.configuration.stage import Stage


class GapConfig(StageConfig):
    """Configuration of ``deshi gap``."""

    run: str = Field(description="a run of deshi fit, teach or distill: folder, name, or latest")
    metric: str = Field("ndcg@10", description="what is explained: ndcg, recall, hr, mrr or map, at any K")
    steps: int = Field(4, ge=1, le=50, description="training targets that the model is asked about, going back")
    samples: int = Field(1000, ge=100, description="resamples of the users for the intervals")
    confidence: float = Field(0.95, gt=0, lt=1, description="of the intervals")
    seed: int = Field(0, ge=0, description="of the resampling")


STAGE = Stage(
    name="gap",
    schema=GapConfig,
    work="deshi.stages._gap:run",
    subject="run",
    summary="explain why validation and test of a run differ",
    purpose="Asks the run's student about validation, test, the test without the newest event and the last training\n"
    "targets; tells chance, other users and items (drift) and leaks apart. Trains nothing.",
    examples=(
        ("deshi gap latest", "of the newest run"),
        ("deshi gap latest metric=recall@20 steps=8", "another metric, further back into training"),
    ),
)
