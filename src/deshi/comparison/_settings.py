"""Settings of a trained run that are the same for all its seeds, settings of its teachers included."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from deshi.artifacts import fingerprint, read_json
from deshi.configuration.run_folders import CONFIG_FILE, RUN_FILE, TRAINING_STAGES, load_config, read_saved
from deshi.configuration.targets import TARGET
from deshi.configuration.validation import belongs_to, flatten, resolved
from deshi.runs.run import SCHEMAS
from deshi.types import DeshiError

NO_PART_OF_THE_MODEL = ("seed", "name", "paths", "resume", "data", "train.progress", "train.threads", "loss.chunk")
"""Keys of a fit's configuration in which runs of one model may differ; the data are compared by fingerprint."""

LIMIT = "train.max_minutes"
"""Another such key, where the run was over before it."""

NAMES_RUNS = ("student", "members")
"""Arguments that name other runs: of an LLM teacher, an ensemble, a selection strategy."""
_STAMP = re.compile(r"-\d{8}-\d{6}")


def settings_of(folder: Path) -> dict[str, Any]:
    """The flat configuration of a run that is equal for all seeds.

    Names of other runs (an ensemble's members) and of stores are replaced by what those are, which is the same for
    runs of another seed that drew on runs of that seed. A refit is one, whichever run has selected its epochs.
    """
    config = flatten(_configuration(folder))
    flat = {key: value for key, value in config.items() if not belongs_to(key, NO_PART_OF_THE_MODEL)}
    runs, record = folder.parent.parent, read_json(folder / RUN_FILE) if (folder / RUN_FILE).is_file() else {}
    planned = record.get("selected_epoch") if isinstance(flat.get("train.refit"), str) else flat.get("train.max_epochs")
    if record.get("trained_epochs") == planned:
        flat.pop(LIMIT, None)
    if "train.refit" in flat:
        flat["train.refit"] = bool(flat["train.refit"])
    for key, value in flat.items():
        if "." in key and key.rpartition(".")[2] in NAMES_RUNS:
            flat[key] = [_origin(runs, name) for name in value] if isinstance(value, list) else _origin(runs, value)
    if "soft_labels" in flat and record:
        teachers = {labels["store"]: labels["teacher"] for labels in record.get("soft_labels", ())}
        flat["soft_labels"] = [_store(runs, store, teachers.get(store, {})) for store in flat["soft_labels"]]
    return flat


def _configuration(folder: Path) -> dict[str, Any]:
    """A run's configuration, with the defaults of keys that came after it was made: it did what they do."""
    schema = SCHEMAS.get(folder.parent.name)
    if schema is not None:
        with suppress(DeshiError):  # of a version whose keys are gone, or of classes that can't be had: as it was saved
            return resolved(load_config(folder, schema))
    return read_saved(folder)


def _origin(runs: Path, text: Any) -> Any:
    """A run as its network and a hash of its settings; a text that names no run that is still there stays."""
    folders = [Path(str(text)), *(runs / stage / str(text) for stage in TRAINING_STAGES)]
    folder = next((folder for folder in folders if (folder / CONFIG_FILE).is_file()), None)
    if not isinstance(text, str) or folder is None:
        return text
    settings = settings_of(folder)
    target = settings.get(f"teacher.{TARGET}", settings.get(f"student.{TARGET}", ""))
    return f"{str(target).rpartition('.')[2].lower()}-{fingerprint([('settings', settings)])[:6]}"


def _store(runs: Path, name: str, teacher: Mapping[str, Any]) -> str:
    """A store whose name begins with its teacher's run, as that run and the rest of the name."""
    run = str(teacher.get("run", ""))
    if not run or not name.startswith(run):
        return name
    return f"{_origin(runs, run)}{_STAMP.sub('', name.removeprefix(run))}"
