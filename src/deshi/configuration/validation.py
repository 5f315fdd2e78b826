"""The check of plain values against a stage's schema, and configurations as plain values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from deshi.configuration.schemas import RUNTIME, PathsConfig, StageConfig
from deshi.configuration.targets import TARGET, ConfigError, Problem, argument_hint, arguments, show, suggestion
from deshi.types import DeshiError

Config = TypeVar("Config", bound=StageConfig)


def validate(
    model: type[Config], values: Mapping[str, Any], overrides: Iterable[str] = (), known: Iterable[str] = ()
) -> Config:  # fmt: skip
    """Check plain ``values`` (as read from YAML) against a stage's schema.

    Args:
        model: the schema.
        values: the configuration.
        overrides: the ``key=value`` arguments behind it, kept with the result.
        known: further names that a suggestion may name, such as groups.

    Raises:
        ConfigError: with every problem: the dotted key, what was got, what was expected, the nearest names.
    """
    values = model.completed(values)
    try:
        config = model.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        names = [*valid_keys(model, values), *known]
        details = _one_each(model, values, error.errors())
        problems = [problem for detail in details for problem in _problems(model, names, detail)]
        raise ConfigError(_without_inherited(problems, overrides)) from None
    config._overrides = list(overrides)
    return config


def _without_inherited(problems: Sequence[Problem], overrides: Iterable[str]) -> list[Problem]:
    """Problems, without those of a key such as ``distilled.train.KEY`` that it takes over from ``train.KEY``."""
    given = {key_of(override) for override in overrides}

    def is_inherited(problem: Problem) -> bool:
        what = problem.message.partition(".")[0]  # without the names near to it
        return problem.key not in given and any(
            other.key and problem.key.endswith(f".{other.key}") and other.message.startswith(what) for other in problems
        )

    return [problem for problem in problems if not is_inherited(problem)]


def _one_each(model: type[BaseModel], values: Mapping[str, Any], details: Iterable[Any]) -> list[Any]:
    """Pydantic's errors, with one for a key of several types: Pydantic has one for each type, named after it."""
    merged: dict[str, Any] = {}
    for detail in details:
        path = ".".join(map(str, detail["loc"]))
        key = path.rpartition(".")[0]
        if not _has_several_types(hint_of(model, values, key)):
            merged[path] = detail
        elif key in merged:
            merged[key] = {**merged[key], "msg": f"{merged[key]['msg']} or {_expected(detail['msg'])}"}
        else:
            merged[key] = {**detail, "loc": detail["loc"][:-1]}
    return list(merged.values())


def _has_several_types(hint: Any) -> bool:
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    types = get_args(hint) if get_origin(hint) in (Union, UnionType) else ()
    return len([each for each in types if each is not type(None)]) > 1  # of one type and null Pydantic tells one error


def _expected(message: str) -> str:
    """What Pydantic's message wants, without its phrases."""
    for prefix in ("Input should be ", "String should ", "Input should ", "a valid "):
        message = message.removeprefix(prefix)
    return message


def _problems(model: type[BaseModel], names: Iterable[str], detail: Any) -> list[Problem]:
    """Pydantic's error in deshi's words."""
    key = ".".join(str(part) for part in detail["loc"])
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        return [problem.under(key) for problem in cause.problems]
    if cause is not None:
        return [Problem(key, f"{cause}.")]
    if detail["type"] == "extra_forbidden":
        leaves = [".".join([key, *path]) for path in _leaf_paths(detail["input"])]
        return [Problem(leaf, f"unknown key. {suggestion(leaf, names, 'keys')}") for leaf in leaves]
    if detail["type"] == "missing":
        return [Problem(key, _missing(model, key))]
    expected = _expected(detail["msg"])
    if detail["type"] == "too_short":
        expected = "at least one"
    hint = ""
    if detail["type"] == "literal_error" and isinstance(detail["input"], str):
        choices = [choice.strip("' ") for choice in expected.replace(" or ", ",").split(",")]
        hint = f" {suggestion(detail['input'], choices, 'values')}"
    if detail["type"] == "list_type" and isinstance(detail["input"], str):
        hint = f" Write {key}=[{detail['input']}]."
    if detail["type"] == "string_type" and not isinstance(detail["input"], dict | list):
        hint = f" Quote a name that looks like a number, in YAML: {key.rpartition('.')[2]}: '2024'."
    return [Problem(key, f"got {show(detail['input'])}, expected {expected}.{hint}")]


def _missing(model: type[BaseModel], key: str) -> str:
    field = model.model_fields.get(key)
    if field is None or not field.description:
        return "is missing and has no default. Give it a value, or choose a group that has one."
    value = "[...]" if get_origin(field.annotation) is list else "..."
    return f"is missing and has no default, expected {field.description}. Write {key}={value}"


def _leaf_paths(value: Any) -> Iterator[list[str]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            for path in _leaf_paths(inner):
                yield [str(name), *path]
    else:
        yield []


def valid_keys(model: type[BaseModel], values: Mapping[str, Any]) -> Iterator[str]:
    """All dotted keys that a stage knows: the schema's, and the arguments of the targets named in ``values``."""
    for name, field in model.model_fields.items():
        inner = nested_model(field.annotation)
        value = values.get(name)
        if inner is not None:
            yield from (f"{name}.{key}" for key in valid_keys(inner, value if isinstance(value, Mapping) else {}))
            continue
        yield name
        if isinstance(value, Mapping) and TARGET in value:
            try:
                yield from (f"{name}.{key}" for key in arguments(value, RUNTIME.get(name, ())))
            except DeshiError:  # the target's own problem is reported where it is checked
                continue


def schema_defaults(model: type[BaseModel]) -> dict[str, Any]:
    """The plain defaults of a schema, for interpolations such as ``name=seed_${seed}``; paths depend on their root."""
    defaults: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        inner = nested_model(field.annotation)
        if inner is None and not field.is_required() and field.default_factory is None:
            defaults[name] = list(field.default) if isinstance(field.default, tuple) else field.default
        if inner is not None and inner is not PathsConfig and type(None) not in get_args(field.annotation):
            defaults[name] = schema_defaults(inner)
    return defaults


def hint_of(model: type[BaseModel], values: Any, key: str) -> Any:
    """The type, with its bounds, of what a dotted key sets; None for a key that isn't known, and for whole nodes."""
    name, _, inner = key.partition(".")
    if isinstance(values, Mapping) and TARGET in values:
        value = values.get(name)
        return hint_of(BaseModel, value, inner) if inner else argument_hint(values, name)
    field = model.model_fields.get(name)
    value = values.get(name) if isinstance(values, Mapping) else None
    if inner:
        below = nested_model(field.annotation) if field is not None else None
        return hint_of(below or BaseModel, value, inner)
    if field is None or (isinstance(value, Mapping) and TARGET in value):
        return None
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def nested_model(annotation: Any) -> type[BaseModel] | None:
    """The model inside a field's annotation (``Model`` or ``Model | None``), if any; not that of a dict's values."""
    if get_origin(annotation) is dict:
        return None
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def overlaid(base: Mapping[str, Any], changes: Any) -> dict[str, Any]:
    """``base`` with ``changes`` on top, key by key; another class brings its own arguments."""
    if not isinstance(changes, Mapping):
        return dict(base)
    if TARGET in changes and changes[TARGET] != base.get(TARGET):
        return dict(changes)
    nested = {
        key: overlaid(base[key], value) if isinstance(base.get(key), Mapping) and isinstance(value, Mapping) else value
        for key, value in changes.items()
    }
    return {**base, **nested}


def resolved(config: BaseModel) -> dict[str, Any]:
    """The configuration as plain dicts, lists and scalars, every default written out."""
    return config.model_dump(mode="json")


def key_of(override: str) -> str:
    """The dotted key, or the group, that a ``key=value`` text sets."""
    return override.lstrip("+").partition("=")[0]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys; lists are values."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return flat


def belongs_to(key: str, names: Iterable[str]) -> bool:
    """Whether a dotted key is one of ``names`` or lies below it."""
    return any(key == name or key.startswith(f"{name}.") for name in names)
