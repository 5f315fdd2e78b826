"""The command ``deshi run``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from deshi.configuration.schemas import (
    Closed,
    DistillGroup,
    Folds,
    LearningConfig,
    ListsConfig,
    LossNode,
    StudentNode,
    TeacherNode,
    TrainConfig,
    check_start,
)
from deshi.configuration.stage import Stage
from deshi.configuration.validation import overlaid

PLAIN, DISTILLED = "plain", "distilled"
"""What the two students are called, beside the teachers' own names."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*$")]
HEADLINE_K = 10


class TeacherPart(Closed):
    """One teacher. In its node, ``plain`` and the names of earlier teachers stand for their runs."""

    teacher: TeacherNode
    loss: LossNode = Field(description="by default the students'")
    train: TrainConfig = Field(description="what differs from the students' train")
    cross_fit: Folds = Field(0, ge=0, description="folds of users, see deshi teach")


class TaughtLists(ListsConfig):
    """One store: the keys of ``deshi label``, and whose soft labels it holds."""

    of: str | None = Field(None, description="a teacher's name, or plain; null: the last teacher")


class DistilledPart(Closed):
    """In what the distilled student differs from the plain one, for example in width."""

    student: StudentNode
    train: TrainConfig | None = Field(None, description="null: the plain student's")


class RunConfig(LearningConfig):
    """Configuration of ``deshi run``."""

    student: StudentNode
    teachers: dict[Name, TeacherPart] = Field(default_factory=dict, description="by name, in the order of the work")
    soft_labels: dict[Name, TaughtLists] = Field(min_length=1, description="by name: the stores that are distilled")
    distill: DistillGroup = Field(default_factory=DistillGroup)
    distilled: DistilledPart = Field(description="in what the distilled student differs from the plain one")
    seeds: list[Annotated[int, Field(ge=0)]] = Field([0], min_length=1, description="each is a whole run of everything")
    teacher_seed: int | None = Field(
        None, ge=0, description="one set of teachers, of this seed, for all; null: each seed has its own"
    )
    with_baselines: bool = Field(True, description="evaluate the baselines beside the first plain student")

    @classmethod
    def completed(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Write out what teachers and the distilled student take over from the plain one."""
        train, student = values.get("train") or {}, values.get("student") or {}
        # A refit would carry validation events into what the distilled student is selected on.
        taught = overlaid(train, {"refit": False, "start_from": None})
        teachers = {
            name: {"loss": values.get("loss"), **part, "train": overlaid(taught, part.get("train"))}
            if isinstance(part, Mapping)
            else part
            for name, part in _given(values.get("teachers"))
        }
        own = values.get("distilled") or {}
        distilled = {"student": overlaid(student, own.get("student")), "train": overlaid(train, own.get("train"))}
        more = {key: value for key, value in own.items() if key not in distilled}
        return {
            **values,
            "teachers": teachers,
            "soft_labels": dict(_given(values.get("soft_labels"))),
            "distilled": {**distilled, **more},
        }

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        self._check_names()
        for key, train in (("train", self.train), ("distilled.train", self.distilled.train)):
            if train is not None and (train.refit or train.train_targets == "including_validation"):
                raise ValueError(
                    f"{key} trains on validation events, which the students are selected on, and the plain student is "
                    "part of the teacher: leave train.refit=false and train.train_targets=train. Refit the student "
                    "that you deploy by deshi distill train.refit=true"
                )
        check_start(self.distilled.train or self.train, self.distill)
        if HEADLINE_K not in self.eval.ks:
            raise ValueError(f"eval.ks is {self.eval.ks}, expected {HEADLINE_K} among them: the tables show NDCG@10")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds are {self.seeds}, expected each once")
        return self

    def _check_names(self) -> None:
        known = [PLAIN]
        for name, part in self.teachers.items():
            if name in (PLAIN, DISTILLED):
                raise ValueError(f"teachers.{name}: {name} is a student's name. Choose another one")
            later = [used for used in drawn_on(part.teacher) if used in self.teachers and used not in known]
            if later:
                raise ValueError(f"teachers.{name} draws on {', '.join(later)}, which must stand before it")
            known.append(name)
        for name, lists in self.soft_labels.items():
            if lists.of is None and not self.teachers:
                raise ValueError(
                    f"there is no teacher: choose a recipe (recipe=text), or set soft_labels.{name}.of=plain"
                )
            if lists.of is not None and lists.of not in known:
                raise ValueError(f"soft_labels.{name}.of is {lists.of!r}, expected one of {', '.join(known)}")

    def teacher_of(self, lists: TaughtLists) -> str:
        """The name of the model whose soft labels a store holds."""
        return lists.of or list(self.teachers)[-1]

    @property
    def headline_teacher(self) -> str:
        """The one whose gain the distilled student should inherit: that of the first store."""
        return self.teacher_of(next(iter(self.soft_labels.values())))


def drawn_on(node: Mapping[str, Any]) -> list[str]:
    """The runs that a node names: an ensemble's members, an LLM's or a strategy's student."""
    student, members = node.get("student"), node.get("members")
    return [*([student] if isinstance(student, str) else []), *(members if isinstance(members, list) else [])]


def _given(values: Any) -> Iterator[tuple[str, Any]]:
    """Entries that weren't set to null, which takes one out of a recipe."""
    return ((str(name), value) for name, value in (values or {}).items() if value is not None)


STAGE = Stage(
    name="run",
    schema=RunConfig,
    work="deshi.stages._run:run",
    subject="data",
    summary="all of it: plain student, teacher, soft labels, distilled student, tests, report",
    purpose="Runs the stages below one after the other and ends with one table, a paired test and report.html, in\n"
    "runs/run/TIME_NAME. Stages that are done already with the same configuration on the same data are taken\n"
    "as they are. Interrupted or failed, it goes on by the same command, or by deshi run resume=latest.",
    examples=(
        ("deshi run experiment=ml-100k", "SASRec, taught by itself and a text model, on MovieLens 100K"),
        ("deshi run experiment=ml-100k seeds=[0,1,2]", "mean and spread of three seeds"),
        ("deshi run student=gru4rec recipe=wide", "another student; the teacher is a wider ID model"),
        ("deshi run soft_labels.lists.k=50 distill.terms.kl.temperature=2", "other lists, softer"),
    ),
)
