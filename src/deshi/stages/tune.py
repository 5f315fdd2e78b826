"""The command ``deshi tune``."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from deshi.configuration.needs import OPTUNA
from deshi.configuration.schemas import DistillGroup, Folds, LearningConfig, StudentNode, TeacherNode
from deshi.configuration.stage import Stage
from deshi.stages._tune_space import Choice, Numbers, parse_space


class TuneConfig(LearningConfig):
    """Configuration of ``deshi tune``."""

    resumed_with: ClassVar[tuple[str, ...]] = ("trials", "max_minutes", "storage")

    stage: Literal["fit", "teach", "distill"] = Field("fit", description="what is tuned")
    space: dict[str, Any] = Field(
        min_length=1,
        description="keys of that stage with choice(64,128), interval(0,0.5), log(1e-4,1e-2), range(1,4[,STEP])",
    )
    trials: int = Field(20, ge=1, description="trainings, those of an interrupted search included")
    max_minutes: float | None = Field(None, gt=0, description="begin no further training after this time")
    storage: str | None = Field(
        None,
        description="for one search on several machines: a journal's path, sqlite:///FILE or postgresql://USER@HOST/DB",
    )
    seed: int = Field(0, ge=0, description="of the search and of every training")
    student: StudentNode
    teacher: TeacherNode | None = Field(None, description="teach: what is tuned")
    cross_fit: Folds = Field(0, ge=0, description="teach: folds of users")
    soft_labels: list[str] = Field(default_factory=list, description="distill: stores of what the teacher knows")
    distill: DistillGroup = Field(default_factory=DistillGroup)

    @model_validator(mode="after")
    def _complete(self) -> TuneConfig:
        self.domains()
        if self.stage == "teach" and self.teacher is None:
            raise ValueError("stage=teach needs a teacher, e.g. teacher=text train=teach")
        if self.stage == "distill" and not self.soft_labels:
            raise ValueError("stage=distill needs soft_labels=[STORE]")
        if self.train.refit:
            raise ValueError("train.refit trains again for nothing here: refit the best configuration at the end")
        return self

    def domains(self) -> dict[str, Choice | Numbers]:
        """The space by dotted key."""
        return parse_space(self.space)


STAGE = Stage(
    name="tune",
    schema=TuneConfig,
    work="deshi.stages._tune:run",
    subject="data",
    summary="search for the best values of any keys of fit, teach or distill",
    purpose="Trains a stage again and again with values that Optuna proposes, judged by NDCG@10 on validation; the\n"
    "first trial is the configuration as it is given. Leaves runs/tune/TIME_NAME with a table, best first,\n"
    "and a run folder for each trial. deshi tune resume=latest goes on; with trials=N it adds some.",
    examples=(
        ('deshi tune space.train.learning_rate="log(1e-4,1e-2)"', "20 learning rates of SASRec"),
        (
            'deshi tune trials=30 space.student.dim="choice(64,128)" space.student.dropout="interval(0,0.5)"',
            "two keys at a time",
        ),
        (
            'deshi tune stage=distill soft_labels=[STORE] space.distill.terms.kl.weight="log(0.1,10)"',
            "a distilled student; give the plain one as many trials",
        ),
        (
            'deshi tune storage=/shared/search.journal name=plain space.student.dim="choice(64,128)"',
            "started on each of several machines: they share the trials",
        ),
    ),
    needs=(OPTUNA,),
)
