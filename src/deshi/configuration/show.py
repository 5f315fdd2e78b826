"""Configurations as text: the resolved one with its overrides marked, and the help of a stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from deshi.configuration.groups import choices, content, description, stage_groups
from deshi.configuration.schemas import StageConfig
from deshi.configuration.validation import key_of, nested_model, resolved

WIDTH = 110


def render(config: StageConfig) -> str:
    """The resolved configuration as YAML; what an argument has set carries that argument as a comment."""
    marks = {key_of(text): text for text in config.overrides}
    values = resolved(config)
    paths = {"paths": values.pop("paths")}
    return "\n".join(_lines({**values, **paths}, marks, "", 0))


def _lines(values: Mapping[str, Any], marks: Mapping[str, str], prefix: str, depth: int) -> Iterator[str]:
    for name, value in values.items():
        key = f"{prefix}{name}"
        start = "  " * depth + f"{name}:"
        mark = f"  # <- {marks[key]}" if key in marks else ""
        flow = f"{start} {_flow(value)}{mark}"
        marked_inside = any(mark_key.startswith(f"{key}.") for mark_key in marks)
        if isinstance(value, dict) and value and (marked_inside or depth == 0 or len(flow) > WIDTH):
            yield start + mark
            yield from _lines(value, marks, f"{key}.", depth + 1)
        else:
            yield flow


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def group_help(stage: str, config_dir: Path | None = None) -> Iterator[str]:
    """The groups of a stage: every choice with what it is, the user's own included, the default one starred."""
    for group, default in stage_groups(stage).items():
        options = choices(group, config_dir)
        if group == "paths" or not options:
            continue
        yield f"  {group}=" + ("" if default else "NAME")
        width = max(len(name) for name in options)
        for name, path in options.items():
            star = "*" if name == default else " "
            yield f"   {star} {name:<{width}}  {description(path)}"


def key_help(stage: str, schema: type[BaseModel]) -> Iterator[str]:
    """The keys of a stage with default and meaning."""
    defaults: dict[str, Any] = {}
    for group, choice in stage_groups(stage).items():
        path = choices(group).get(choice or "")
        if path is not None:
            defaults[group] = content(path)
    rows = list(_rows(schema, defaults, ""))
    if stage != "prepare":  # elsewhere the data's keys only repeat what the bundle was prepared with
        rows = [row for row in rows if not row[0].startswith("data.")]
    rows.sort(key=lambda row: row[0].startswith("paths."))
    width = max(len(left) for left, _ in rows)
    return (f"  {left:<{width}}  {meaning}" for left, meaning in rows)


def _rows(schema: type[BaseModel], defaults: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, field in schema.model_fields.items():
        inner, chosen = nested_model(field.annotation), defaults.get(name)
        if inner is not None:
            yield from _rows(inner, chosen if isinstance(chosen, Mapping) else {}, f"{prefix}{name}.")
        elif not (isinstance(chosen, Mapping) or field.is_required() and chosen is None):
            value = field.default if chosen is None else chosen
            text = "" if value is PydanticUndefined or field.default_factory else f"={_flow(_plain(value))}"
            meaning = field.description or ""
            for option in (field.annotation, *get_args(field.annotation)):
                if get_origin(option) is Literal:
                    meaning = f"{' | '.join(map(str, get_args(option)))}: {meaning}"
            if text:
                yield f"{prefix}{name}{text}", meaning


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return list(value)
    return value if isinstance(value, bool | int | float | str | None) else str(value)
