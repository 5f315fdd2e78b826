"""Models of a comparison: evaluations of runs that differ only in the seed, under a short name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deshi.comparison._settings import settings_of
from deshi.configuration.targets import TARGET, suggestion
from deshi.configuration.validation import belongs_to, flatten
from deshi.runs import Evaluation
from deshi.types import DeshiError

OUTCOMES = ("seed", "name", "selected_epoch", "trained_epochs", "threads", "positions", "precision")
"""Entries of a fit's ``run.json`` that differ between seeds."""

NAME_KEYS = 4
"""Differing keys that a name shows at most, unless it needs more to be unique."""


@dataclass(frozen=True, eq=False)
class Member:
    """One evaluation, or one baseline of it, as part of a model.

    Attributes:
        evaluation: where the ranks are.
        kind: the student, teacher or baseline that it is, such as ``sasrec``, or ``distilled sasrec``.
        baseline: the name of a baseline beside the evaluated one, else None.
        settings: flat configuration without what may differ inside a model.
        seed: of the run, None for a baseline.
    """

    evaluation: Evaluation
    kind: str
    baseline: str | None
    settings: Mapping[str, Any] = field(repr=False)
    seed: int | None


@dataclass(frozen=True, eq=False)
class Group:
    """A model before it is measured: its members, one a seed, and its name."""

    members: tuple[Member, ...]
    name: str = ""

    @property
    def first(self) -> Member:
        """The member that stands for the others in all but the seed."""
        return self.members[0]

    @property
    def is_baseline(self) -> bool:
        """Whether it is a baseline, alone or beside a run."""
        return self.first.seed is None

    @property
    def is_added(self) -> bool:
        """Whether it came along with an evaluation instead of being named by the user."""
        return self.first.baseline is not None


def group(
    evaluations: Sequence[Evaluation], with_baselines: bool = False, each_run: bool = False
) -> tuple[list[Group], list[str]]:
    """The models in the order of their first mention, baselines last, and notes about what was put together.

    Args:
        evaluations: of runs or of baselines.
        with_baselines: add the baselines that were evaluated beside them, each once.
        each_run: make every run a model of its own instead of joining seeds.
    """
    notes: list[str] = []
    newest = _one_a_run(evaluations, notes)
    members = [_member(evaluation) for evaluation in newest]
    if with_baselines:
        members += [_baseline(evaluation, name) for evaluation in newest for name in evaluation.baselines]
        if len(members) == len(newest):
            notes.append("No baselines were evaluated beside these runs; deshi evaluate with_baselines=true.")
    alike: dict[str, list[Member]] = {}
    for number, member in enumerate(members):
        separate = f"{number}" if each_run and member.seed is not None else ""
        alike.setdefault(_text([member.kind, member.settings, separate]), []).append(member)
    groups = [Group(tuple(_one_a_seed(same, notes))) for same in alike.values()]
    return sorted(groups, key=lambda model: model.is_added), notes


def named(groups: Sequence[Group], names: Sequence[str] | None = None) -> list[Group]:
    """``groups`` with unique names: the user's for the runs' models, else made from what differs.

    Raises:
        DeshiError: if there is not one name, and another one, for each model.
    """
    made = _made_names(groups)
    n_models = sum(not model.is_added for model in groups)  # baselines that came along stand last and keep their names
    models = ", ".join(made[:n_models])
    if names is not None and len(names) != n_models:
        raise DeshiError(f"names has {len(names)} entries, expected {n_models}, for the models {models}.")
    all_names = made if names is None else [*names, *made[n_models:]]
    if names is not None and len(set(all_names)) != len(all_names):
        raise DeshiError(f"names are {', '.join(all_names)}, expected different ones for the models {models}.")
    return [replace(model, name=name) for model, name in zip(groups, all_names, strict=True)]


def find_model(groups: Sequence[Group], text: str) -> str:
    """The name of the model that ``text`` means: a model's name or kind, or a folder of one of its runs.

    Raises:
        DeshiError: if no model or more than one is meant, with their names.
    """
    names = [model.name for model in groups]
    if text in names:
        return text
    matches = [model.name for model in groups if text == model.first.kind or text in _folder_names(model)]
    if len(matches) == 1:
        return matches[0]
    problem = f"means {' and '.join(map(repr, matches))}" if matches else "is no model of this comparison"
    models = ", ".join(map(repr, names))
    raise DeshiError(f"against={text} {problem}. {suggestion(text, names, 'models')} The models are {models}.")


def _folder_names(model: Group) -> set[str]:
    """The folders by which a model's runs may be called, as paths and as names."""
    paths = [member.evaluation.folder for member in model.members]
    paths += [Path(member.evaluation.record["run"]) for member in model.members if member.evaluation.record.get("run")]
    return {name for path in paths for name in (str(path), path.name)}


def _one_a_run(evaluations: Iterable[Evaluation], notes: list[str]) -> list[Evaluation]:
    """Leave out evaluations of a run, or of its serving bundle, that was evaluated again since."""
    newest: dict[str, Evaluation] = {}
    for evaluation in evaluations:
        run = f"{evaluation.record.get('run') or 'baseline'} {evaluation.record['model']}"
        other = newest.get(run)
        if other is None:
            newest[run] = evaluation
        elif other.folder.resolve() != evaluation.folder.resolve():
            older, newer = sorted((other, evaluation), key=lambda each: each.folder.name)
            newest[run] = newer
            notes.append(f"{older.folder.name} and {newer.folder.name} are of one run: only the newer is shown.")
    return list(newest.values())


def _one_a_seed(members: Sequence[Member], notes: list[str]) -> list[Member]:
    """Leave out repetitions of a seed: they say nothing about the spread over seeds."""
    newest: dict[int | None, Member] = {}
    for member in members:
        other = newest.get(member.seed)
        if other is not None and member.seed is not None:
            older, newer = sorted((other, member), key=lambda each: each.evaluation.folder.name)
            notes.append(
                f"{older.evaluation.folder.name} and {newer.evaluation.folder.name} have one configuration and the "
                f"seed {member.seed}: only the newer is shown (each_run=true shows both)."
            )
            newest[member.seed] = newer
        else:
            newest.setdefault(member.seed, member)
    return list(newest.values())


def _member(evaluation: Evaluation) -> Member:
    record, fitted = evaluation.record, evaluation.record.get("fit")
    if fitted is None:
        return Member(evaluation, str(record["model"]), None, _training_range({}), None)
    # What a student learnt from is no setting of the student: a distilled one is called so, not by its stores.
    kind = f"distilled {record['model']}" if fitted.get("stage") == "distill" else str(record["model"])
    kind = f"refitted {kind}" if is_refitted(evaluation) else kind
    return Member(evaluation, kind, None, _settings(evaluation, fitted), int(fitted.get("seed", 0)))


def _baseline(evaluation: Evaluation, name: str) -> Member:
    # A baseline learns from the run's training range, so a refit run's popularity is another model.
    return Member(evaluation, name, name, _training_range(evaluation.record.get("fit") or {}), None)


def is_refitted(evaluation: Evaluation) -> bool:
    """Whether the evaluated model, and the baselines beside it, have learnt the validation events after selection."""
    return bool((evaluation.record.get("fit") or {}).get("refit"))


def both_protocols(models: Mapping[str, Evaluation]) -> list[str]:
    """A warning if some models are refitted and others are as they were selected; none otherwise.

    Args:
        models: an evaluation of each, by the model's name.
    """
    refitted = [name for name, evaluation in models.items() if is_refitted(evaluation)]
    selected = [name for name in models if name not in refitted]
    if not refitted or not selected:
        return []
    return [
        f"Two protocols: {', '.join(refitted)} learnt the validation events (refitted), {', '.join(selected)} did not "
        "(selected). Their difference is also one of events: compare refitted models with refitted ones."
    ]


def _training_range(fitted: Mapping[str, Any]) -> dict[str, Any]:
    widened = bool(fitted.get("refit")) or fitted.get("train_targets") == "including_validation"
    return {"fitted_on": "train and validation" if widened else "train"}


def _settings(evaluation: Evaluation, fitted: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a run the model that it is: its configuration, or its record where the folder is gone."""
    if evaluation.run is not None:
        return settings_of(evaluation.run.folder)
    return {key: value for key, value in flatten(fitted).items() if not belongs_to(key, OUTCOMES)}


def _made_names(groups: Sequence[Group]) -> list[str]:
    """The kind and the settings in which models of that kind differ; at last the evaluation's folder."""
    made = []
    for model in groups:
        member = model.first
        alike = [other.first for other in groups if other.first.kind == member.kind]
        keys = _telling_keys([other.settings for other in alike])
        settings = [_setting(member, key, keys) for key in keys if key in member.settings]
        seeds = {other.seed for other in alike if other.settings == member.settings}
        made.append(" ".join([member.kind, *settings, *([f"seed={member.seed}"] if len(seeds) > 1 else [])]))
    folders = [model.first.evaluation.folder.name for model in groups]
    return [f"{name} ({folder})" if made.count(name) > 1 else name for name, folder in zip(made, folders, strict=True)]


def _telling_keys(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys whose values differ, the student's first; beyond a few, only as many as tell the models apart."""
    all_keys = list(dict.fromkeys(key for each in settings for key in each))
    differing = [key for key in all_keys if len({_text(each.get(key)) for each in settings}) > 1]
    # Where two classes differ so do their arguments, which only some models have: the class's name comes first.
    partial = {key for key in differing if not all(key in each for each in settings)}
    order = sorted(
        differing, key=lambda key: (key in partial, not key.startswith("student."), not key.startswith("loss."))
    )
    n_models = len(set(map(_text, settings)))
    for count in range(min(NAME_KEYS, len(differing) - len(partial)), len(order)):
        if len({_text([each.get(key) for key in order[:count]]) for each in settings}) == n_models:
            return order[:count]
    return order


def _text(value: Any) -> str:
    """Equal for equal values, and hashable."""
    return json.dumps(value, sort_keys=True, default=str)


def _setting(member: Member, key: str, keys: Sequence[str]) -> str:
    """``dim=64`` for ``student.dim``, with the whole key where another one ends alike."""
    value = member.settings[key]
    *above, name = key.split(".")
    if name == TARGET:
        return f"{above[-1]}={str(value).rpartition('.')[2]}"
    short = name if sum(other.split(".")[-1] == name for other in keys) == 1 else key
    return f"{short}={value if isinstance(value, str) else _text(value)}"
