"""Earlier runs, finished or begun, that fit a step's configuration."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deshi.artifacts import read_json
from deshi.configuration.run_folders import DATA_FILE, METRICS_FILE, RUN_FILE, TRAINING_STAGES, find_run, load_config
from deshi.configuration.schemas import DistillConfig, StageConfig
from deshi.configuration.validation import belongs_to, flatten, resolved
from deshi.data.bundle import Bundle
from deshi.serving.bundle import FOLDER, MANIFEST, ServingBundle
from deshi.soft_labels import SoftLabels, store_path
from deshi.stages._run_steps import STAMP
from deshi.stages.export import ExportConfig
from deshi.stages.label import LabelConfig
from deshi.training.distill import SOFT_LABELS_FILE, fingerprint_of
from deshi.types import DeshiError

log = logging.getLogger(__name__)

LAST_FILES = {
    "fit": METRICS_FILE, "teach": METRICS_FILE, "distill": METRICS_FILE, "evaluate": METRICS_FILE,
    "gap": "gap.json", "compare": "comparison.csv", "report": RUN_FILE,
}  # fmt: skip
"""What a finished run folder of a stage holds."""

WITHOUT_EFFECT = (
    "name", "resume", "paths", "data", "run", "train.progress", "train.logger", "train.threads",
    "train.devices", "train.nodes",
)  # fmt: skip
"""Keys whose values don't decide what comes out; data and runs are compared for themselves."""
WITHOUT_EFFECT_ON_TRAINING = ("eval.ks", "eval.batch_size")


@dataclass(frozen=True)
class Found:
    """A run folder that fits a configuration.

    Attributes:
        folder: of the run.
        finished: whether nothing is left to do; otherwise it can be gone on with.
    """

    folder: Path
    finished: bool


def find_done(stage: str, cfg: StageConfig, bundle: Bundle, needs: Iterable[Path] = ()) -> Found | None:
    """The newest finished run of ``stage`` with this configuration, else the newest one of this name to go on with.

    Args:
        stage: one that leaves run folders, or ``label``.
        cfg: what is asked for.
        bundle: the data as they are now: a run on others is none of this configuration.
        needs: what the stage reads; what was made before it is out of date.
    """
    if isinstance(cfg, LabelConfig):  # a store's name tells its run and what it was asked for
        store = store_path(cfg.paths.soft_labels, str(cfg.store))
        return Found(store, True) if (store / "manifest.json").is_file() else None
    if isinstance(cfg, ExportConfig):  # a bundle lies in its run, which doesn't change any more
        bundle_folder = find_run(cfg.paths.runs, TRAINING_STAGES, cfg.run) / FOLDER
        return Found(bundle_folder, True) if _is_timed(bundle_folder) else None
    newest = max(map(_made, needs), default="")
    begun = None
    for folder in sorted((cfg.paths.runs / stage).glob("*/config.yaml"), reverse=True):
        run = folder.parent
        finished = (run / LAST_FILES[stage]).is_file()
        goes_on = begun is None and stage in TRAINING_STAGES and run.name.partition("_")[2] == getattr(cfg, "name", "")
        if not (finished or goes_on) or not _is_same(run, stage, cfg, bundle):
            continue
        if finished and (stage in TRAINING_STAGES or run.name[:STAMP] >= newest):
            return Found(run, True)
        begun = begun if finished else Found(run, False)
    return begun


def _made(folder: Path) -> str:
    """When a folder was made, as in the names of run folders: a serving bundle says so in its manifest."""
    if folder.name != FOLDER:
        return folder.name[:STAMP]
    created = str(read_json(folder / MANIFEST)["created"])
    return created.replace("-", "").replace(":", "").replace("T", "-").rstrip("Z")


def _is_timed(folder: Path) -> bool:
    """Whether a serving bundle of this version is there, with the time of its requests."""
    try:
        return ServingBundle.load(folder, check=False).latency is not None
    except DeshiError:
        return False


def comparable(stage: str, cfg: StageConfig) -> dict[str, Any]:
    """The keys that decide what a stage comes to, dotted, with their values."""
    ignored = (*WITHOUT_EFFECT, *(WITHOUT_EFFECT_ON_TRAINING if stage in TRAINING_STAGES else ()))
    flat = flatten(resolved(cfg))
    return {key: value for key, value in flat.items() if not belongs_to(key, ignored)}


def _is_same(run: Path, stage: str, cfg: StageConfig, bundle: Bundle) -> bool:
    requested = comparable(stage, cfg)
    try:
        saved = comparable(stage, load_config(run, type(cfg)))
        if requested.get("train.precision") == "auto":  # a run saves what it measured
            saved["train.precision"] = "auto"
        if saved != requested:
            return False
        if stage in TRAINING_STAGES:
            same_data = read_json(run / DATA_FILE)["fingerprint"] == bundle.fingerprint
            return same_data and (not isinstance(cfg, DistillConfig) or _knows_the_same(run, cfg))
        record = read_json(run / RUN_FILE)
        same_run = not hasattr(cfg, "run") or Path(str(record["run"])).name == Path(str(cfg.run)).name
        return same_run and bool(record["data_fingerprint"] == bundle.fingerprint)
    except (DeshiError, KeyError):  # of another version, or damaged: not this one
        log.debug("%s can't be compared", run)
        return False


def _knows_the_same(run: Path, cfg: DistillConfig) -> bool:
    """Whether the stores hold what the run learnt from."""
    recorded: Mapping[str, str] = read_json(run / SOFT_LABELS_FILE)
    return all(
        recorded[name] == fingerprint_of(SoftLabels.load(store_path(cfg.paths.soft_labels, name)))
        for name in cfg.soft_labels
    )
