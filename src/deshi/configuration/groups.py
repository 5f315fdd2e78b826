"""Stages, groups and choices, read from the YAML files themselves."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1] / "conf"


def choices(group: str, config_dir: Path | None = None) -> dict[str, Path]:
    """The choices of a group, by name: its YAML files in the user's own folder and here, where the latter win."""
    paths: dict[str, Path] = {}
    for root in (config_dir, ROOT):
        folder = root / group if root else None
        if folder and folder.is_dir():
            paths |= {str(path.relative_to(folder).with_suffix("")): path for path in sorted(folder.rglob("*.yaml"))}
    return dict(sorted(paths.items()))


@cache
def stage_groups(stage: str) -> dict[str, str | None]:
    """The groups of a stage with their default choices, in the order of its defaults list."""
    defaults = yaml.safe_load((ROOT / f"{stage}.yaml").read_text(encoding="utf-8"))["defaults"]
    return {name: choice for entry in defaults if isinstance(entry, dict) for name, choice in entry.items()}


def description(path: Path) -> str:
    """What a choice is: the first comment of its file that isn't an instruction to Hydra."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = (line.lstrip("# ") for line in lines if line.startswith("#"))
    return next((comment for comment in comments if not comment.startswith("@")), "")


def content(path: Path) -> dict[str, Any]:
    """The plain content of a choice's file, interpolations as they stand."""
    loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded if isinstance(loaded, dict) else {}
