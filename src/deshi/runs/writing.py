"""New run folders and the record of a run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deshi.artifacts import environment, new_run_folder, write_json
from deshi.configuration.run_folders import ENVIRONMENT_FILE, RUN_FILE, save_config
from deshi.configuration.schemas import StageConfig
from deshi.runs.run import FORMAT


def new_run(cfg: StageConfig, stage: str, name: str) -> Path:
    """Make the folder ``runs/STAGE/TIME_NAME`` with configuration and environment in it."""
    folder = new_run_folder(cfg.paths.runs, stage, name)
    try:
        save_config(folder, cfg)
        write_json(folder / ENVIRONMENT_FILE, environment())
    except OSError:  # a full disk: no folder is better than half of one
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


@contextmanager
def whole_run(cfg: StageConfig, stage: str, name: str) -> Iterator[Path]:
    """A new run folder for results that are at hand: one that isn't filled to the end is removed."""
    folder = new_run(cfg, stage, name)
    try:
        yield folder
    except BaseException:  # of whatever kind, an interruption too: it is raised again
        shutil.rmtree(folder, ignore_errors=True)
        raise


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write ``run.json``: data, protocol, seed and what the run came to, with the number of the format."""
    write_json(folder / RUN_FILE, {"format": FORMAT, **record})
