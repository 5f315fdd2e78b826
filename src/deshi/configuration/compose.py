"""From a stage's name and ``key=value`` arguments to its checked configuration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from deshi.configuration.groups import stage_groups
from deshi.configuration.overrides import Override, parse
from deshi.configuration.run_folders import TRAINING_STAGES, find_run, read_file, read_saved
from deshi.configuration.schemas import LEAVE_ONE_OUT, PathsConfig, StageConfig
from deshi.configuration.targets import ConfigError, Problem, is_valid
from deshi.configuration.validation import Config, belongs_to, hint_of, resolved, schema_defaults, validate

REPEATED = "config"
"""The key, of no schema, that names a saved configuration to begin with."""
LOOKED_UP = ("paths", "run", "runs", "resume")


def load(
    stage: str, model: type[Config], texts: Sequence[str] = (), config_dir: Path | None = None,
    assumed: Sequence[str] = (),
) -> Config:  # fmt: skip
    """Compose and check a stage's configuration.

    Args:
        stage: the name of a YAML file of :mod:`deshi.conf`.
        model: the stage's schema.
        texts: ``key=value`` arguments; the later wins. ``config=RUN`` begins with the configuration that a run saved.
        config_dir: a folder with groups and choices of the user's own.
        assumed: further arguments, before the others, that the configuration's ``overrides`` don't name.

    Raises:
        ConfigError: for everything that is wrong, before any work.
        DeshiError: if a run that is named doesn't exist.
    """
    repeated = [text for text in texts if text.startswith(f"{REPEATED}=")]
    overrides = parse(stage, [*assumed, *(text for text in texts if text not in repeated)], config_dir)
    values = _compose(stage, model, overrides, config_dir)
    overrides = [_as_written(override, model, values) for override in overrides]
    if repeated:
        values = _on_top(_read_repeated(repeated[-1], values, stage), values, overrides)
    if values.get("resume") is not None:
        values = _resumed(stage, model, values, overrides)
    if model.data_of_run:
        values = _with_data(values)
    config = validate(model, values, list(texts), known=stage_groups(stage))
    _check_applied(config, overrides)
    return config


def _as_written(override: Override, model: type[StageConfig], values: dict[str, Any]) -> Override:
    """A number, ``true`` or ``null`` as the text that was typed, where the key takes texts alone: ``name=2024``."""
    hint = None if override.is_group or _holds_nodes(override.value) else hint_of(model, values, override.key)
    text = override.text.partition("=")[2]
    written: Any = text
    if isinstance(override.value, list):
        entries = [entry.strip() for entry in text.strip("[]").split(",")]
        if len(entries) != len(override.value):
            return override
        pairs = zip(override.value, entries, strict=True)
        written = [value if isinstance(value, str) else entry for value, entry in pairs]
    elif isinstance(override.value, str) or hint is None:
        return override
    if hint is None or is_valid(override.value, hint) or not is_valid(written, hint):
        return override
    *above, last = override.key.split(".")
    level = values
    for name in above:
        level = level[name]
    level[last] = written
    return replace(override, value=written)


def _compose(
    stage: str, model: type[StageConfig], overrides: Iterable[Override], config_dir: Path | None
) -> dict[str, Any]:
    unset = {group for group, choice in stage_groups(stage).items() if choice is None}
    texts = [o.for_hydra for o in overrides if not (o.is_group and o.value is None and o.key in unset)]
    if config_dir is not None:
        texts.append(f"hydra.searchpath=['file://{config_dir.resolve()}']")
    try:
        with _separate_hydra(), initialize_config_module("deshi.conf", version_base="1.3"):
            composed = compose(stage, overrides=texts)
        merged = OmegaConf.merge(schema_defaults(model), composed)
        missing = sorted(OmegaConf.missing_keys(merged))
        values = OmegaConf.to_container(merged, resolve=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        key = str(getattr(error, "full_key", None) or "")
        raise ConfigError([Problem(key, str(error).strip().partition("\n")[0] + ".")]) from error
    needed = [key for key in missing if stage in ("prepare", "run") or not key.startswith("data.source.")]
    if needed:
        raise ConfigError([Problem(key, f"is missing: give {key}=VALUE.") for key in needed])
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _read_repeated(text: str, values: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """The configuration that ``config=`` names: a YAML file, or a run of the stage."""
    name = text.partition("=")[2].strip("'\"")
    path = Path(name).expanduser()
    if path.is_file():
        return read_file(path)
    return read_saved(find_run(_paths(values).runs, stage, name))


def _on_top(saved: dict[str, Any], values: Mapping[str, Any], overrides: Iterable[Override]) -> dict[str, Any]:
    """The saved configuration with what the overrides set: keys, and groups whose choice is one key's value."""
    changed = OmegaConf.create(saved)
    composed = OmegaConf.create(dict(values))
    for override in overrides:
        if override.is_group and override.key not in values:
            reason = f"chooses values of several keys, which {REPEATED}= has set. Give the keys that are to change."
            raise ConfigError([Problem(override.text, reason)])
        value = override.value if isinstance(override.value, dict) else OmegaConf.select(composed, override.key)
        OmegaConf.update(changed, override.key, value, merge=not override.is_group, force_add=True)
    plain = OmegaConf.to_container(changed, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


@contextmanager
def _separate_hydra() -> Iterator[None]:
    """Hydra is a singleton: set aside what a notebook may have initialised, and put it back."""
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = before


def _resumed(
    stage: str, model: type[StageConfig], values: dict[str, Any], overrides: Iterable[Override]
) -> dict[str, Any]:
    """The interrupted run's own configuration; nothing of it may change on the way but what the stage allows."""
    folder = find_run(_paths(values).runs, stage, str(values["resume"]))
    allowed = (*LOOKED_UP, *model.resumed_with)
    extra = [override for override in overrides if not belongs_to(override.key, allowed)]
    if extra:
        reason = "a resumed run keeps its own configuration. Leave it out, or start a new run."
        raise ConfigError([Problem(override.text, reason) for override in extra])
    resumed, composed = OmegaConf.create(read_saved(folder)), OmegaConf.create(dict(values))
    for override in overrides:
        if belongs_to(override.key, model.resumed_with):
            OmegaConf.update(resumed, override.key, OmegaConf.select(composed, override.key), force_add=True)
    plain = OmegaConf.to_container(resumed)
    assert isinstance(plain, dict)
    return {**{str(key): value for key, value in plain.items()}, "resume": str(folder)}


def _with_data(values: dict[str, Any]) -> dict[str, Any]:
    """Data and split of the run, or leave-one-out without a run, unless they are given."""
    defaults: dict[str, Any] = {"split": dict(LEAVE_ONE_OUT)}
    if values.get("run") is not None:
        folder = find_run(_paths(values).runs, TRAINING_STAGES, str(values["run"]))
        saved = read_saved(folder)
        defaults = {"data": saved.get("data"), "split": saved.get("split")}
        values = {**values, "run": str(folder)}
    return {**values, **{key: value for key, value in defaults.items() if values.get(key) is None}}


def _paths(values: Mapping[str, Any]) -> PathsConfig:
    class OnlyPaths(StageConfig):
        pass

    return validate(OnlyPaths, {"paths": values.get("paths") or {}}).paths


def _holds_nodes(value: Any) -> bool:
    """Whether a value is a node or a list of nodes, whose default values the configuration writes out."""
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(entry, dict) for entry in value))


def _check_applied(config: StageConfig, overrides: Sequence[Override]) -> None:
    """An override that didn't reach the configuration is an error, never a silence."""
    final = OmegaConf.create(resolved(config))
    last = {override.key: override for override in overrides if not override.is_group}
    lost = []
    for key, override in last.items():
        value = OmegaConf.select(final, key)
        changes = _holds_nodes(override.value) or "${" in override.text or key.split(".")[0] in LOOKED_UP
        if not changes and value != override.value:
            lost.append(Problem(key, f"got {override.text}, but the resolved configuration holds {value!r}."))
    if lost:
        raise ConfigError(lost)
