"""From evaluations to models: runs that differ only in the seed are one, and every model gets a short name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deshi.comparison.settings import belongs_to, flatten, settings_of
from deshi.configuration.targets import TARGET, suggestion
from deshi.runs import Evaluation
from deshi.types import DeshiError

OUTCOMES = ("seed", "name", "selected_epoch", "trained_epochs", "threads", "positions", "precision")
"""Entries of a fit's ``run.json`` that differ between seeds."""

LABEL_KEYS = 4
"""Differing keys that a label shows at most, unless it needs more to be unique."""


@dataclass(frozen=True, eq=False)
class Member:
    """One evaluation, or one baseline of it, as part of a model.

    Attributes:
        evaluation: where the ranks are.
        ranker: the student's or baseline's name.
        baseline: the name of a baseline beside the evaluated one, else None.
        settings: flat configuration without what may differ inside a model.
        seed: of the run, None for a baseline.
    """

    evaluation: Evaluation
    ranker: str
    baseline: str | None
    settings: Mapping[str, Any] = field(repr=False)
    seed: int | None


@dataclass(frozen=True, eq=False)
class Group:
    """A model before it is measured: its members, one a seed, and its label."""

    members: tuple[Member, ...]
    label: str = ""

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
        members += [_baseline(one, name) for one in newest for name in one.baselines]
        if len(members) == len(newest):
            notes.append("No baselines were evaluated beside these runs; deshi evaluate with_baselines=true.")
    found: dict[str, list[Member]] = {}
    for number, member in enumerate(members):
        own = f"{number}" if each_run and member.seed is not None else ""
        found.setdefault(_text([member.ranker, member.settings, own]), []).append(member)
    groups = [Group(tuple(_one_a_seed(same, notes))) for same in found.values()]
    return sorted(groups, key=lambda one: one.is_added), notes


def labelled(groups: Sequence[Group], labels: Sequence[str] | None = None) -> list[Group]:
    """``groups`` with unique labels: the user's for the models named, else made from what differs.

    Raises:
        DeshiError: if there is not one label, and another one, for each model.
    """
    named = [one for one in groups if not one.is_added]
    made = _made_labels(groups)
    if labels is None:
        return [replace(one, label=label) for one, label in zip(groups, made, strict=True)]
    models = ", ".join(label for one, label in zip(groups, made, strict=True) if not one.is_added)
    if len(labels) != len(named):
        raise DeshiError(f"labels has {len(labels)} entries, expected {len(named)}, for the models {models}.")
    rest = made[len(named) :]
    whole = [*labels, *rest]
    if len(set(whole)) != len(whole):
        raise DeshiError(f"labels are {', '.join(whole)}, expected different ones for the models {models}.")
    return [replace(one, label=label) for one, label in zip(groups, whole, strict=True)]


def find_opponent(groups: Sequence[Group], text: str) -> str:
    """The label of the model that ``text`` names: a label, a ranker, or a folder of one of its runs.

    Raises:
        DeshiError: if no model or more than one is meant, with the labels.
    """
    labels = [one.label for one in groups]
    if text in labels:
        return text
    found = [one.label for one in groups if text == one.first.ranker or text in _names(one)]
    if len(found) == 1:
        return found[0]
    problem = f"means {' and '.join(repr(label) for label in found)}" if found else "is no model of this comparison"
    quoted = ", ".join(repr(label) for label in labels)
    raise DeshiError(f"against={text} {problem}. {suggestion(text, labels, 'models')} The models are {quoted}.")


def _names(one: Group) -> set[str]:
    """The folders by which a model's runs may be called, as paths and as names."""
    paths = [member.evaluation.folder for member in one.members]
    paths += [Path(member.evaluation.record["run"]) for member in one.members if member.evaluation.record.get("run")]
    return {name for path in paths for name in (str(path), path.name)}


def _one_a_run(evaluations: Iterable[Evaluation], notes: list[str]) -> list[Evaluation]:
    """Leave out evaluations of a run that was evaluated again since."""
    newest: dict[str, Evaluation] = {}
    for one in evaluations:
        subject = str(one.record.get("run") or f"baseline {one.record['ranker']}")
        other = newest.get(subject)
        if other is None:
            newest[subject] = one
        elif other.folder.resolve() != one.folder.resolve():
            older, newer = sorted((other, one), key=lambda each: each.folder.name)
            newest[subject] = newer
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
        return Member(evaluation, str(record["ranker"]), None, _training_range({}), None)
    return Member(evaluation, str(record["ranker"]), None, _settings(evaluation, fitted), int(fitted.get("seed", 0)))


def _baseline(evaluation: Evaluation, name: str) -> Member:
    # A baseline learns from the run's training range, so a refit run's popularity is another ranker.
    return Member(evaluation, name, name, _training_range(evaluation.record.get("fit") or {}), None)


def _training_range(fitted: Mapping[str, Any]) -> dict[str, Any]:
    widened = bool(fitted.get("refit")) or fitted.get("train_targets") == "including_validation"
    return {"fitted_on": "train and validation" if widened else "train"}


def _settings(evaluation: Evaluation, fitted: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a run the model that it is: its configuration, or its record where the folder is gone."""
    if evaluation.run is not None:
        return settings_of(evaluation.run.folder)
    return {key: value for key, value in flatten(fitted).items() if not belongs_to(key, OUTCOMES)}


def _made_labels(groups: Sequence[Group]) -> list[str]:
    """The ranker's name and the settings in which models of that name differ; at last the folder's name."""
    made = []
    for one in groups:
        same = [other for other in groups if other.first.ranker == one.first.ranker]
        keys = _telling_keys([other.first.settings for other in same])
        shown = " ".join(_shown(one.first, key, keys) for key in keys if key in one.first.settings)
        seeds = {other.first.seed for other in same if other.first.settings == one.first.settings}
        seed = f"seed={one.first.seed}" if len(seeds) > 1 else ""
        made.append(" ".join(part for part in (one.first.ranker, shown, seed) if part))
    names = [one.first.evaluation.folder.name for one in groups]
    return [
        f"{label} ({name})" if made.count(label) > 1 else label for label, name in zip(made, names, strict=True)
    ]  # fmt: skip


def _telling_keys(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys whose values differ, the student's first; beyond a few, only as many as tell the models apart."""
    every = list(dict.fromkeys(key for one in settings for key in one))
    differing = [key for key in every if len({_text(one.get(key)) for one in settings}) > 1]
    # Where two classes differ so do their arguments, which only some models have: the class's name comes first.
    partial = {key for key in differing if not all(key in one for one in settings)}
    order = sorted(
        differing, key=lambda key: (key in partial, not key.startswith("student."), not key.startswith("loss."))
    )
    for count in range(min(LABEL_KEYS, len(differing) - len(partial)), len(order)):
        if len({_text([one.get(key) for key in order[:count]]) for one in settings}) == len(set(map(_text, settings))):
            return order[:count]
    return order


def _text(value: Any) -> str:
    """Equal for equal values, and hashable."""
    return json.dumps(value, sort_keys=True, default=str)


def _shown(member: Member, key: str, keys: Sequence[str]) -> str:
    """``dim=64`` for ``student.dim``, with the whole key where another one ends alike."""
    value = member.settings[key]
    *above, name = key.split(".")
    if name == TARGET:
        return f"{above[-1]}={str(value).rpartition('.')[2]}"
    short = name if sum(other.split(".")[-1] == name for other in keys) == 1 else key
    return f"{short}={value if isinstance(value, str) else _text(value)}"
