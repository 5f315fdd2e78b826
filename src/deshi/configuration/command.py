"""The other way round: from a configuration to the shortest command that makes it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from deshi.configuration.groups import choices, content, stage_groups
from deshi.configuration.overrides import from_python
from deshi.configuration.schemas import PathsConfig, StageConfig
from deshi.configuration.targets import TARGET, complete
from deshi.configuration.validation import nested_model, overlaid, resolved, schema_defaults
from deshi.types import DeshiError


def command_of(stage: str, config: StageConfig) -> str:
    """``deshi STAGE ...``, quoted for a shell; it needs no configuration folder of one's own.

    An evaluation of a run is taken to be on the run's own data and split.
    """
    return shlex.join(["deshi", *stage.split("_"), *words_of(stage, config)])


def words_of(stage: str, config: StageConfig) -> list[str]:
    """What stands after ``deshi STAGE``: the run, the choices that come nearest, and the keys that differ from them."""
    values = resolved(config)
    paths = values.pop("paths")
    named = _take_names(values)
    fields, defaults, groups = type(config).model_fields, schema_defaults(type(config)), stage_groups(stage)
    words = list(named)
    for key, value in values.items():
        if key in groups:
            inner = nested_model(fields[key].annotation)
            words += _group_words(key, groups[key], value, {} if inner is None else schema_defaults(inner))
        else:
            changed = _changes(defaults.get(key), value)
            words += from_python({key: changed}) if changed is not SAME else []
    return words + _path_words(paths)


def _take_names(values: dict[str, Any]) -> list[str]:
    """The words without a ``=``, taken out of ``values``: what is done to which runs."""
    on_its_data = values.get("run") is not None and {"data", "split"} <= values.keys()
    for key in ("data", "split") if on_its_data else ():
        del values[key]
    if values.get("runs"):
        return [str(run) for run in values.pop("runs")]
    return [str(values.pop("run"))] if values.get("run") is not None else []


def _group_words(group: str, default: str | None, value: Any, defaults: Mapping[str, Any]) -> list[str]:
    """The choice that needs the fewest further words; none at all (null) is a choice as well."""
    if value is None:
        return [] if default is None else [f"{group}=null"]
    found = []
    starts: dict[str | None, Any] = {name: content(path) for name, path in choices(group).items()}
    for name, start in {None: {}, **starts}.items():
        changed = _changes(_completed(overlaid(defaults, start), value), value)
        if changed is not IMPOSSIBLE:
            chosen = [] if name == default else from_python({group: name})
            found.append([*chosen, *(from_python({group: changed}) if changed is not SAME else [])])
    if not found:
        raise DeshiError(f"No choice of {group} can be turned into {value} on the command line.")
    return min(found, key=len)


def _completed(start: Any, value: Any) -> Any:
    """``start`` with its classes' defaults written out, as far as ``value`` has the same classes in their places."""
    if not isinstance(start, Mapping) or not isinstance(value, Mapping):
        return start
    if TARGET in start and start[TARGET] == value.get(TARGET):
        start = complete(start)
    return {key: _completed(inner, value.get(key)) for key, inner in start.items()}


SAME, IMPOSSIBLE = object(), object()


def _changes(start: Any, value: Any) -> Any:
    """What has to be set on top of ``start`` to reach ``value``; keys can be added or set, but not taken away."""
    if start == value and type(start) is type(value):
        return SAME
    if not isinstance(value, Mapping):
        return value
    if TARGET in value and not (isinstance(start, Mapping) and start.get(TARGET) == value[TARGET]):
        mine = complete({TARGET: value[TARGET]})
        rest = {key: inner for key, inner in value.items() if key not in mine or inner != mine[key]}
        lost = isinstance(start, Mapping) and not start.keys() <= value.keys()
        return IMPOSSIBLE if lost else {TARGET: value[TARGET], **rest}
    if not isinstance(start, Mapping):
        return {} if not value else _changes({}, value)
    changes = {key: _changes(start.get(key), inner) for key, inner in value.items()}
    if not start.keys() <= value.keys() or IMPOSSIBLE in changes.values():
        return IMPOSSIBLE
    return {key: change for key, change in changes.items() if change is not SAME}


def _path_words(paths: Mapping[str, Any]) -> list[str]:
    usual = PathsConfig.model_validate({"root": paths["root"]}).model_dump(mode="json") | {"root": "."}
    moved = {key: value for key, value in paths.items() if usual[key] != value}
    return from_python({"paths": moved}) if moved else []
