"""The commands of deshi, a module each: ``stages/NAME.py`` declares one, ``stages/_NAME.py`` does its work.

Importing the declarations loads nothing heavy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deshi.configuration.stage import Stage
from deshi.configuration.targets import nearest
from deshi.stages import (
    audit,
    compare,
    distill,
    evaluate,
    export,
    fit,
    gap,
    label,
    label_import,
    label_inspect,
    prepare,
    recommend,
    report,
    run,
    serve,
    teach,
    tune,
)
from deshi.types import DeshiError

__all__ = ["STAGES", "by_data", "compose", "dry_run", "find_stage", "run_checked", "run_stage"]

STAGES: dict[str, Stage] = {
    module.STAGE.name: module.STAGE
    for module in (
        run, prepare, fit, teach, label, label_inspect, label_import, distill, tune, evaluate, audit, gap, report,
        compare, export, recommend, serve,
    )
}  # fmt: skip
"""In the order of the work."""


def find_stage(name: str) -> Stage:
    """The stage of that name.

    Raises:
        DeshiError: with the nearest names.
    """
    if name not in STAGES:
        near = [STAGES[match].command for match in nearest(name, STAGES)]
        commands = ", ".join(stage.command for stage in STAGES.values())
        hint = f"Did you mean {' or '.join(near)}?" if near else f"The stages are {commands}."
        raise DeshiError(f"There is no stage {name!r}. {hint} `deshi --help` explains them.")
    return STAGES[name]


def compose(stage: str, overrides: Sequence[str], values: dict[str, Any], config_dir: Path | None = None) -> Any:
    """A stage's checked configuration from ``key=value`` texts and Python values; the values come last and win."""
    from deshi.configuration.compose import load
    from deshi.configuration.overrides import from_python
    from deshi.configuration.targets import ConfigError
    from deshi.stages._auto import open_recipes

    texts, schema = [*overrides, *from_python(values)], find_stage(stage).schema
    for recipe in open_recipes(stage, texts):
        # words about the parts of one recipe don't fit another: take the first that they fit until the data decide
        try:
            return load(stage, schema, texts, config_dir, assumed=[recipe])
        except ConfigError as error:
            if error.keys_fit:
                raise  # of a value
    return load(stage, schema, texts, config_dir)


def run_stage(stage: str, *overrides: str, config_dir: str | Path | None = None, **values: Any) -> Any:
    """Compose a stage's configuration and run it.

    Args:
        stage: its name.
        overrides: ``"key=value"`` texts, as on the command line.
        config_dir: a folder with configuration groups of your own.
        values: group choices and values by name; a nested dict sets the keys below.
    """
    folder = Path(config_dir) if config_dir is not None else None
    return run_checked(find_stage(stage), by_data(stage, compose(stage, overrides, values, folder), folder))


def by_data(stage: str, config: Any, config_dir: Path | None = None, prepare: bool = True) -> Any:
    """The configuration with what ``experiment=auto`` leaves to the data, which ``deshi run`` prepares for it."""
    from deshi.stages._auto import decided

    return decided(stage, config, config_dir, prepare)


def run_checked(stage: Stage, config: Any) -> Any:
    """Do a stage's work once it is known that everything that it needs is here."""
    from deshi.stages._preflight import refuse_missing

    refuse_missing(stage, config)
    return stage.run(config)


def dry_run(stage: Stage, config: Any) -> Any:
    """What the work would need and take, as a result that can be shown; nothing is done."""
    from deshi.stages import _preflight

    return _preflight.dry_run(stage, config)
