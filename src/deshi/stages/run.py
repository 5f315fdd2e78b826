"""The command ``deshi run``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, model_validator

from deshi.configuration.needs import EXPORTER, RUNTIME
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
from deshi.configuration.targets import TARGET, arguments, refusals
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
    seed_offset: int = Field(0, ge=0, description="added to the run's seed: a second model of one kind is another one")


class TaughtLists(ListsConfig):
    """One store: the keys of ``deshi label``, and whose soft labels it holds."""

    of: str | None = Field(None, description="a teacher's name, or plain; null: the last teacher")


class DistilledPart(Closed):
    """In what the distilled student differs from the plain one, for example in width."""

    student: StudentNode
    train: TrainConfig | None = Field(None, description="null: the plain student's")


@dataclass(frozen=True)
class SizedStudent:
    """A student of one width.

    Attributes:
        name: ``plain`` or ``distilled``; with the width, where it isn't the recipe's own.
        role: ``plain`` or ``distilled``.
        width: the vectors' length.
        node: that builds it.
        train: its training.
    """

    name: str
    role: str
    width: int
    node: dict[str, Any]
    train: TrainConfig


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
    sizes: list[Annotated[int, Field(ge=1)]] = Field(
        [],
        description="widths (student.dim): a plain and a distilled student of each too, exported and timed; dropout "
        "and item drop of narrower ones are multiplied by the root of the widths' ratio",
    )
    refit: bool = Field(
        False,
        description="after the selection all models again, on train + validation, with lists written anew",
    )
    with_baselines: bool = Field(True, description="evaluate the baselines beside the first plain student")

    @classmethod
    def completed(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Write out what teachers and the distilled student take over from the plain one."""
        train, student = values.get("train") or {}, values.get("student") or {}
        # A training's own refit would carry validation events into what the distilled student is selected on.
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
        self._check_sizes()
        self._check_names()
        self._check_refit()
        check_start(self.distilled.train or self.train, self.distill)
        if HEADLINE_K not in self.eval.ks:
            raise ValueError(f"eval.ks is {self.eval.ks}, expected {HEADLINE_K} among them: the tables show NDCG@10")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds are {self.seeds}, expected each once")
        return self

    def _check_refit(self) -> None:
        """Refuse trainings on validation events before the selection is done, and teachers without a refit."""
        trainings = {"train": self.train, "distilled.train": self.distilled.train or self.train}
        trainings |= {f"teachers.{name}.train": part.train for name, part in self.teachers.items()}
        for key, train in trainings.items():
            if train.refit or train.train_targets == "including_validation":
                raise ValueError(
                    f"{key} trains on validation events, which the students are selected on, and the plain student is "
                    f"part of the teacher: leave {key}.refit=false and {key}.train_targets=train. refit=true trains "
                    "all models again after the selection, on training and validation events"
                )
        for name, part in self.teachers.items() if self.refit else ():
            if part.cross_fit:
                raise ValueError(
                    f"refit=true, but teachers.{name} is cross-fitted, and teachers of parts of the users have no "
                    f"refit: leave teachers.{name}.cross_fit or refit out"
                )
            strange = [run for run in part.teacher.get("members") or [] if run not in (PLAIN, *self.teachers)]
            if strange:
                raise ValueError(
                    f"refit=true, but teachers.{name} has the member {strange[0]}, an earlier run that this one "
                    "doesn't refit: train it here, as a teacher of its own"
                )

    def _check_sizes(self) -> None:
        """Refuse widths that a student can't have, by building it for one item."""
        if not self.sizes:
            return
        for key, train in (("train", self.train), ("distilled.train", self.distilled.train)):
            if train is not None and train.start_from is not None:
                raise ValueError(f"{key}.start_from is a run of one width, and sizes has others: leave one of them out")
        for key, node in (("student", self.student), ("distilled.student", self.distilled.student)):
            if "dim" not in arguments(node):
                raise ValueError(f"sizes are widths, and {key} ({node[TARGET]}) has no argument dim: leave sizes out")
            for width in self.sizes:
                for problem in refusals({**node, "dim": width}, ("n_items",)):
                    reason = f"sizes has {width}, and {key} can't have that width: {problem.message}"
                    raise ValueError(f"{reason} Leave it out, or change {key}")

    def _check_names(self) -> None:
        known, students = [PLAIN], {PLAIN, DISTILLED, *(student.name for student in self.students)}
        for name, part in self.teachers.items():
            if name in students:
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

    @property
    def exports(self) -> bool:
        """Whether students are exported: where sizes are compared, by what they cost."""
        return bool(self.sizes)

    @property
    def students(self) -> list[SizedStudent]:
        """The students that are compared by size, ascending: the recipe's own and those of ``sizes``; none without."""
        if not self.sizes:
            return []
        parts = {
            PLAIN: (self.student, self.train),
            DISTILLED: (self.distilled.student, self.distilled.train or self.train),
        }
        own = {role: _width(node) for role, (node, _) in parts.items()}
        return [
            SizedStudent(role, role, width, *parts[role])
            if width == own[role]
            else SizedStudent(name_of(role, width), role, width, *of_width(*parts[role], width))
            for width in sorted({*self.sizes, *own.values()})
            for role in parts
            if width in self.sizes or width == own[role]
        ]


def _width(node: Mapping[str, Any]) -> int:
    """The width of a student's node, which may leave it to the class."""
    return int(node.get("dim", arguments(node)["dim"]))


def name_of(role: str, width: int) -> str:
    """What the plain or distilled student of a width of ``sizes`` is called."""
    return f"{role}-{width}"


def of_width(node: Mapping[str, Any], train: TrainConfig, width: int) -> tuple[dict[str, Any], TrainConfig]:
    """A student's node and training for another width.

    A narrow network overfits less: what is right for the recipe's width holds it back (docs/research/distillation.md).
    Dropout and item drop are multiplied by ``sqrt(width / own width)``, where that is less than 1.
    """
    share = min(1.0, math.sqrt(width / _width(node)))
    sized = {**node, "dim": width}
    if "dropout" in arguments(node):
        sized["dropout"] = round(share * float(node.get("dropout", arguments(node)["dropout"])), 3)
    augment = train.augment.model_copy(update={"item_drop": round(share * train.augment.item_drop, 3)})
    return sized, train.model_copy(update={"augment": augment})


def drawn_on(node: Mapping[str, Any]) -> list[str]:
    """The runs that a node names: an ensemble's members, an LLM's or a strategy's student, a reranker's first stage."""
    single = [node[key] for key in ("student", "first") if isinstance(node.get(key), str)]
    return [*single, *(node["members"] if isinstance(node.get("members"), list) else [])]


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
        ("deshi run experiment=ml-100k sizes=[16,32,64]", "quality against size and latency"),
        ("deshi run experiment=ml-100k refit=true", "and all models refitted on training and validation events"),
        ("deshi run soft_labels.lists.k=50 distill.terms.kl.temperature=2", "other lists, softer"),
    ),
    needs_if={("exports", True): (RUNTIME, EXPORTER)},
)
