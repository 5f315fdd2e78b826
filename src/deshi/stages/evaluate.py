"""The command ``deshi evaluate``."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from deshi.configuration.needs import LLM, RUNTIME
from deshi.configuration.schemas import CandidatesNode, DataConfig, EvalConfig, SplitNode, StageConfig
from deshi.configuration.stage import Stage


class MeasureConfig(EvalConfig):
    """How a finished run is measured."""

    filter_seen: bool | None = Field(  # type: ignore[assignment]
        None, description="leave items of the user's history out of the ranking; null: as the run, which serves so"
    )


class EvaluateConfig(StageConfig):
    """Configuration of ``deshi evaluate``."""

    data_of_run: ClassVar[bool] = True

    run: str | None = Field(None, description="a run folder, its name, or latest")
    served: bool | Annotated[str, Field(min_length=1)] = Field(
        False,
        description="rank by the run's serving bundle, counts included: true is that in the run's folder, or a folder "
        "of deshi export",
    )
    search: Literal["exact", "approximate"] = Field(
        "exact",
        description="of a served bundle: by the scores of all items, or by its index, as the engine answers; then a "
        "target below the list is a miss",
    )
    baseline: Literal["popularity", "itemknn", "ease", "markov", "pairwise", "seqrules", "star"] | None = Field(
        None, description="evaluate a baseline instead of a run"
    )
    with_baselines: bool = Field(False, description="evaluate all baselines beside the run")
    part: Literal["validation", "test", "both"] = Field("test", description="which targets are asked for")
    sample: int | None = Field(
        None,
        ge=1,
        description="examples of each part, the same for every model, where answers are paid for or slow; null: all",
    )
    data: DataConfig | None = Field(None, description="null: the run's")
    split: SplitNode | None = Field(None, description="null: the run's, or leave-one-out without a run")
    eval: MeasureConfig = Field(default_factory=MeasureConfig)
    candidates: CandidatesNode | None = Field(None, description="null: the whole catalogue; or a rule for small sets")
    answers: int = Field(
        0,
        ge=0,
        description="examples of each part, drawn at random, whose candidates a teacher that writes is asked about in "
        "words; 0: none",
    )

    @model_validator(mode="after")
    def _something_to_do(self) -> EvaluateConfig:
        if self.answers and not (self.run and self.candidates):
            raise ValueError("answers asks a run about candidates: give run=FOLDER and candidates=llara, too")
        if self.run and self.baseline:
            raise ValueError("got run and baseline: give one of them, or run with with_baselines=true")
        if self.served is not False and (not self.run or self.answers):
            raise ValueError("served ranks by the bundle of a run: give run=FOLDER, too, and no answers")
        if self.search == "approximate" and (self.served is False or self.candidates is not None):
            raise ValueError("search=approximate asks a bundle's index: give served=true, too, and no candidates")
        if not self.run and not (self.baseline or self.with_baselines):
            raise ValueError("nothing to evaluate: give run=FOLDER (or run=latest), or baseline=popularity")
        if not self.run and self.data is None:
            raise ValueError("a baseline needs a data set: give data=NAME, e.g. data=ml-100k")
        return self


STAGE = Stage(
    name="evaluate",
    schema=EvaluateConfig,
    work="deshi.stages._evaluate:run",
    subject="run",
    summary="measure a run by exact full ranking",
    purpose="Ranks the whole catalogue for every user and writes metrics.json and ranks.parquet. Baselines\n"
    "(popularity, item-kNN, EASE, Markov, pairwise counts, sequential rules, STAR) show whether a student\n"
    "has learned anything; their settings are chosen on validation.",
    examples=(
        ("deshi evaluate run=latest", "the newest run, on its own data and split"),
        ("deshi evaluate run=latest with_baselines=true", "beside the baselines"),
        ("deshi evaluate run=latest served=true", "what its exported bundle answers by"),
        ("deshi evaluate run=latest served=true search=approximate", "by the bundle's index, with its recall"),
        ("deshi evaluate run=latest candidates=llara", "HitRatio@1 among 20 candidates"),
        ("deshi evaluate baseline=pairwise data=ml-100k", "a baseline alone"),
    ),
    needs_if={("baseline", "star"): (LLM,), ("served", True): (RUNTIME,)},
)
