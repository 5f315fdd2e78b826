"""Run folders ``runs/STAGE/TIME_NAME``: the names of their files, the configuration in them, finding them by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from deshi.configuration.schemas import StageConfig
from deshi.configuration.targets import suggestion
from deshi.configuration.validation import Config, resolved, validate
from deshi.types import DeshiError

CONFIG_FILE = "config.yaml"
OVERRIDES_FILE = "overrides.yaml"
ENVIRONMENT_FILE = "environment.json"
DATA_FILE = "data.json"
"""Name and fingerprint of the data that a training began with."""
VOCABULARY_FILE = "vocabulary.parquet"
"""The item ids of a training in index order: a later run that starts from it matches items by them."""
RUN_FILE = "run.json"
"""The record of a finished run."""
METRICS_FILE = "metrics.json"
"""What is written last by a training and by an evaluation."""
TIME_FILE = "time.json"
CURVE_FILE = "epochs.csv"
WEIGHTS_FILE = "model.safetensors"
TEACHER_FILE = "teacher.json"
"""The state of a teacher without gradients."""
FOLDS_FILE = "folds.npy"
CHECKPOINTS = "checkpoints"
"""The folder that a training makes when it begins."""
RANKS_FILE = "ranks.parquet"
LISTS_FILE = "lists.parquet"
CANDIDATES_FILE = "candidates.parquet"
BASELINES = "baselines"
"""The folder of the ranks of the baselines of an evaluation."""

LATEST = "latest"
TRAINING_STAGES = ("fit", "teach", "distill")
"""The stages that leave a run folder with a trained model."""


def name_of(folder: Path) -> str:
    """The name of a run without the time of its beginning."""
    return folder.name.partition("_")[2] or folder.name


def save_config(folder: Path, config: StageConfig) -> None:
    """Write ``config.yaml`` (resolved) and ``overrides.yaml`` into a run folder."""
    write_config(folder / CONFIG_FILE, config)
    _write_yaml(folder / OVERRIDES_FILE, config.overrides)


def write_config(path: Path, config: StageConfig) -> None:
    """Write a resolved configuration, which ``config=FILE`` repeats."""
    _write_yaml(path, resolved(config))


def _write_yaml(path: Path, content: Any) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    os.replace(temporary, path)


def read_saved(folder: Path) -> dict[str, Any]:
    """The plain content of a run folder's ``config.yaml``.

    Raises:
        DeshiError: if there is none or it isn't YAML.
    """
    if not (folder / CONFIG_FILE).is_file():
        raise DeshiError(f"{folder} holds no {CONFIG_FILE}: it is no run folder. Give a folder under runs/.")
    return read_file(folder / CONFIG_FILE)


def read_file(path: Path) -> dict[str, Any]:
    """The plain content of a configuration's YAML file.

    Raises:
        DeshiError: if it isn't YAML, or no keys and values.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise DeshiError(f"{path} is not valid YAML ({error}).") from error
    if not isinstance(content, dict):
        raise DeshiError(f"{path} holds {type(content).__name__}, expected keys and values: the file is damaged.")
    return content


def load_config(folder: Path, model: type[Config]) -> Config:
    """The configuration that a stage saved in ``folder``, checked again."""
    return validate(model, read_saved(folder))


def find_run(runs: Path, stages: str | Sequence[str], text: str) -> Path:
    """The run folder that ``text`` names: a path, a folder's name, what the run was called, or ``latest``.

    Args:
        runs: where the stages' folders are.
        stages: a stage or several; of several runs with one name, the newest is meant.
        text: the name.

    Raises:
        DeshiError: with the names nearest to it.
    """
    folder = Path(text).expanduser()
    if (folder / CONFIG_FILE).is_file():
        return folder
    folders = [runs / stage for stage in ([stages] if isinstance(stages, str) else stages)]
    candidates = sorted(
        (path.parent for folder in folders for path in folder.glob(f"*/{CONFIG_FILE}")), key=lambda path: path.name
    )
    matches = [path for path in candidates if text in (LATEST, path.name, name_of(path))]
    if matches:
        return matches[-1]
    where = " or ".join(map(str, folders))
    if candidates:
        hint = suggestion(text, [path.name for path in candidates], "runs")
    else:
        hint = f"There is no run under {where}: run `deshi {folders[0].name}` first."
    raise DeshiError(
        f"No run {text!r}: it is neither a run folder nor the name of one under {where}. {hint} Runs that lie under "
        "another root are found with paths.root=FOLDER."
    )
