"""What a command will need, known before its first step: packages, models, files, runs, the device."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deshi.configuration.needs import LLM, LOGGERS, Need, Packages, needs_of, pip_command
from deshi.configuration.run_folders import TRAINING_STAGES, find_run, read_saved
from deshi.configuration.schemas import PathsConfig, StageConfig
from deshi.configuration.stage import Stage
from deshi.configuration.targets import nodes_in
from deshi.configuration.validation import resolved
from deshi.rendering import Block, Result, Row, Table, paragraphs
from deshi.stages._estimate import Estimate, estimates
from deshi.stages.run import DISTILLED, PLAIN, drawn_on
from deshi.types import DeshiError


@dataclass(frozen=True)
class Lacking(Need):
    """Something that is known not to be there."""

    reason: str

    def problem(self, cache: Path) -> str:
        """Why."""
        return self.reason

    def state(self, cache: Path) -> str:
        """Why."""
        return self.reason


READS_SOURCE = ("prepare", "run")
"""The commands that read the original files, if there is no bundle yet."""


def refuse_missing(stage: Stage, config: StageConfig) -> None:
    """Fetch the models that the work will need, after refusing what can't be done here.

    Raises:
        DeshiError: with everything that is missing and the command that installs it.
    """
    for need in _checked(stage, config, timed=False)[0]:
        need.obtain(config.paths.cache)


def _checked(stage: Stage, config: StageConfig, timed: bool) -> tuple[list[Need], list[Estimate], list[str]]:
    """The needs, the estimates of the steps (``timed``: of minutes too), and a sentence for each disk.

    Raises:
        DeshiError: if something is missing: a package, a file, a run, a device, room on a disk.
    """
    needs = needs_before(stage, config)
    refuse(stage, needs, config.paths.cache)
    _check_devices(resolved(config))
    steps = [*estimates(stage.name, config, timed), *_downloads(needs, config.paths.cache)]
    return needs, steps, _check_disk(config.paths, steps)


def needs_before(stage: Stage, config: StageConfig) -> list[Need]:
    """Each need of a stage with this configuration, once."""
    plain = resolved(config)
    name = str((plain.get("data") or {}).get("name"))
    if stage.name not in READS_SOURCE or (config.paths.data / name / "manifest.json").is_file():
        plain.pop("data", None)
    logger = LOGGERS.get(str((plain.get("train") or {}).get("logger")))
    needs = [*stage.needs_of(config), *needs_of(plain), *_needs_of_runs(plain, config.paths)]
    needs += [] if logger is None else [logger]
    return list(dict.fromkeys(needs))


def refuse(stage: Stage, needs: list[Need], cache: Path) -> None:
    """Tell all that is missing at once.

    Raises:
        DeshiError: if anything is.
    """
    problems = {need: problem for need in needs if (problem := need.problem(cache)) is not None}
    if not problems:
        return
    installs = [need.install for need in problems if isinstance(need, Packages)]
    advice = [f"Install what is missing: {pip_command(installs)}"] if installs else []
    if stage.name == "run" and LLM in problems:
        advice.append("Or choose a recipe without a language model: recipe=counts-ids, recipe=wide, recipe=self.")
    lines = "\n".join(["", *problems.values(), *advice])
    raise DeshiError(f"deshi {stage.command} lacks what this configuration needs; nothing was begun.{lines}")


def _needs_of_runs(plain: Mapping[str, Any], paths: PathsConfig) -> Iterator[Need]:
    """The needs of the models that finished runs hold: the one that is worked on, and those that nodes draw on."""
    planned = {PLAIN, DISTILLED, *(plain.get("teachers") or {})}
    drawn = [name for node in nodes_in(plain) for name in drawn_on(node) if name not in planned]
    for name in dict.fromkeys([*drawn, *([str(plain["run"])] if plain.get("run") else [])]):
        try:
            teacher = {"teacher": read_saved(find_run(paths.runs, TRAINING_STAGES, name)).get("teacher")}
        except DeshiError as error:
            if "teachers" in plain:  # deshi run comes to it late; the other commands look for their runs first
                yield Lacking(str(error))
            continue
        yield from needs_of(teacher)
        yield from _needs_of_runs(teacher, paths)


def _check_devices(plain: Mapping[str, Any]) -> None:
    """Refuse a device that this machine hasn't got, of whatever training it is."""
    for key, value in plain.items():
        if key == "accelerator" and value not in ("auto", "cpu"):
            from deshi.hardware import training_device

            training_device(str(value))
        elif isinstance(value, Mapping):
            _check_devices(value)


@dataclass(frozen=True)
class DryRun(Result):
    """What a command would need and take.

    Attributes:
        states: a line for each need: here, or from where it would be fetched.
        estimates: of the steps.
        free: a line for each disk.
    """

    states: Sequence[str]
    estimates: Sequence[Estimate]
    free: Sequence[str]

    def blocks(self) -> list[Block]:
        """Needs, the table of estimates, what answers cost, and what is free."""
        needs = [f"Needs {state}" for state in self.states] or ["Needs nothing beyond a plain installation."]
        rows: list[Row] = [
            [each.step, _minutes(each.seconds), _bytes(each.disk), _bytes(each.memory), each.note]
            for each in self.estimates
        ]
        title = "Estimates, by steps timed on this machine as it is now; early stopping ends most trainings sooner"
        table = [Table(title, ("step", "minutes", "disk", "peak memory", ""), rows)] if rows else []
        unknown = [] if rows else ["No estimate: the command takes seconds, or the data's size isn't known yet."]
        answers = [f"Answers for {each.step}: {each.answers}." for each in self.estimates if each.answers]
        return [*paragraphs(*needs), *table, *paragraphs(*answers, *unknown, *self.free)]


def dry_run(stage: Stage, config: StageConfig) -> DryRun:
    """What the work would need and take. Nothing is fetched.

    Raises:
        DeshiError: for whatever the work itself would refuse before its first step.
    """
    needs, steps, free = _checked(stage, config, timed=True)
    return DryRun([need.state(config.paths.cache) for need in needs], steps, free)


def _downloads(needs: Sequence[Need], cache: Path) -> list[Estimate]:
    sizes = {need.state(cache).partition(":")[0]: size for need in needs if (size := need.disk(cache))}
    return [Estimate(f"download of {name}", None, size, None, place="cache") for name, size in sizes.items()]


def _check_disk(paths: PathsConfig, steps: Sequence[Estimate]) -> list[str]:
    """Sentences about each disk.

    Raises:
        DeshiError: if the steps leave more on a disk than is free there.
    """
    needed: dict[int, int] = {}
    folders: dict[int, Path] = {}
    for step in steps:
        folder = _existing(getattr(paths, step.place))
        device = folder.stat().st_dev
        folders.setdefault(device, folder)
        needed[device] = needed.get(device, 0) + (step.disk or 0)
    sentences = []
    for device, size in needed.items():
        free = shutil.disk_usage(folders[device]).free
        sentence = f"The disk of {folders[device]} has {_bytes(free)} free, and about {_bytes(size)} are needed"
        if size > free:
            raise DeshiError(f"{sentence}; nothing was begun. Free some, or name folders elsewhere: paths.root=FOLDER.")
        sentences.append(f"{sentence}.")
    return sentences


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    absolute = folder.absolute()
    return next(path for path in (absolute, *absolute.parents) if path.is_dir())


def _minutes(seconds: float | None) -> str:
    return "?" if seconds is None else f"{seconds / 60:.1f}"


def _bytes(size: int | None) -> str:
    if size is None:
        return "?"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(size, 0) / 1e6:.0f} MB"
