"""The section that lets a reader repeat the runs: what differs between them, everything they were made with, times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from deshi.artifacts import read_json
from deshi.configuration.run_folders import ENVIRONMENT_FILE, TIME_FILE
from deshi.data.sources.sql import hide_password
from deshi.reporting.blocks import Block, Listing, Missing, Row, Section, Table, Text
from deshi.reporting.context import Context
from deshi.reporting.models import Model

PACKAGES = ("deshi", "torch", "lightning", "polars", "numpy")
IGNORED = ("paths.", "resume", "train.progress")
LEAD = (
    "Models that differ in more than one setting can't tell which of them made the difference. Same configuration, "
    "data, versions and number of threads give the same figures on a CPU."
)


def section(context: Context) -> Section:
    """Differences, configurations, environments and times."""
    configs = {model.label: _config(model) for model in context.models}
    blocks: list[Block] = [_differences(context, configs), _environments(context), _times(context)]
    blocks += [
        Missing(
            f"The run of {model.label} is no longer at {model.record['run']}: its evaluation's configuration is shown."
        )
        for model in context.models
        if model.record["run"] and model.run is None
    ]
    blocks += [Listing(f"Configuration of {label}", _yaml(config)) for label, config in configs.items()]
    return Section("provenance", "Configuration, environment, times", LEAD, blocks)


def _config(model: Model) -> dict[str, Any]:
    """Of the training where it is still there, else of the evaluation."""
    return (model.run or model.evaluation).saved


def _yaml(config: Mapping[str, Any]) -> str:
    return hide_passwords(yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))


def hide_passwords(text: str) -> str:
    """A text without the passwords of database addresses: reports are handed on."""
    return "\n".join(hide_password(line) for line in text.splitlines())


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys and values as texts."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", hide_passwords("null" if value is None else str(value))


def _differences(context: Context, configs: dict[str, dict[str, Any]]) -> Block:
    if len(configs) == 1:
        return Text("One run: there is nothing to compare. Its configuration is below.")
    values = {label: dict(flat(config)) for label, config in configs.items()}
    keys = list(dict.fromkeys(key for one in values.values() for key in one if not key.startswith(IGNORED)))
    rows = [
        Row(key, [one.get(key, "") for one in values.values()])
        for key in keys
        if len({one.get(key) for one in values.values()}) > 1
    ]
    if not rows:
        return Text("The runs have the same configuration.")
    return Table(f"The {len(rows)} settings that differ", ["key", *values], rows, numeric=False)


def _environments(context: Context) -> Table:
    """A column per run, or one for all where they are equal."""
    found = {model.label: _environment(model) for model in context.models}
    if len({tuple(one.items()) for one in found.values()}) == 1:
        found = {"all runs" if len(found) > 1 else next(iter(found)): next(iter(found.values()))}
    names = list(next(iter(found.values())))
    rows = [Row(name, [one[name] for one in found.values()]) for name in names]
    return Table("Environment", ["", *found], rows, numeric=False)


def _environment(model: Model) -> dict[str, str]:
    saved = read_json((model.run or model.evaluation).folder / ENVIRONMENT_FILE)
    packages = saved.get("packages", {})
    return {
        "Python": str(saved.get("python")),
        "platform": str(saved.get("platform")),
        "cores": str(saved.get("cores")),
        "git commit": str(saved.get("git") or "none")[:12],
        **{name: str(packages.get(name, "none")) for name in PACKAGES},
    }


def _times(context: Context) -> Table:
    """Every time that training has written, and that of the evaluation."""
    found = {model.label: _seconds(model, context.part) for model in context.models}
    names = list(dict.fromkeys(name for one in found.values() for name in one))
    rows = [
        Row(label, [_duration(one[name]) if name in one else "" for name in names], context.color(label))
        for label, one in found.items()
    ]
    return Table("Times", ["run", *names], rows)


def _seconds(model: Model, part: str) -> dict[str, float]:
    times: dict[str, float] = {}
    if model.run is not None and (path := model.run.folder / TIME_FILE).is_file():
        times = {name.replace("_", " "): float(value) for name, value in read_json(path).items()}
    own = _evaluation_times(model.evaluation.folder).get(str(model.record["model"]), {})
    return times | ({f"evaluation, {part}": float(own[part])} if part in own else {})


def _evaluation_times(folder: Path) -> dict[str, Any]:
    return read_json(folder / TIME_FILE) if (folder / TIME_FILE).is_file() else {}


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
