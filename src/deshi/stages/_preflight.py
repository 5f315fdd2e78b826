"""What a command will need, known before its first step: packages, models, files, runs, the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deshi.configuration.needs import LLM, Need, Packages, needs_of, pip_command
from deshi.configuration.run_folders import TRAINING_STAGES, find_run, read_saved
from deshi.configuration.schemas import PathsConfig, StageConfig
from deshi.configuration.stage import Stage
from deshi.configuration.targets import TARGET
from deshi.configuration.validation import resolved
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
    needs = needs_before(stage, config)
    refuse(stage, needs, config.paths.cache)
    _check_devices(resolved(config))
    for need in needs:
        need.obtain(config.paths.cache)


def needs_before(stage: Stage, config: StageConfig) -> list[Need]:
    """Each need of a stage with this configuration, once."""
    plain = resolved(config)
    name = str((plain.get("data") or {}).get("name"))
    if stage.name not in READS_SOURCE or (config.paths.data / name / "manifest.json").is_file():
        plain.pop("data", None)
    needs = [*stage.needs_of(config), *needs_of(plain), *_needs_of_runs(plain, config.paths)]
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
        advice.append("Or choose a recipe without a language model: recipe=self, recipe=wide.")
    lines = "\n".join(["", *problems.values(), *advice])
    raise DeshiError(f"deshi {stage.command} lacks what this configuration needs; nothing was begun.{lines}")


def _needs_of_runs(plain: Mapping[str, Any], paths: PathsConfig) -> Iterator[Need]:
    """The needs of the models that finished runs hold: the one that is worked on, and those that nodes draw on."""
    planned = {PLAIN, DISTILLED, *(plain.get("teachers") or {})}
    drawn = [name for node in _nodes(plain) for name in drawn_on(node) if name not in planned]
    for name in dict.fromkeys([*drawn, *([str(plain["run"])] if plain.get("run") else [])]):
        try:
            teacher = {"teacher": read_saved(find_run(paths.runs, TRAINING_STAGES, name)).get("teacher")}
        except DeshiError as error:
            if "teachers" in plain:  # deshi run comes to it late; the other commands look for their runs first
                yield Lacking(str(error))
            continue
        yield from needs_of(teacher)
        yield from _needs_of_runs(teacher, paths)


def _nodes(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        if TARGET in value:
            yield value
        for inner in value.values():
            yield from _nodes(inner)


def _check_devices(plain: Mapping[str, Any]) -> None:
    """Refuse a device that this machine hasn't got, of whatever training it is."""
    for key, value in plain.items():
        if key == "accelerator" and value not in ("auto", "cpu"):
            from deshi.hardware import training_device

            training_device(str(value))
        elif isinstance(value, Mapping):
            _check_devices(value)
