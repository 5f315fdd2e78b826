"""Section on provenance: settings that differ between the runs, whole configurations, environments, times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from deshi.artifacts import read_json
from deshi.configuration.run_folders import ENVIRONMENT_FILE, TIME_FILE
from deshi.configuration.validation import flatten
from deshi.data.sources.sql import hide_password
from deshi.rendering import Paragraph, Table
from deshi.reporting._blocks import Block, Details, Missing, Section
from deshi.reporting._context import Context
from deshi.reporting._runs import ReportedRun

PACKAGES = ("deshi", "torch", "lightning", "polars", "numpy")
IGNORED = ("paths.", "resume", "train.progress")
LEAD = (
    "Models that differ in more than one setting can't tell which of them made the difference. Same configuration, "
    "data, versions and number of threads give the same figures on a CPU."
)


def section(context: Context) -> Section:
    """Differences, configurations, environments and times."""
    configs = {run.label: (run.trained or run.evaluation).saved for run in context.runs}
    blocks: list[Block] = [_differences(configs), _environments(context), _times(context)]
    blocks += [
        Missing(f"The run of {run.label} is no longer at {run.record['run']}: its evaluation's configuration is shown.")
        for run in context.runs
        if run.record["run"] and run.trained is None
    ]
    blocks += [Details(f"Configuration of {label}", _yaml(config)) for label, config in configs.items()]
    return Section("provenance", "Configuration, environment, times", LEAD, blocks)


def _yaml(config: Mapping[str, Any]) -> str:
    return hide_passwords(yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))


def hide_passwords(text: str) -> str:
    """A text without the passwords of database addresses: reports are handed on."""
    return "\n".join(hide_password(line) for line in text.splitlines())


def settings(config: Mapping[str, Any]) -> dict[str, str]:
    """Dotted keys and values as texts, passwords hidden."""
    values = flatten(config).items()
    return {key: hide_passwords("null" if value is None else str(value)) for key, value in values}


def _differences(configs: dict[str, dict[str, Any]]) -> Block:
    if len(configs) == 1:
        return Paragraph("One run: there is nothing to compare. Its configuration is below.")
    runs = [settings(config) for config in configs.values()]
    keys = dict.fromkeys(key for run in runs for key in run if not key.startswith(IGNORED))
    differing = [key for key in keys if len({run.get(key) for run in runs}) > 1]
    if not differing:
        return Paragraph("The runs have the same configuration.")
    rows = [[key, *(run.get(key, "") for run in runs)] for key in differing]
    return _text_table(f"The {len(rows)} settings that differ", ["key", *configs], rows)


def _text_table(title: str, columns: list[str], rows: list[list[str]]) -> Table:
    return Table(title, columns, rows, align="l" * len(columns))


def _environments(context: Context) -> Table:
    """A column per run, or one for all where they are equal."""
    columns = {run.label: _environment(run) for run in context.runs}
    first = next(iter(columns))
    if all(column == columns[first] for column in columns.values()):
        columns = {"all runs" if len(columns) > 1 else first: columns[first]}
    rows = [[name, *(column[name] for column in columns.values())] for name in next(iter(columns.values()))]
    return _text_table("Environment", ["", *columns], rows)


def _environment(run: ReportedRun) -> dict[str, str]:
    saved = read_json((run.trained or run.evaluation).folder / ENVIRONMENT_FILE)
    packages = saved.get("packages", {})
    return {
        "Python": str(saved.get("python")),
        "platform": str(saved.get("platform")),
        "cores": str(saved.get("cores")),
        "git commit": str(saved.get("git") or "none")[:12],
        **{name: str(packages.get(name, "none")) for name in PACKAGES},
    }


def _times(context: Context) -> Table:
    """The times of training and of the evaluation."""
    seconds = {run.label: _seconds(run, context.part) for run in context.runs}
    names = list(dict.fromkeys(name for times in seconds.values() for name in times))
    rows = [
        context.row(label, *(_duration(times[name]) if name in times else "" for name in names))
        for label, times in seconds.items()
    ]
    return Table("Times", ["run", *names], rows)


def _seconds(run: ReportedRun, part: str) -> dict[str, float]:
    times: dict[str, float] = {}
    if run.trained is not None and (path := run.trained.folder / TIME_FILE).is_file():
        times = {name.replace("_", " "): float(value) for name, value in read_json(path).items()}
    path = run.evaluation.folder / "time.json"
    evaluation = read_json(path).get(str(run.record["model"]), {}) if path.is_file() else {}
    return times | ({f"evaluation, {part}": float(evaluation[part])} if part in evaluation else {})


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
