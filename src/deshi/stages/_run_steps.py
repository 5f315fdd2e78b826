"""The steps of ``deshi run`` in their order, each with the configuration of the stage that does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deshi.artifacts import fingerprint
from deshi.configuration.schemas import (
    DistillConfig,
    FitConfig,
    ListsConfig,
    PrepareConfig,
    ReportConfig,
    StageConfig,
    TeachConfig,
)
from deshi.stages.compare import CompareConfig
from deshi.stages.evaluate import EvaluateConfig, MeasureConfig
from deshi.stages.export import ExportConfig
from deshi.stages.gap import GapConfig
from deshi.stages.label import LabelConfig
from deshi.stages.run import DISTILLED, PLAIN, RunConfig, SizedStudent, drawn_on

Folders = Mapping[str, Path]
"""What steps have left, by the steps' names."""


@dataclass(frozen=True)
class Step:
    """One stage with one configuration.

    Attributes:
        name: unique, such as ``text, seed 0``.
        stage: that does it.
        needs: the steps before it whose folders its configuration names.
        configure: from those folders to the stage's configuration.
        is_refit: whether it is about refitted models.
    """

    name: str
    stage: str
    needs: tuple[str, ...]
    configure: Callable[[Folders], StageConfig]
    is_refit: bool = False


@dataclass(frozen=True)
class Plan:
    """All steps, and which of them belong together.

    Attributes:
        steps: in the order of the work.
        trained: by model (``plain``, the teachers, ``distilled``) the steps that train it, one a seed.
        refitted: the same of the models' refits; empty without.
    """

    steps: tuple[Step, ...]
    trained: Mapping[str, tuple[str, ...]]
    refitted: Mapping[str, tuple[str, ...]]


STAMP = len("20250101-000000")
"""How many characters of a run folder's name tell when it was made."""
COMPARISON, SIZES, REPORT = "comparison", "comparison of sizes", "report"


def refitted(name: str) -> str:
    """What the refit of a model is called, and the steps about refitted models."""
    return f"{name} refitted"


def evaluation_of(trained: str) -> str:
    """The name of the step that evaluates what another step trained."""
    return f"evaluation of {trained}"


def gap_of(trained: str) -> str:
    """The name of the step that explains the gap of what another step trained."""
    return f"gap of {trained}"


def export_of(trained: str) -> str:
    """The name of the step that exports what another step trained."""
    return f"export of {trained}"


def plan_of(cfg: RunConfig) -> Plan:
    """What is to be done for ``cfg``."""
    return _Planning(cfg).plan()


class _Planning:
    """The making of a plan, or of its refitted half: steps are added once, before those that need them.

    Args:
        cfg: of the run.
        selected: the finished planning of the models whose refits this one plans; None plans what selects.
    """

    def __init__(self, cfg: RunConfig, selected: _Planning | None = None) -> None:
        self.cfg, self.is_refit = cfg, selected is not None
        self.steps: dict[str, Step] = {} if selected is None else selected.steps
        self.students = [] if self.is_refit else cfg.students
        models = [PLAIN, *cfg.teachers, DISTILLED, *(student.name for student in self.students)]
        self.trained: dict[str, list[str]] = {name: [] for name in models}

    def plan(self) -> Plan:
        cfg = self.cfg
        self._add("data", "prepare", (), lambda _: PrepareConfig(paths=cfg.paths, data=cfg.data))
        selected = self._models()
        refits = _Planning(cfg, self)._models() if cfg.refit else {}
        return Plan(tuple(self.steps.values()), selected, refits)

    def _models(self) -> dict[str, tuple[str, ...]]:
        """The steps that train, evaluate and compare the models of one protocol; returns those that train."""
        cfg = self.cfg
        for seed in cfg.seeds:
            self._plain(seed)
            taught = seed if cfg.teacher_seed is None else cfg.teacher_seed
            for name in cfg.teachers:
                self._teacher(name, taught)
            stores = [self._lists(name, taught) for name in cfg.soft_labels]
            self._distilled(seed, stores)
            for student in self.students:
                if student.role == PLAIN:
                    self._plain(seed, student)
                else:
                    self._distilled(seed, stores, student)
        names = [name for names in self.trained.values() for name in names]
        for name in names:
            self._evaluation(name)
        explained = [] if self.is_refit else [self._gap(self.trained[model][0]) for model in (PLAIN, DISTILLED)]
        self._comparison(COMPARISON, [PLAIN, *cfg.teachers, DISTILLED], against=PLAIN)
        if self.students:
            self._comparison(SIZES, [student.name for student in self.students])
        exported = [self._export(self.trained[student.name][0]) for student in self.students]
        evaluations = tuple(map(evaluation_of, names))
        self._add(self._called(REPORT), "report", (*evaluations, *explained, *exported), lambda done: ReportConfig(
            paths=cfg.paths, runs=[done[evaluation].name for evaluation in evaluations],
            names=list(map(self._called, self.trained)),
        ))  # fmt: skip
        return {model: tuple(names_of_seeds) for model, names_of_seeds in self.trained.items()}

    def _called(self, name: str) -> str:
        return refitted(name) if self.is_refit else name

    def _training_of(self, model: str, seed: int) -> str:
        """The name of the step that trains a model."""
        return f"{self._called(model)}, seed {seed}"

    def _add(self, name: str, stage: str, needs: tuple[str, ...], configure: Callable[[Folders], StageConfig]) -> str:
        self.steps.setdefault(name, Step(name, stage, needs, configure, self.is_refit))
        return name

    def _train(self, model: str, seed: int, stage: str, needs: tuple[str, ...], make: Callable[..., Any]) -> str:
        """A step that trains a model; ``make`` gets what all trainings have in common."""
        cfg, name, selected = self.cfg, self._training_of(model, seed), f"{model}, seed {seed}"
        common = {
            "paths": cfg.paths, "data": cfg.data, "split": cfg.split, "eval": cfg.eval, "seed": seed,
            "name": f"{cfg.data.name}_{self._called(model).replace(' ', '-')}_seed{seed}",
        }  # fmt: skip
        if name not in self.steps:
            self.trained[model].append(name)
        if not self.is_refit:
            return self._add(name, stage, needs, lambda done: make(done, **common))
        return self._add(
            name, stage, (selected, *needs), lambda done: _refit_of(done[selected].name, make(done, **common))
        )

    def _plain(self, seed: int, student: SizedStudent | None = None) -> str:
        cfg, name, node, train = self.cfg, PLAIN, self.cfg.student, self.cfg.train
        if student is not None:
            name, node, train = student.name, student.node, student.train
        return self._train(name, seed, "fit", (), lambda _, **common: FitConfig(
            student=node, loss=cfg.loss, train=train, **common
        ))  # fmt: skip

    def _teacher(self, name: str, seed: int) -> str:
        part = self.cfg.teachers[name]
        used = self._drawn_on(part.teacher, seed)
        return self._train(name, seed, "teach", tuple(used.values()), lambda done, **common: TeachConfig(
            teacher=_named(part.teacher, used, done), loss=part.loss, train=part.train, cross_fit=part.cross_fit,
            **common,
        ))  # fmt: skip

    def _drawn_on(self, node: Mapping[str, Any] | None, seed: int) -> dict[str, str]:
        """The steps behind the models of this plan that a node names."""
        names = [name for name in drawn_on(node or {}) if name in (PLAIN, *self.cfg.teachers)]
        return {name: self._plain(seed) if name == PLAIN else self._training_of(name, seed) for name in names}

    def _lists(self, name: str, seed: int) -> str:
        cfg, lists = self.cfg, self.cfg.soft_labels[name]
        of = cfg.teacher_of(lists)
        source = self._plain(seed) if of == PLAIN else self._training_of(of, seed)
        used = self._drawn_on(lists.selection, seed)

        def configure(done: Folders) -> StageConfig:
            keys = {key: getattr(lists, key) for key in ListsConfig.model_fields}
            digest = fingerprint([("asked", ListsConfig(**keys).model_dump(mode="json"))])[:8]
            suffix = "".join(f"-{done[step].name[:STAMP]}" for step in used.values())  # a strategy's run is part of it
            store = f"{done[source].name}_{name}-{digest}{suffix}"
            keys["selection"] = _named(lists.selection, used, done)
            return LabelConfig(
                paths=cfg.paths, run=done[source].name, store=store, seed=seed, **keys
            )  # fmt: skip

        return self._add(f"{name} of {source}", "label", (source, *used.values()), configure)

    def _distilled(self, seed: int, stores: list[str], student: SizedStudent | None = None) -> str:
        cfg, name, node = self.cfg, DISTILLED, self.cfg.distilled.student
        train = self.cfg.distilled.train or self.cfg.train
        if student is not None:
            name, node, train = student.name, student.node, student.train
        used = self._drawn_on(cfg.distill.selection, seed)

        def make(done: Folders, **common: Any) -> DistillConfig:
            group = cfg.distill.model_copy(update={"selection": _named(cfg.distill.selection, used, done)})
            return DistillConfig(
                student=node, loss=cfg.loss, train=train, distill=group,
                soft_labels=[done[store].name for store in stores], **common,
            )  # fmt: skip

        return self._train(name, seed, "distill", (*stores, *used.values()), make)

    def _evaluation(self, trained: str) -> str:
        cfg = self.cfg
        baselines = cfg.with_baselines and trained == self.trained[PLAIN][0]
        return self._add(evaluation_of(trained), "evaluate", (trained,), lambda done: EvaluateConfig(
            paths=cfg.paths, run=done[trained].name, part="test" if self.is_refit else "both", data=cfg.data,
            split=cfg.split, eval=MeasureConfig(**cfg.eval.model_dump(include=set(MeasureConfig.model_fields))),
            with_baselines=baselines,
        ))  # fmt: skip

    def _gap(self, trained: str) -> str:
        cfg = self.cfg
        return self._add(
            gap_of(trained), "gap", (trained,), lambda done: GapConfig(paths=cfg.paths, run=done[trained].name)
        )

    def _comparison(self, name: str, models: list[str], against: str | None = None) -> str:
        cfg = self.cfg
        evaluations = tuple(evaluation_of(trained) for model in models for trained in self.trained[model])
        return self._add(self._called(name), "compare", evaluations, lambda done: CompareConfig(
            paths=cfg.paths, runs=[done[evaluation].name for evaluation in evaluations],
            names=list(map(self._called, models)), against=None if against is None else self._called(against),
        ))  # fmt: skip

    def _export(self, trained: str) -> str:
        cfg = self.cfg
        return self._add(
            export_of(trained), "export", (trained,), lambda done: ExportConfig(paths=cfg.paths, run=done[trained].name)
        )


def _refit_of(run: str, config: Any) -> Any:
    """The configuration of a training with a refit of ``run`` in its place."""
    return config.model_copy(update={"train": config.train.model_copy(update={"refit": run})})


def _named(node: dict[str, Any] | None, used: Mapping[str, str], done: Folders) -> Any:
    """A node with the names of this plan's models replaced by those of their run folders."""
    if node is None:
        return None

    def named(text: str) -> str:
        return done[used[text]].name if text in used else text

    named_node = dict(node)
    if isinstance(node.get("student"), str):
        named_node["student"] = named(node["student"])
    if isinstance(node.get("members"), list):
        named_node["members"] = [named(member) for member in node["members"]]
    return named_node
